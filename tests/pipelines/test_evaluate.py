"""eval: the numbers are SciPy's, every row is accounted for, and a model is never fed features of another meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
import yaml
from scipy import stats

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import FeatureSpec
from vqa_train.pipelines.evaluate.model import evaluate_model
from vqa_train.pipelines.evaluate.seen_rows import seen_rows_warning
from vqa_train.pipelines.export.run import export_run
from vqa_train.pipelines.fit import run as pipeline
from vqa_train.registry.sidecar import read_sidecar
from vqa_train.store.store import FeatureStore


@pytest.fixture
def model(labelled_store: Any, tmp_path: Path) -> Path:
    config = pipeline.load_fit_config(labelled_store.recipe)
    pipeline.fit(config, features=labelled_store.store, output=tmp_path / "run", dataset=str(labelled_store.manifest))
    return export_run(tmp_path / "run", tmp_path / "m.onnx").path


def evaluate(model: Path, data: Any, **options: Any) -> Any:
    return evaluate_model(str(model), features=data.store, datasets=[str(data.manifest)], **options)


def test_metrics_are_scipys_on_the_written_predictions(model: Path, labelled_store: Any, tmp_path: Path) -> None:
    result = evaluate(model, labelled_store, predictions=tmp_path / "p.parquet", resamples=50)
    table = pl.read_parquet(tmp_path / "p.parquet")
    assert set(table["split"]) == {"test"}
    for target in ("overall", "detail"):
        rows = table.select(target, f"predicted_{target}").drop_nulls()
        label, predicted = rows[target].to_numpy().astype(float), rows[f"predicted_{target}"].to_numpy().astype(float)
        metrics = result.report.result(target).metrics
        assert result.report.result(target).n == len(rows)
        assert metrics["srocc"].value == pytest.approx(stats.spearmanr(predicted, label).statistic, abs=1e-9)
        assert metrics["plcc"].value == pytest.approx(stats.pearsonr(predicted, label).statistic, abs=1e-9)
        assert metrics["krocc"].value == pytest.approx(stats.kendalltau(predicted, label).statistic, abs=1e-9)
        assert metrics["rmse"].value == pytest.approx(np.sqrt(np.mean((predicted - label) ** 2)), abs=1e-6)


def test_row_without_features_lowers_coverage(model: Path, labelled_store: Any, tmp_path: Path) -> None:
    result = evaluate(model, labelled_store, split="all", predictions=tmp_path / "p.csv", resamples=0)
    entry = result.report.result("overall")
    assert (entry.rows, entry.n, entry.missing_predictions) == (120, 119, 1)
    assert entry.coverage == pytest.approx(119 / 120)
    table = pl.read_csv(tmp_path / "p.csv")
    assert table.filter(pl.col("predicted_overall").is_null())["id"].to_list() == [labelled_store.left_out]


def test_store_with_other_features_of_the_same_name_is_refused(
    model: Path, labelled_store: Any, tmp_path: Path
) -> None:
    feature_set = FeatureStore.open(labelled_store.store).find("fake")
    fields = {name: getattr(feature_set.spec, name) for name in feature_set.spec.__dataclass_fields__}
    FeatureStore(tmp_path / "other").create_set(FeatureSpec(**{**fields, "definition": 2}), license="CC-BY-4.0")
    with pytest.raises(ModelError, match=f"takes fake@{feature_set.fingerprint[:12]}, the store has fake@"):
        evaluate_model(str(model), features=tmp_path / "other", datasets=[str(labelled_store.manifest)])


def test_changed_model_is_refused(model: Path, labelled_store: Any) -> None:
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(ModelError, match="sha256"):
        evaluate(model, labelled_store)


def test_unknown_split_is_a_usage_error(model: Path, labelled_store: Any) -> None:
    with pytest.raises(UsageError, match="unknown split 'tset'"):
        evaluate(model, labelled_store, split="tset")


def change_manifest(data: Any, **changes: Any) -> None:
    """The dataset with other labels or settings: a column of standard deviations, another direction."""
    manifest = yaml.safe_load(data.manifest.read_text(encoding="utf-8"))
    table = data.manifest.parent / "set" / "labels.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    spread = [f"{line},{'spread' if i == 0 else 0.3 + i % 5 / 10}" for i, line in enumerate(lines)]
    table.write_text("\n".join(spread) + "\n", encoding="utf-8")
    manifest["labels"][0] |= {"sha256": sha256_file(table), "bytes": table.stat().st_size}
    manifest["columns"]["std"] = {"overall": "spread"}
    manifest["mos"] |= changes
    data.manifest.write_text(yaml.safe_dump(manifest), encoding="utf-8")


def test_votes_and_the_manifests_standard_deviations_give_the_uncertain_metrics(
    model: Path, labelled_store: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--votes needs standard deviations"):
        evaluate(model, labelled_store, votes=20)
    change_manifest(labelled_store)
    result = evaluate(model, labelled_store, votes=20, predictions=tmp_path / "p.parquet", split="all", resamples=0)
    table = pl.read_parquet(tmp_path / "p.parquet").drop_nulls("predicted_overall")
    place = table["id"].str.slice(1).cast(pl.Int64).to_numpy() + 1
    half = stats.t.ppf(0.975, 19) * (0.3 + place % 5 / 10) / np.sqrt(20)
    error = np.abs(table["overall"].to_numpy().astype(float) - table["predicted_overall"].to_numpy().astype(float))
    metrics = result.report.result("overall").metrics
    assert 0.1 < metrics["outlier_ratio"].value < 0.9
    assert metrics["outlier_ratio"].value == pytest.approx(np.mean(error > half))
    assert np.isnan(result.report.result("detail").metrics["outlier_ratio"].value)
    with pytest.raises(UsageError, match="--votes must be at least 2"):
        evaluate(model, labelled_store, votes=1)


def test_directions_are_those_of_the_manifest_and_the_model(model: Path, labelled_store: Any) -> None:
    change_manifest(labelled_store, direction="lower_is_better")
    report = evaluate(model, labelled_store, resamples=0).report
    assert report.directions["overall"] == "lower_is_better"
    notes = report.result("overall").notes
    assert any("opposite sides" in note for note in notes)


def test_another_mapping_and_groups_reach_the_report(model: Path, labelled_store: Any) -> None:
    result = evaluate(model, labelled_store, mapping="linear", per_group=True, resamples=0)
    groups = [entry for entry in result.report.results if entry.group is not None and entry.target == "overall"]
    assert sum(entry.rows for entry in groups) == result.report.rows
    assert result.report.result("overall").mapping.kind == "linear"
    assert result.to_json()["run_provenance"]["config"]["mapping"] == "linear"
    with pytest.raises(UsageError, match="unknown mapping"):
        evaluate(model, labelled_store, mapping="cubic")


def test_intervals_that_the_graph_gives_are_checked_against_the_labels(
    model: Path, labelled_store: Any, tmp_path: Path
) -> None:
    assert evaluate(model, labelled_store, resamples=0).report.result("overall").intervals is None
    graph = onnx.load(model)
    width = onnx.numpy_helper.from_array(np.array([0.25, 0.5], np.float32), "width")
    graph.graph.initializer.append(width)
    for name, operator in (("low", "Sub"), ("high", "Add")):
        graph.graph.node.append(onnx.helper.make_node(operator, ["scores", "width"], [name]))
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 2]))
    onnx.save(graph, model)
    sidecar = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
    sidecar["onnx"] |= {"sha256": sha256_file(model), "bytes": model.stat().st_size}
    model.with_suffix(".json").write_text(json.dumps(sidecar), encoding="utf-8")
    result = evaluate(model, labelled_store, split="all", predictions=tmp_path / "p.parquet", resamples=0)
    rows = pl.read_parquet(tmp_path / "p.parquet").select("detail", "predicted_detail").drop_nulls()
    inside = (rows["detail"] - rows["predicted_detail"]).abs() <= 0.5
    found = result.report.result("detail").intervals
    assert found.n == len(rows)
    assert found.share == pytest.approx(inside.mean())
    assert 0.2 < found.share < 1
    assert found.mean_width == pytest.approx(1.0, rel=1e-5)


def test_rows_that_the_model_was_fitted_on_are_not_called_unseen(
    model: Path, labelled_store: Any, tmp_path: Path
) -> None:
    for split in ("test", "train"):
        assert evaluate(model, labelled_store, split=split, resamples=0).warnings == ()
    (warning,) = evaluate(model, labelled_store, split="all", resamples=0).warnings
    assert "was fitted on rows of split 'all'" in warning
    config = pipeline.load_fit_config(labelled_store.recipe).model_dump(mode="json", by_alias=True)
    recipe = pipeline.parse_fit_config({**config, "protocol": "kfold:k=2"}, "recipe")
    pipeline.fit(recipe, features=labelled_store.store, output=tmp_path / "folds", dataset=str(labelled_store.manifest))
    exported = export_run(tmp_path / "folds", tmp_path / "folds.onnx")
    result = evaluate(exported.path, labelled_store, resamples=0)
    assert "too good for new videos; its 2 held-out folds are in its sidecar" in result.warnings[0]
    assert result.to_json()["warnings"] == list(result.warnings)
    sidecar = read_sidecar(exported.sidecar)
    assert seen_rows_warning(sidecar, ["another"], "all") is None
    for protocol, left, seen in (
        ({"kind": "kfold", "rows": "train"}, 5, False),
        ({"kind": "kfold", "rows": "train"}, 0, True),
        ({"kind": "kfold", "rows": "all"}, 5, True),
        ({"kind": "splits"}, 5, False),
        ({"kind": "hash"}, 5, True),
    ):
        block = {"entrypoint": "fit", "config": {"protocol": protocol}, "counts": {"test": left}}
        told = sidecar.model_copy(update={"run_provenance": block})
        assert (seen_rows_warning(told, ["set"], "test") is not None) is seen
    unknown = sidecar.model_copy(update={"run_provenance": {"entrypoint": "import"}})
    assert seen_rows_warning(unknown, ["set"], "test") is None
