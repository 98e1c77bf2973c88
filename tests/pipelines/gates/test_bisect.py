"""bisect: the first bad model is found in few evaluations, and nothing that was not looked at is called good."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.gates import bisect as module
from vqa_train.pipelines.gates.bisect import BisectLimits, Evaluated, bisect, look_at_all, search
from vqa_train.pipelines.gates.compare_models import MeasuredOn
from vqa_train.pipelines.gates.result import GateReport
from vqa_train.registry.sidecar import read_sidecar, sidecar_path, write_sidecar


def variant(source: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """The graph with its weights changed, and a sidecar that vouches for it."""
    graph = onnx.load(source)
    for weight in graph.graph.initializer:
        if weight.name.endswith(".weight"):
            # (heads, features, targets)
            values = numpy_helper.to_array(weight)
            weight.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), weight.name))
    path = source.with_name(f"{name}.onnx")
    onnx.save(graph, path)
    sidecar = read_sidecar(sidecar_path(source))
    head = sidecar.onnx.model_copy(
        update={"file": path.name, "sha256": sha256_file(path), "bytes": path.stat().st_size}
    )
    write_sidecar(sidecar_path(path), sidecar.model_copy(update={"onnx": head}))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        release = importlib.import_module("release_set").make_set(tmp_path_factory.mktemp("bisect") / "r")
    release.export(release.fit("m"))
    return release


@pytest.fixture(scope="module")
def eight(made: Any) -> list[str]:
    """Eight models; the weights of the sixth, and of those after it, stand beside the wrong features."""
    source = made.root / "exported" / "m.onnx"
    good = [variant(source, f"v{n}", lambda w, n=n: w * (1 + n / 1000)) for n in range(1, 6)]
    bad = [variant(source, f"v{n}", lambda w, n=n: np.roll(w * (1 + n / 1000), 1, axis=1)) for n in range(6, 9)]
    return [str(path) for path in (*good, *bad)]


@pytest.fixture
def run(made: Any) -> Callable[..., GateReport]:
    def run(models: list[str], *, every: bool = False, on: Any = None, **limits: Any) -> GateReport:
        chosen = on or MeasuredOn(features=made.store, datasets=[str(made.manifest)])
        return bisect(models, BisectLimits(**(limits or {"min": 0.8})), chosen, registry=made.registry, every=every)

    return run


def labels(report: GateReport) -> list[str]:
    return [Path(one["model"]).stem for one in report.details["evaluations"]]


def test_the_sixth_of_eight_is_found_in_five_evaluations(run: Callable[..., GateReport], eight: list[str]) -> None:
    report = run(eight)
    assert Path(report.details["first_bad"]).stem == "v6"
    assert report.verdict == "fail"
    assert report.model_sha256 == sha256_file(Path(eight[5]))
    # Both ends, then 3 of the 6 between them.
    assert labels(report) == ["v1", "v8", "v4", "v6", "v5"]
    assert report.details["monotone"] is None


def test_all_are_looked_at_with_all(run: Callable[..., GateReport], eight: list[str]) -> None:
    report = run(eight, every=True)
    assert labels(report) == [f"v{n}" for n in range(1, 9)]
    assert (Path(report.details["first_bad"]).stem, report.details["monotone"]) == ("v6", True)
    mixed = run([eight[0], eight[6], eight[1], eight[7]], every=True)
    assert mixed.details["monotone"] is False
    assert "not monotone" in mixed.details["conclusion"]


def test_ends_are_looked_at_first(run: Callable[..., GateReport], eight: list[str]) -> None:
    good = run(eight[:5])
    assert (good.verdict, good.details["first_bad"], labels(good)) == ("pass", None, ["v1", "v5"])
    assert "as far as the two ends show" in good.details["conclusion"]
    bad = run(eight[5:])
    assert (bad.verdict, Path(bad.details["first_bad"]).stem, labels(bad)) == ("fail", "v6", ["v6"])


def test_errors_have_a_maximum(run: Callable[..., GateReport], eight: list[str]) -> None:
    assert Path(run(eight, metric="rmse", max=0.8).details["first_bad"]).stem == "v6"
    with pytest.raises(UsageError, match="one limit for rmse, its maximum"):
        run(eight, metric="rmse", min=0.8)
    with pytest.raises(UsageError, match="one limit for srocc, its minimum"):
        run(eight, metric="srocc")


def test_a_changed_model_is_skipped_and_no_pass(made: Any, run: Callable[..., GateReport], eight: list[str]) -> None:
    broken = Path(eight[0]).with_name("broken.onnx")
    data = bytearray(Path(eight[4]).read_bytes())
    data[-3] ^= 1
    broken.write_bytes(bytes(data))
    sidecar_path(broken).write_bytes(sidecar_path(Path(eight[4])).read_bytes())
    # Where the fifth stands, which is good: the first bad one may be it, or the sixth.
    report = run([*eight[:4], str(broken), *eight[5:]])
    assert [Path(name).stem for name in report.details["candidates"]] == ["broken", "v6"]
    assert report.details["first_bad"] is None
    skipped = next(found for found in report.checks if "broken" in found.name)
    assert (skipped.verdict, "sha256" in skipped.message) == ("not_run", True)
    # All others are good, and still it is no pass.
    assert run([*eight[:2], str(broken)]).verdict == "not_run"
    again = broken.with_name("again.onnx")
    again.write_bytes(broken.read_bytes())
    sidecar_path(again).write_bytes(sidecar_path(broken).read_bytes())
    with pytest.raises(UsageError, match="no model of the series could be evaluated"):
        run([str(broken), str(again)])


def test_a_collapsed_model_is_bad(made: Any, run: Callable[..., GateReport], eight: list[str]) -> None:
    flat = variant(Path(eight[0]), "flat", lambda w: w * 0)
    report = run([eight[0], str(flat)])
    assert Path(report.details["first_bad"]).stem == "flat"
    assert np.isnan(report.checks[-1].value)


def test_a_name_stands_for_its_versions_in_order(made: Any, run: Callable[..., GateReport], eight: list[str]) -> None:
    for number, name in enumerate((eight[0], eight[6], eight[7])):
        # Registering replays the golden rows: they are of the changed graph.
        path = Path(name)
        sidecar = read_sidecar(sidecar_path(path))
        rows = {key: np.asarray(found, np.float32) for key, found in sidecar.golden_rows.inputs.items()}
        scores = module_scores(path, rows)
        golden = sidecar.golden_rows.model_copy(update={"scores": scores})
        write_sidecar(sidecar_path(path), sidecar.model_copy(update={"golden_rows": golden}))
        assert made.register(path, name="series") == f"series:{number + 1}"
    report = run(["series"])
    assert report.details["series"] == ["series:1", "series:2", "series:3"]
    assert report.details["first_bad"] == "series:2"


def module_scores(path: Path, rows: dict[str, np.ndarray]) -> list[list[float]]:
    from vqa_train.onnx.runtime import OnnxModel

    return OnnxModel(path).run(rows)["scores"].astype(float).tolist()


def test_wrong_arguments(made: Any, run: Callable[..., GateReport], eight: list[str]) -> None:
    with pytest.raises(UsageError, match="nothing to search"):
        run(eight[:1])
    with pytest.raises(UsageError, match="twice"):
        run([eight[0], eight[0]])
    with pytest.raises(ModelError, match="does not exist"):
        run([eight[0], "absent.onnx"])
    with pytest.raises(ModelError, match="no model 'absent'"):
        run(["absent"])
    with pytest.raises(UsageError, match="no target 'overal'"):
        run(eight, min=0.5, targets=["overal"])


def test_the_command_says_each_evaluation(made: Any, eight: list[str]) -> None:
    from vqa_train.cli.main import app

    arguments = ["bisect", *eight, "--features", str(made.store), "--dataset", str(made.manifest), "--min"]
    failed = CliRunner().invoke(app, [*arguments, "0.8"])
    assert failed.exit_code == 3
    assert "v6.onnx; " in failed.output
    assert failed.output.count(": good (") == 3
    assert CliRunner().invoke(app, [*arguments, "-1"]).exit_code == 0


def states(text: str) -> tuple[list[str], Callable[[int], Evaluated], list[int]]:
    """A series whose models are g(ood), b(ad) or s(kipped)."""
    words = {"g": "good", "b": "bad", "s": "skipped"}
    seen: list[int] = []

    def look(number: int) -> Evaluated:
        if number not in seen:
            seen.append(number)
        return Evaluated(number, str(number), words[text[number]], ())  # type: ignore[arg-type]

    return [str(number) for number in range(len(text))], look, seen


def test_every_series_that_turns_bad_once_is_searched_right() -> None:
    """Whatever is skipped, the first bad one is among the candidates, and no candidate is known to be good."""
    for length, masked in itertools.product(range(2, 8), (False, True)):
        for turn in range(length + 1):
            truth = "g" * turn + "b" * (length - turn)
            masks = itertools.product((False, True), repeat=length) if masked else [(False,) * length]
            for mask in masks:
                text = "".join("s" if hidden else state for hidden, state in zip(mask, truth, strict=True))
                series, look, seen = states(text)
                found = search(series, look)
                exact = look_at_all(*states(text)[:2])
                if "b" not in text:
                    assert not found.candidates
                    continue
                assert turn in found.candidates, text
                assert found.candidates == exact.candidates, text
                assert "g" not in {text[number] for number in found.candidates}
                if not masked:
                    assert len(seen) <= 2 + int(np.ceil(np.log2(max(length - 1, 1))))


def test_each_model_is_evaluated_once(
    run: Callable[..., GateReport], eight: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = module.open_model

    def counted(name: str, registry: Path) -> Any:
        seen.append(name)
        return real(name, registry)

    monkeypatch.setattr(module, "open_model", counted)
    run(eight)
    assert len(seen) == len(set(seen)) == 5
