"""check drift: rows like those of training pass, and every planted defect fails the check that is there for it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats
from typer.testing import CliRunner

from vqa_train.cli.main import app
from vqa_train.core.errors import ModelError, StoreError, UsageError
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.core.types import Clip, FeatureSpec, OutputSpec, Sampling
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.scan import scan
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines import runs
from vqa_train.pipelines.export.run import export_run
from vqa_train.pipelines.fit.run import fit, parse_fit_config
from vqa_train.pipelines.fit.training_statistics import bin_shares, effective_rows, training_statistics
from vqa_train.pipelines.gates.drift import DriftInput, DriftLimits, check_drift
from vqa_train.pipelines.gates.drift_columns import RowCollector, compare_columns
from vqa_train.pipelines.gates.drift_scores import psi, psi_noise
from vqa_train.pipelines.gates.result import GateReport
from vqa_train.registry.facts import InputStatistics
from vqa_train.registry.sidecar import read_sidecar, sidecar_path, write_sidecar
from vqa_train.store.store import FeatureStore

ROWS, TRAIN, FROZEN = 240, 200, 7
SPEC = FeatureSpec(
    backbone="made",
    definition=1,
    modality="video",
    outputs=(
        OutputSpec(name="pooled", shape=(8,), names=tuple(f"c{i}" for i in range(8))),
        OutputSpec(name="temporal", shape=(3, 4)),
    ),
    preprocessing={"imported": "by the tests"},
)
Arrays = dict[str, NDArray[np.float32]]


def drawn(seed: int, rows: int) -> Arrays:
    """Rows of the training distribution: positive columns of several scales, one of them frozen."""
    rng = np.random.default_rng(seed)
    pooled = 3 + rng.normal(size=(rows, 8)) * np.asarray([0.1, 0.5, 1, 1, 1, 1, 2, 1])
    pooled[:, 6] = rng.standard_t(3, rows)
    pooled[:, FROZEN] = 0.25
    temporal = rng.normal(2, 1, (rows, 1, 4)) + rng.normal(0, 0.3, (rows, 3, 4))
    return {"pooled": pooled.astype(np.float32), "temporal": temporal.astype(np.float32)}


def keys(rows: int, what: str) -> list[str]:
    return [sha256_bytes(f"{what} {i}".encode()) for i in range(rows)]


def write_store(root: Path, arrays: Arrays, names: list[str] | None = None, shards: int = 1) -> Path:
    """A store of the set, in several shards."""
    rows = len(arrays["pooled"])
    found = FeatureStore(root).create_set(SPEC, license="CC0-1.0")
    names = names or keys(rows, "new")
    for part in np.array_split(np.arange(rows), shards):
        some = {output: values[part] for output, values in arrays.items()}
        found.append_arrays([names[i] for i in part], some, profile={"device": "cpu"}, run_id="made-by-test")
    return root


@dataclass(frozen=True)
class Made:
    """A store of the rows that the model was fitted on and of others like them, a manifest of the first, the model."""

    store: Path
    manifest: Path
    model: Path
    run: Path
    train: Arrays


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("drift")
    arrays = drawn(0, ROWS)
    videos = root / "videos"
    videos.mkdir()
    rng = np.random.default_rng(1)
    lines = ["id,overall,detail"]
    for i in range(TRAIN):
        (videos / f"v{i:03d}.mp4").write_bytes(f"video {i}".encode())
        overall = 2 + 0.3 * float(arrays["pooled"][i, 2] - 3) + rng.normal() * 0.02
        # Another distribution: the scores of the targets are not to be mistaken for each other.
        detail = 4 + 0.2 * float(arrays["pooled"][i, 3] - 3) + rng.normal() * 0.02
        lines.append(f"v{i:03d},{overall},{detail}")
    (videos / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = root / "set.yaml"
    scan(
        ScanConfig(
            root=videos, output=manifest, name="set", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id"}, targets={"overall": "overall", "detail": "detail"}, mos_min=0, mos_max=6,
        )
    )  # fmt: skip
    store = write_store(root / "store", arrays, keys(ROWS, "video"), shards=3)
    config = parse_fit_config(
        {
            "schema": "vqa-train/fit/1",
            "features": {"look": {"set": "made"}, "time": {"set": "made", "output": "temporal"}},
            "train": {"head": {"kind": "temporal", "hidden": [4]}, "epochs": 60, "optimizer": {"lr": 0.02}},
        },
        "the recipe",
    )
    fit(config, features=store, output=root / "run", dataset=str(manifest))
    return Made(store, manifest, export_run(root / "run", root / "m.onnx").path, root / "run", arrays)


def failed(report: GateReport) -> set[str]:
    return {check.name for check in report.checks if check.verdict == "fail"}


def drift(made: Made, limits: DriftLimits | None = None, model: Path | None = None, **what: Any) -> GateReport:
    return check_drift(str(model or made.model), DriftInput(**what), limits)


def test_the_sidecar_has_numpys_statistics_of_the_rows_that_took_part(made: Made) -> None:
    import polars as pl

    table = pl.read_parquet(made.run / runs.PREDICTIONS_FILE)
    place = table["id"].str.slice(1).cast(pl.Int64).to_numpy()
    part = place[table["split"].is_in(["train", "val"]).to_numpy()]
    assert 100 < len(part) < TRAIN
    found = read_sidecar(sidecar_path(made.model)).training_statistics
    assert found is not None
    assert (found.rows, found.groups) == (len(part), len(part))
    for name, output in (("look", "pooled"), ("time", "temporal")):
        values = made.train[output][part].reshape(-1, made.train[output].shape[-1]).astype(np.float64)
        kept, std = found.inputs[name], values.std(axis=0)
        assert (kept.rows, kept.missing) == (len(part), 0)
        assert np.abs(np.asarray(kept.mean) - values.mean(axis=0)).max() <= 1e-4 * std.max()
        assert np.asarray(kept.std) == pytest.approx(std, rel=1e-4, abs=1e-9)
        assert (np.asarray(kept.low) <= values.min(axis=0)).all()
        assert (np.asarray(kept.high) >= values.max(axis=0)).all()
        assert np.asarray(kept.low) == pytest.approx(values.min(axis=0), abs=2e-4 * std.max())
    assert found.inputs["look"].std[FROZEN] == 0
    predicted = table.filter(pl.col("split").is_in(["train", "val"]))["predicted_detail"].to_numpy().astype(np.float64)
    kept = found.scores["detail"]
    assert kept.deciles == pytest.approx(np.quantile(predicted, np.arange(1, 10) / 10), abs=1e-6)
    assert kept.counts == np.histogram(predicted, [-np.inf, *np.nextafter(kept.deciles, np.inf), np.inf])[0].tolist()
    assert (kept.mean, kept.std) == pytest.approx((predicted.mean(), predicted.std()), rel=1e-6)


def test_statistics_of_wide_features_are_small_and_the_same_from_a_file(tmp_path: Path, made: Made) -> None:
    rng = np.random.default_rng(5)
    wide = (rng.normal(size=(300, 2432)) * rng.lognormal(0, 3, 2432) + rng.normal(size=2432)).astype(np.float32)
    wide[::7, 3] = np.nan
    store = FeatureStore(tmp_path / "s")
    outputs = (OutputSpec(name="pooled", shape=(2432,)),)
    spec = FeatureSpec(backbone="wide", definition=1, modality="video", outputs=outputs, preprocessing={"imported": 1})
    found = store.create_set(spec, license="x")
    found.append_arrays(keys(300, "w"), {"pooled": wide}, profile={}, run_id="r")
    scores, rows = rng.normal(size=(300, 1)).astype(np.float32), np.arange(0, 300, 2)
    groups = [str(i // 5) for i in range(300)]
    kept = training_statistics({"v": wide}, scores, ["t"], groups, rows)
    mapped = training_statistics({"v": found.mapped("pooled", keys(300, "w"))}, scores, ["t"], groups, rows)
    assert kept == mapped
    assert kept.groups == 60
    assert kept.inputs["v"].missing == pytest.approx(np.isnan(wide[rows]).mean(), abs=1e-8)
    assert kept.inputs["v"].mean[3] == pytest.approx(np.nanmean(wide[rows, 3].astype(np.float64)), rel=1e-3)
    sidecar = read_sidecar(sidecar_path(made.model))
    sizes = []
    for statistics in (None, kept):
        write_sidecar(tmp_path / "m.json", sidecar.model_copy(update={"training_statistics": statistics}))
        sizes.append((tmp_path / "m.json").stat().st_size)
    assert sizes[1] - sizes[0] < 150_000
    assert read_sidecar(tmp_path / "m.json").training_statistics == kept


def test_whole_sets_are_judged_without_reading_a_row(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.store, tmp_path / "s")
    for shard in (tmp_path / "s").rglob("*.parquet"):
        shard.write_bytes(b"")
    report = drift(made, features=tmp_path / "s", model=without_time(made, tmp_path))
    assert report.verdict == "pass"
    look = report.details["inputs"]["look"]
    assert (look["source"], look["rows"]) == ("sums", ROWS)
    worst = look["worst"][0]
    column = made.train["pooled"][:, int(worst["column"][1:])].astype(np.float64)
    assert (worst["mean"], worst["std"]) == pytest.approx((column.mean(), column.std()), rel=1e-6)


def without_time(made: Made, folder: Path) -> Path:
    """The model without the input over time, as far as its sidecar tells."""
    sidecar = read_sidecar(sidecar_path(made.model))
    statistics = sidecar.training_statistics
    assert statistics is not None
    statistics = statistics.model_copy(update={"inputs": {"look": statistics.inputs["look"]}})
    path = folder / "m.onnx"
    shutil.copy(made.model, path)
    changes = {"inputs": sidecar.inputs[:1], "training_statistics": statistics}
    write_sidecar(sidecar_path(path), sidecar.model_copy(update=changes))
    return path


def test_rows_over_time_and_rows_that_stand_twice_are_read(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.store, tmp_path / "s")
    report = drift(made, features=tmp_path / "s")
    assert [report.details["inputs"][name]["source"] for name in ("look", "time")] == ["sums", "rows"]
    found = FeatureStore(tmp_path / "s").find("made")
    found.append_arrays(
        keys(60, "video"), {o: v[:60] + np.float32(1) for o, v in made.train.items()}, profile={}, run_id="again"
    )
    look = drift(made, features=tmp_path / "s").details["inputs"]["look"]
    assert (look["source"], look["rows"]) == ("rows", ROWS)


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_the_training_distribution_pass(made: Made, tmp_path: Path, seed: int) -> None:
    store = write_store(tmp_path / "s", drawn(100 + seed, 60))
    report = drift(made, features=store, rows=0)
    assert report.verdict == "pass", [check for check in report.checks if check.verdict != "pass"]
    assert {"scores.overall.psi", "features.look.outside", "features.time.shift"} <= {c.name for c in report.checks}


def test_rows_of_a_dataset_pass_and_those_without_features_count_as_failed(made: Made, tmp_path: Path) -> None:
    assert drift(made, features=made.store, datasets=[str(made.manifest)]).verdict == "pass"
    half = write_store(tmp_path / "s", {o: v[:100] for o, v in made.train.items()}, keys(100, "video"))
    report = drift(made, features=half, datasets=[str(made.manifest)])
    assert failed(report) == {"scores.failed"}
    assert next(c for c in report.checks if c.name == "scores.failed").value == pytest.approx(0.5)


@pytest.mark.parametrize("rows", [None, 0])
def test_features_of_a_wrong_normalisation_fail(made: Made, tmp_path: Path, rows: int | None) -> None:
    arrays = {output: values * np.float32(255) for output, values in drawn(9, 80).items()}
    found = failed(drift(made, features=write_store(tmp_path / "s", arrays), rows=rows))
    for name in ("look", "time"):
        assert {f"features.{name}.{what}" for what in ("shift", "worst_shift", "rms_shift", "variance")} <= found
    assert "features.look.frozen" in found
    if rows == 0:
        assert {"features.look.outside", "features.look.beyond"} <= found


@pytest.mark.parametrize(
    ("column", "values", "check"),
    [
        (FROZEN, 0.2500002, None),
        (FROZEN, 0.26, "features.look.frozen"),
        (6, np.nan, "features.look.worst_shift"),
        (2, 9.0, "features.look.worst_shift"),
    ],
)
def test_one_column_that_breaks_is_named(
    made: Made, tmp_path: Path, column: int, values: float, check: str | None
) -> None:
    arrays = drawn(10, 80)
    arrays["pooled"][:, column] = values
    report = drift(made, features=write_store(tmp_path / "s", arrays))
    if check is None:
        assert report.verdict == "pass"
        return
    assert check in failed(report)
    assert f"c{column}" in next(c for c in report.checks if c.name == check).message


def test_missing_values_fail(made: Made, tmp_path: Path) -> None:
    arrays = drawn(11, 100)
    arrays["pooled"][np.random.default_rng(0).random((100, 8)) < 0.3] = np.nan
    assert failed(drift(made, features=write_store(tmp_path / "s", arrays))) == {"features.look.missing"}


def test_a_tag_names_an_earlier_state(made: Made, tmp_path: Path) -> None:
    from vqa_train.store.tags import tag

    store = write_store(tmp_path / "s", drawn(12, 60))
    found = FeatureStore(store).find("made")
    tag(found.folder, "before", found.snapshot()[0])
    bad = {output: values * np.float32(255) for output, values in drawn(13, 60).items()}
    found.append_arrays(keys(60, "bad"), bad, profile={}, run_id="bad")
    assert drift(made, features=store, tag="before").verdict == "pass"
    assert drift(made, features=store).verdict == "fail"
    with pytest.raises(StoreError, match=r"made@[0-9a-f]+ has no tag 'befor'.*before"):
        drift(made, features=store, tag="befor")


def test_too_few_rows_and_models_without_statistics_are_not_run(made: Made, tmp_path: Path) -> None:
    report = drift(made, features=write_store(tmp_path / "s", drawn(14, 20)), rows=0)
    assert report.verdict == "not_run"
    assert "20 independent rows" in report.checks[1].message
    assert "count as 20 independent ones" in next(c for c in report.checks if c.name == "scores.overall").message
    shutil.copy(made.model, tmp_path / "old.onnx")
    sidecar = read_sidecar(sidecar_path(made.model))
    write_sidecar(tmp_path / "old.json", sidecar.model_copy(update={"training_statistics": None}))
    report = drift(made, features=made.store, model=tmp_path / "old.onnx")
    assert report.verdict == "not_run"
    assert "fit and export it again" in report.checks[0].message


def test_a_run_of_before_statistics_exports_without(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.run, tmp_path / "run")
    (tmp_path / "run" / runs.STATISTICS_FILE).unlink()
    record = json.loads((tmp_path / "run" / runs.RUN_FILE).read_text(encoding="utf-8"))
    del record["files"][runs.STATISTICS_FILE]
    (tmp_path / "run" / runs.RUN_FILE).write_text(json.dumps(record), encoding="utf-8")
    export_run(tmp_path / "run", tmp_path / "m.onnx")
    assert read_sidecar(tmp_path / "m.json").training_statistics is None
    assert "training_statistics" not in (tmp_path / "m.json").read_text(encoding="utf-8")


def test_swapped_outputs_are_seen_in_the_scores(made: Made, tmp_path: Path) -> None:
    graph = onnx.load(made.model)
    for node in graph.graph.node:
        node.output[:] = ["unswapped" if name == "scores" else name for name in node.output]
    order = onnx.helper.make_tensor("order", onnx.TensorProto.INT64, [2], [1, 0])
    graph.graph.initializer.append(order)
    graph.graph.node.append(onnx.helper.make_node("Gather", ["unswapped", "order"], ["scores"], axis=1))
    path = tmp_path / "m.onnx"
    onnx.save(graph, path)
    sidecar = read_sidecar(sidecar_path(made.model))
    changed = sidecar.onnx.model_copy(update={"sha256": sha256_file(path), "bytes": path.stat().st_size})
    write_sidecar(sidecar_path(path), sidecar.model_copy(update={"onnx": changed}))
    found = failed(drift(made, features=write_store(tmp_path / "s", drawn(15, 80)), rows=0, model=path))
    assert {"scores.overall.psi", "scores.detail.psi", "scores.overall.shift"} <= found
    assert not any(name.startswith("features.") for name in found)


def live(made: Made, path: Path, scores: NDArray[Any], sha256: str | None = None, failures: int = 0) -> Path:
    """What vqa-score writes, as far as the gate reads it."""
    sidecar = read_sidecar(sidecar_path(made.model))
    sha256 = sidecar.onnx.sha256 if sha256 is None else sha256
    rows = [dict(zip(sidecar.targets, map(float, row), strict=True)) for row in scores]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["video", *sidecar.targets, "model_sha256", "reason"])
            writer.writeheader()
            for i, row in enumerate(rows):
                writer.writerow({"video": f"{i}.mp4", "model_sha256": sha256, "reason": "", **row})
            for i in range(failures):
                writer.writerow({"video": f"x{i}.mp4", "model_sha256": sha256, "reason": "unreadable"})
        return path
    document = {
        "schema": "vqa-train/scores/1",
        "model": {"name": "m", "onnx_sha256": sha256},
        "results": [{"video": f"{i}.mp4", "scores": row} for i, row in enumerate(rows)],
        "failures": [{"video": f"x{i}.mp4", "reason": "unreadable", "message": ""} for i in range(failures)],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def scores_of(made: Made, arrays: Arrays) -> NDArray[np.float32]:
    return OnnxModel(made.model).run({"look": arrays["pooled"], "time": arrays["temporal"]})["scores"]


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_live_scores(made: Made, tmp_path: Path, suffix: str) -> None:
    path, good = tmp_path / f"scores.{suffix}", scores_of(made, drawn(16, 100))
    report = drift(made, scores=live(made, path, good, failures=1))
    assert report.verdict == "pass", report.checks
    assert report.details["live_scores"]["overall"]["rows"] == 100
    assert failed(drift(made, scores=live(made, path, good, sha256="b" * 64))) == {"scores.model"}
    path.write_text(path.read_text(encoding="utf-8").replace("detail", "other"), encoding="utf-8")
    assert failed(drift(made, scores=path)) == {"scores.model"}
    assert failed(drift(made, scores=live(made, path, good, failures=40))) == {"scores.failed"}
    assert "scores.overall.psi" in failed(drift(made, scores=live(made, path, good[:, ::-1])))
    constant = np.full_like(good, good.mean(axis=0))
    assert failed(drift(made, scores=live(made, path, constant))) == {"scores.overall.psi", "scores.detail.psi"}
    assert "scores.detail.outside" in failed(drift(made, scores=live(made, path, good + 3)))


def test_live_scores_as_json_lines(made: Made, tmp_path: Path) -> None:
    whole = live(made, tmp_path / "a.json", scores_of(made, drawn(17, 60)))
    document = json.loads(whole.read_text(encoding="utf-8"))
    sha256 = document["model"]["onnx_sha256"]
    lines = [{**result, "model_sha256": sha256} for result in document["results"]]
    lines.append({"video": "x.mp4", "reason": "unreadable", "message": "", "model_sha256": sha256})
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    report = drift(made, scores=path)
    assert report.verdict == "pass", report.checks
    assert next(c for c in report.checks if c.name == "scores.failed").value == pytest.approx(1 / 61)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("video,overall,detail,model_sha256\n", "hold no video"),
        ('{"model": {"onnx_sha256": "SHA"}, "results": []}', "hold no video"),
        ('{"model": {"onnx_sha256": "SHA"}, "results": [{"video": "a"}]}', "without target 'overall'"),
        ("video,overall,model_sha256\na,1,SHA\n", "no column 'detail'"),
        ("video,overall,detail,model_sha256\na,1,x,SHA\n", "'x' where a score should be"),
        ("overall,detail\n1,1\n", "no column 'video'"),
        ("{", "neither JSON nor JSON lines"),
        ("[1, 2]", "something else than objects"),
    ],
)
def test_a_file_that_holds_no_scores_is_refused(made: Made, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "scores.txt"
    path.write_text(text.replace("SHA", read_sidecar(sidecar_path(made.model)).onnx.sha256), encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        drift(made, scores=path)


def test_what_contradicts_itself_is_refused(made: Made, tmp_path: Path) -> None:
    for what, said in (
        ({}, "nothing to look at"),
        ({"scores": tmp_path, "rows": 3}, "need --features"),
        ({"features": made.store, "datasets": ["set"], "tag": "t"}, "of whole feature sets"),
    ):
        with pytest.raises(UsageError, match=said):
            drift(made, **what)
    other = FeatureSpec(**{**{n: getattr(SPEC, n) for n in SPEC.__dataclass_fields__}, "definition": 2})
    FeatureStore(tmp_path / "s").create_set(other, license="x")
    with pytest.raises(ModelError, match=f"takes made@{SPEC.fingerprint[:12]}, the store has made@"):
        drift(made, features=tmp_path / "s")


def test_psi_is_its_formula_and_its_noise_is_a_quantile_of_chi_square() -> None:
    counts, training = np.asarray([10, 0, 30]), np.asarray([20, 20, 20])
    p, q = [10.5 / 41.5, 0.5 / 41.5, 30.5 / 41.5], [20.5 / 61.5] * 3
    by_hand = sum((a - b) * np.log(a / b) for a, b in zip(p, q, strict=True))
    assert psi(counts, training) == pytest.approx(by_hand)
    assert psi(training, training) == 0
    exact = stats.chi2.ppf(stats.norm.cdf(3), 9) * (1 / 50 + 1 / 200)
    assert psi_noise(50, 200, 10, 3) == pytest.approx(exact, rel=0.01)


def test_a_bin_takes_its_upper_edge_in() -> None:
    assert bin_shares(np.asarray([1.0, 2, 2, 3, np.nan]), [2.0] * 9).tolist() == [3, *[0] * 8, 1]


def test_effective_rows_are_those_of_the_variance_of_the_mean() -> None:
    """Against the variance of means of rows that are drawn again and again."""
    rng = np.random.default_rng(0)
    groups = [str(i // 10) for i in range(400)]

    def draw() -> NDArray[np.float64]:
        return np.repeat(rng.normal(size=40), 10) + 0.5 * rng.normal(size=400)

    means = np.var([draw().mean() for _ in range(2000)])
    assert means == pytest.approx(1 / 40 + 0.25 / 400, rel=0.1)
    found = np.mean([effective_rows(draw(), groups) for _ in range(200)])
    assert found == pytest.approx(1.25 / means, rel=0.15)
    values = rng.normal(size=400)
    # A group that spans all there is tells as much as its rows; rows of one group tell nothing of others.
    assert effective_rows(np.tile(np.arange(10.0), 40), groups) == 400
    assert effective_rows(values, [str(i) for i in range(400)]) == 400
    assert effective_rows(values, ["a"] * 400) == 1
    assert effective_rows(np.ones(400), groups) == 40


def test_rows_of_one_content_count_once() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 4)).astype(np.float32)
    known = training_statistics({"v": values}, values[:, :1], ["t"], [str(i) for i in range(300)], np.arange(300))
    collector = RowCollector(known.inputs["v"], 6.0)
    collector.add(np.repeat(values[:40] + np.float32(0.9), 10, axis=0))
    for groups, verdict in ((40, "fail"), (8, "not_run")):
        checks, _ = compare_columns(
            "v", list("abcd"), collector.observed(groups), known.inputs["v"], 300, DriftLimits()
        )
        assert {check.verdict for check in checks} >= {verdict}


@pytest.fixture(scope="module")
def nss_rows() -> dict[str, NDArray[np.float32]]:
    """nss features of clips, of others like them, and of those others darker and blurred."""
    from vqa_train.backbones.nss import NssBackbone

    backbone = NssBackbone()
    sampling = backbone.spec.sampling
    assert sampling is not None

    def features(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = len(frames)
        clip = Clip(
            frames=frames, times=np.arange(count) / 25, indices=np.arange(count), fps=25.0, num_frames=count,
            duration_s=count / 25, width=frames.shape[2], height=frames.shape[1], codec="made", decoder="made",
        )  # fmt: skip
        (row,) = backbone.extract([clip])
        return row["pooled"]

    found: dict[str, list[NDArray[np.float32]]] = {"train": [], "alike": [], "dark": [], "blurred": []}
    for seed in range(46):
        rng = np.random.default_rng(seed)
        texture = ndimage.gaussian_filter(rng.normal(size=(64, 160, 3)), (rng.uniform(0.5, 2), rng.uniform(0.5, 2), 0))
        texture = rng.uniform(90, 160) + rng.uniform(25, 45) * texture / texture.std()
        clip = np.stack([texture[:, t : t + 96] for t in range(sampling.num_frames)])
        clip = np.clip(clip + rng.normal(0, 2, clip.shape), 0, 255)
        if seed < 30:
            found["train"].append(features(clip.astype(np.uint8)))
            continue
        found["alike"].append(features(clip.astype(np.uint8)))
        found["dark"].append(features((clip * 0.35).astype(np.uint8)))
        found["blurred"].append(features(ndimage.gaussian_filter(clip, (0, 2, 2, 0)).astype(np.uint8)))
    return {name: np.stack(rows) for name, rows in found.items()}


@pytest.mark.parametrize("corpus", ["alike", "dark", "blurred"])
def test_a_darker_and_a_blurred_corpus_are_told_from_one_alike(
    nss_rows: dict[str, NDArray[np.float32]], corpus: str
) -> None:
    from vqa_train.backbones.nss import NssBackbone

    names = NssBackbone().spec.output("pooled").names
    assert names is not None
    rows, train = nss_rows[corpus], nss_rows["train"]
    known = training_statistics({"v": train}, train[:, :1], ["t"], [str(i) for i in range(30)], np.arange(30))
    collector = RowCollector(known.inputs["v"], 6.0)
    collector.add(rows)
    limits = DriftLimits(min_rows=len(rows))
    checks, _ = compare_columns("v", names, collector.observed(len(rows)), known.inputs["v"], 30, limits)
    bad = {check.name for check in checks if check.verdict == "fail"}
    if corpus == "alike":
        assert bad == set()
    else:
        assert {"features.v.shift", "features.v.worst_shift"} <= bad


def test_a_constant_that_few_rows_leave_is_no_drift_and_one_that_many_leave_is(made: Made, tmp_path: Path) -> None:
    """Symmetric noise around the constant, of which sums tell nothing, among them."""
    for count, verdict in ((1, "pass"), (40, "fail")):
        arrays = drawn(19, 80)
        arrays["pooled"][:count, FROZEN] += np.where(np.arange(count) % 2, 1, -1).astype(np.float32)
        report = drift(made, features=write_store(tmp_path / str(count), arrays))
        assert report.verdict == verdict, report.checks
        assert failed(report) <= {"features.look.frozen"}


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["check", "drift", *map(str, arguments)], catch_exceptions=False)


def test_the_command_takes_limits_from_flags_and_from_a_file(made: Made, tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", drawn(18, 80))
    result = invoke(made.model, "--features", store, "--rows", 0, "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "drift: PASS"
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert (report["schema"], report["gate"], report["verdict"]) == ("vqa-train/gate/1", "drift", "pass")
    gates = tmp_path / "gates.yaml"
    gates.write_text("schema: vqa-train/gates/1\ndrift: {rms_shift: 0.000001, noise_sd: 0}\n", encoding="utf-8")
    assert invoke(made.model, "--features", store, "--gates", gates).exit_code == 3
    assert invoke(made.model, "--features", store, "--gates", gates, "--rms-shift", 1).exit_code == 0
    assert invoke(made.model, "--features", store, "--min-rows", 100).exit_code == 3


def test_every_limit_is_a_flag() -> None:
    import typer

    command = typer.main.get_command(app).commands["check"].commands["drift"]
    assert set(DriftLimits.model_fields) <= {parameter.name for parameter in command.params}


def test_views_are_averaged_as_in_training(tmp_path: Path) -> None:
    """The variance of single views is not that of their mean, so sums do not answer for a set with views."""
    from vqa_train.pipelines.gates.drift_rows import from_sums, input_rows, whole_set
    from vqa_train.registry.sidecar import ModelInput
    from vqa_train.store.rows import FeatureRow

    spec = FeatureSpec(
        backbone="views", definition=1, modality="video", sampling=Sampling(mode="uniform", n=2, views=2),
        outputs=(OutputSpec(name="pooled", shape=(2,)),),
    )  # fmt: skip
    found = FeatureStore(tmp_path / "s").create_set(spec, license="x")
    facts = {"num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "a", "decoder": "b"}
    values = np.random.default_rng(0).normal(size=(5, 2, 2)).astype(np.float32)
    names = keys(5, "v")
    found.append(
        [
            FeatureRow(key=names[i], view=v, outputs={"pooled": values[i, v]}, facts=facts)
            for i in range(5) for v in (0, 1)
        ],
        profile={}, run_id="r",
    )  # fmt: skip
    item = ModelInput(
        name="v", modality="video", backbone="views", fingerprint=spec.fingerprint, output="pooled", dim=2,
        spec=spec.to_json(), license="x",
    )  # fmt: skip
    known = InputStatistics(rows=5, mean=[0, 0], std=[1, 1], low=[0, 0], high=[1, 1])
    assert from_sums(found, item, whole_set(found, None), known, 1.0) is None
    (block,) = input_rows(found, "pooled", names)
    assert block == pytest.approx(values.astype(np.float64).mean(axis=1), abs=1e-6)
