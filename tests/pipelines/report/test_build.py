"""Whole pages of a run and a model: what they hold, whose predictions they draw, and that they need nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy import stats

from vqa_train.core.errors import ModelError, RunError, UsageError
from vqa_train.pipelines import runs
from vqa_train.pipelines.export.run import export_run
from vqa_train.pipelines.fit import run as pipeline
from vqa_train.pipelines.report.build import ReportResult, write_report
from vqa_train.pipelines.report.config import ReportConfig
from vqa_train.pipelines.report.rows import load_rows

QUICK: dict[str, Any] = {
    "epochs": 10, "patience": None, "validation": {"fraction": 0}, "head": {"hidden": [8]}, "optimizer": {"lr": 0.03},
    "ema": None,
}  # fmt: skip
RUN_SECTIONS = (
    "Predicted against MOS", "Results", "Residuals", "Calibration", "Learning curves", "Worst clips",
    "Feature importance", "What came in", "Provenance",
)  # fmt: skip


def fitted(data: Any, output: Path, **values: Any) -> Path:
    recipe = {"schema": "vqa-train/fit/1", "features": {"video": {"set": "fake"}}, "train": QUICK, **values}
    config = pipeline.parse_fit_config(recipe, "recipe")
    pipeline.fit(config, features=data.store, output=output, dataset=str(data.manifest))
    return output


def report(source: Path | str, output: Path, **options: Any) -> tuple[ReportResult, str]:
    result = write_report(ReportConfig(source=str(source), output=output, **options))
    return result, output.read_text(encoding="utf-8")


class References(HTMLParser):
    """Every place where a page names another file."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {"src", "href", "srcset", "poster", "data", "action", "xlink:href"}
        self.found += [str(value) for name, value in attrs if name in named]
        self.found += re.findall(r"url\(([^)]*)\)", " ".join(str(v) for _, v in attrs))
        assert tag not in ("script", "iframe", "object", "embed", "form")


def test_a_run_page_has_every_part_and_names_no_other_file(labelled_store: Any, tmp_path: Path) -> None:
    run = fitted(labelled_store, tmp_path / "run", protocol="kfold:k=3", seeds=2, calibration={"method": "cross"})
    result, html = report(run, tmp_path / "r.html", features=labelled_store.store)
    assert result.sections == RUN_SECTIONS
    parser = References()
    parser.feed(html)
    assert parser.found
    assert [name for name in parser.found if not name.startswith(("#", "data:"))] == []
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html
    assert json.loads(json.dumps(result.to_json()))["schema"] == "vqa-train/report/1"


def test_the_same_run_gives_the_same_bytes(labelled_store: Any, tmp_path: Path) -> None:
    run = fitted(labelled_store, tmp_path / "run", protocol="kfold:k=3")
    for name in ("one", "two"):
        report(run, tmp_path / f"{name}.html", features=labelled_store.store)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_headline_numbers_are_the_protocols(labelled_store: Any, tmp_path: Path) -> None:
    run = fitted(labelled_store, tmp_path / "run", protocol="kfold:k=4")
    _, html = report(run, tmp_path / "r.html")
    table = pl.read_parquet(run / runs.HELD_OUT_FILE).drop_nans("overall")
    per_fold = [
        stats.spearmanr(fold["overall"], fold["predicted_overall"]).statistic for _, fold in table.group_by("fold")
    ]
    assert f'<p class="value">{np.median(per_fold):.3f}</p>' in html
    assert f"± {np.std(per_fold, ddof=1):.3f} over 4 splits" in html


def test_a_video_held_out_often_is_drawn_once_from_its_first_split(labelled_store: Any, tmp_path: Path) -> None:
    run = fitted(labelled_store, tmp_path / "run", protocol="repeated:repeats=5,test_fraction=0.5")
    record = runs.open_run(run)
    every = load_rows(run, record)
    once = every.once()
    table = pl.read_parquet(run / runs.HELD_OUT_FILE)
    first = table.unique("id", keep="first", maintain_order=True)
    assert len(table) > len(first) == len(once)
    assert dict(zip(once.ids.tolist(), once.predicted[:, 0], strict=True)) == pytest.approx(
        dict(zip(first["id"], first["predicted_overall"], strict=True))
    )
    assert not once.optimistic
    _, html = report(run, tmp_path / "r.html")
    assert "not an average" in html


def test_rows_that_the_model_was_fitted_on_are_called_so(labelled_store: Any, tmp_path: Path) -> None:
    run = fitted(labelled_store, tmp_path / "run")
    _, html = report(run, tmp_path / "test.html")
    assert "which took no part in training" in html
    assert "choosing between recipes by this page makes them training rows" in html
    _, html = report(run, tmp_path / "train.html", rows="train")
    assert "the numbers say nothing about new videos" in html
    with pytest.raises(UsageError, match=r"has no held-out rows"):
        report(run, tmp_path / "x.html", rows="held-out")
    with pytest.raises(UsageError, match=r"unknown rows 'tset'"):
        report(run, tmp_path / "x.html", rows="tset")


def test_a_model_that_kept_its_test_rows_is_measured_on_them(labelled_store: Any, tmp_path: Path) -> None:
    model = export_run(fitted(labelled_store, tmp_path / "run"), tmp_path / "m.onnx").path
    result, html = report(
        model, tmp_path / "m.html", features=labelled_store.store, datasets=(str(labelled_store.manifest),)
    )
    assert result.kind == "model"
    assert result.sections == (
        "Predicted against MOS", "Results", "Residuals", "Calibration", "Worst clips", "Feature importance",
        "Inputs, outputs and checks", "Provenance",
    )  # fmt: skip
    assert "which took no part in training" in html
    assert "too good for new videos" not in html


def test_a_model_of_all_rows_does_not_boast_with_them(labelled_store: Any, tmp_path: Path) -> None:
    run = fitted(labelled_store, tmp_path / "run", protocol="kfold:k=3")
    model = export_run(run, tmp_path / "m.onnx").path
    _, html = report(
        model, tmp_path / "m.html", features=labelled_store.store, datasets=(str(labelled_store.manifest),)
    )
    assert "which took no part in training" not in html
    assert "the model was fitted on, wholly or in part: the numbers are too good for new videos" in html
    # The headline is the protocol's, of models that had not seen the rows.
    median = json.loads((run / runs.PROTOCOL_FILE).read_text())["summary"]["overall"]["srocc"]["median"]
    assert f'<p class="value">{median:.3f}</p>' in html


def test_a_model_on_another_dataset_is_measured_on_all_of_it(labelled_store: Any, tmp_path: Path) -> None:
    model = export_run(fitted(labelled_store, tmp_path / "run"), tmp_path / "m.onnx").path
    other = tmp_path / "other.yaml"
    text = labelled_store.manifest.read_text(encoding="utf-8")
    other.write_text(text.replace("name: set\n", "name: other\n"), encoding="utf-8")
    assert "name: other\n" in other.read_text(encoding="utf-8")
    _, html = report(model, tmp_path / "m.html", features=labelled_store.store, datasets=(str(other),))
    assert "videos of a dataset that the model was not fitted on" in html
    assert "Rests on 120 rows, measured for this page on videos of a dataset" in html


def test_a_bare_model_says_what_its_sidecar_knows(labelled_store: Any, tmp_path: Path) -> None:
    model = export_run(fitted(labelled_store, tmp_path / "run"), tmp_path / "m.onnx").path
    result, html = report(model, tmp_path / "m.html")
    assert result.sections == ("Results", "Inputs, outputs and checks", "Provenance")
    assert "nothing is known of its accuracy" in html
    assert "with --features STORE this report evaluates the model and draws its predictions" in result.notes


def test_worst_clips_show_the_middle_frame_of_their_own_file(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    from vqa_train.core.types import FeatureSpec, OutputSpec
    from vqa_train.datasets.load import load_dataset
    from vqa_train.store.store import FeatureRow, FeatureStore

    manifest = make_dataset(12)
    spec = FeatureSpec(
        backbone="fake", definition=1, modality="video", outputs=(OutputSpec(name="pooled", shape=(3,)),),
        preprocessing={"imported": {}},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    data = load_dataset(str(manifest))
    rows = [
        FeatureRow(key=v.sha256, outputs={"pooled": rng.normal(size=3).astype(np.float32)}, facts={})
        for v in data.videos
    ]
    FeatureStore(tmp_path / "store").create_set(spec, license="MIT").append(
        rows, profile={"device": "cpu"}, run_id="test"
    )
    labelled = type("Data", (), {"manifest": manifest, "store": tmp_path / "store"})
    run = fitted(labelled, tmp_path / "run", protocol="kfold:k=3")
    changed = data.path_of(data.videos[0])
    changed.write_bytes(changed.read_bytes() + b"x")
    _, html = report(run, tmp_path / "r.html", worst=12)
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="Middle frame of ([^"]+)"', html)
    assert len(pictures) == 11
    shown = {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data, name in pictures}
    import av

    for video in data.videos[1:]:
        with av.open(str(data.path_of(video))) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        distance = [float(np.abs(shown[video.id].astype(float) - frame).mean()) for frame in frames]
        assert abs(int(np.argmin(distance)) - len(frames) // 2) <= 1
    assert html.count('class="noimage"') == 1
    assert str(tmp_path) not in html[html.index('id="worst"') : html.index('id="importance"')]


@pytest.mark.parametrize("what", ["nothing", "empty", "changed"])
def test_what_is_no_whole_run_is_refused(what: str, labelled_store: Any, tmp_path: Path) -> None:
    source = tmp_path / what
    expected: type[Exception] = RunError
    if what == "empty":
        source.mkdir()
    elif what == "changed":
        fitted(labelled_store, source)
        (source / runs.METRICS_FILE).write_text("{}")
    else:
        expected = ModelError
    with pytest.raises(expected, match=what):
        report(source, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_the_output_must_be_html(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'.*r\.pdf' must end in \.html"):
        write_report(ReportConfig(source="x", output=tmp_path / "r.pdf"))
