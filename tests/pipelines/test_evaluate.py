"""eval: the numbers are SciPy's, every row is accounted for, and a model is never fed features of another meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.types import FeatureSpec
from vqa_train.pipelines import fit as pipeline
from vqa_train.pipelines.evaluate import evaluate_model
from vqa_train.pipelines.export import export_run
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
