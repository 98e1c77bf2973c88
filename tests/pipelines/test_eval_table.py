"""eval --table: columns become predictions as documented, numbers are SciPy's, and what does not fit is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from vqa_train.core.errors import UsageError
from vqa_train.evaluation.outlier_ratio import outlier_ratio
from vqa_train.evaluation.uncertainty import LabelUncertainty
from vqa_train.pipelines.evaluate.table import TableConfig, evaluate_table


def columns(rows: int = 60) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, rows)
    branches = np.stack([mos + rng.normal(0, 0.5, rows), 10 * mos + rng.normal(0, 8, rows)], axis=1)
    return {
        "mos": mos,
        "predicted_mos": mos + rng.normal(0, 0.4, rows),
        "features": pl.Series(branches.astype(np.float32), dtype=pl.Array(pl.Float32, 2)),
        "one": branches[:, 0],
        "two": branches[:, 1],
        "mos_std": rng.uniform(0.4, 0.9, rows),
        "votes": rng.integers(10, 40, rows),
        "scene": [f"s{i % 9}" for i in range(rows)],
        "set": ["a", "b"] * (rows // 2),
    }


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.parquet"
    pl.DataFrame(columns()).write_parquet(path)
    return path


def measure(path: Path, labels: tuple[str, ...] = ("mos",), resamples: int = 0, **options: Any) -> Any:
    run = {name: options.pop(name) for name in ("mapping", "per_group") if name in options}
    return evaluate_table(TableConfig(path=path, labels=labels, **options), resamples=resamples, **run)


def test_the_prediction_column_is_found_by_the_labels_name(table: Path) -> None:
    data = columns()
    metrics = measure(table).report.result("mos").metrics
    assert metrics["srocc"].value == pytest.approx(stats.spearmanr(data["predicted_mos"], data["mos"]).statistic)
    assert metrics["rmse"].value == pytest.approx(np.sqrt(np.mean((data["predicted_mos"] - data["mos"]) ** 2)))


def test_several_labels_have_a_prediction_each(table: Path) -> None:
    report = measure(table, ("mos", "two"), predictions=("one", "predicted_mos")).report
    data = columns()
    assert report.result("two").metrics["plcc"].value == pytest.approx(
        stats.pearsonr(data["predicted_mos"], data["two"]).statistic
    )


@pytest.mark.parametrize("vector", [True, False], ids=["a vector column", "two columns"])
def test_standardised_columns_are_fused_by_weight(table: Path, vector: bool) -> None:
    data = columns()
    parts = {"predictions": ("features",), "columns": ("one", "two")} if vector else {"predictions": ("one", "two")}
    metrics = measure(table, fuse={"two": 0.3, "one": 0.7}, zscore=True, **parts).report.result("mos").metrics
    expected = 0.7 * stats.zscore(data["one"]) + 0.3 * stats.zscore(data["two"])
    assert metrics["plcc"].value == pytest.approx(stats.pearsonr(expected, data["mos"]).statistic, abs=1e-6)
    assert metrics["rmse"].value == pytest.approx(np.sqrt(np.mean((expected - data["mos"]) ** 2)), abs=1e-6)
    raw = measure(table, fuse={"two": 0.3, "one": 0.7}, **parts).report.result("mos").metrics
    expected = 0.7 * data["one"] + 0.3 * data["two"]
    assert raw["plcc"].value == pytest.approx(stats.pearsonr(expected, data["mos"]).statistic, abs=1e-6)


def test_a_weight_for_one_entry_picks_it(table: Path) -> None:
    data = columns()
    found = measure(table, predictions=("features",), columns=("x", "y"), fuse={"y": 1.0}).report.result("mos")
    assert found.metrics["srocc"].value == pytest.approx(stats.spearmanr(data["two"], data["mos"]).statistic)


def test_empty_cells_are_counted_and_csv_reads_like_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame(columns()).drop("features")
    frame = frame.with_columns(
        pl.when(pl.int_range(pl.len()) < 5).then(None).otherwise(pl.col("predicted_mos")).alias("predicted_mos"),
        pl.when(pl.int_range(pl.len()) > 52).then(None).otherwise(pl.col("mos")).alias("mos"),
    )
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet")
    results = [measure(tmp_path / name, resamples=30).report for name in ("t.csv", "t.parquet")]
    found = results[0].result("mos")
    assert (found.rows, found.n, found.missing_predictions, found.missing_labels) == (60, 48, 5, 7)
    assert results[0].to_json() == results[1].to_json()


def test_missing_predictions_do_not_enter_the_standardisation(tmp_path: Path) -> None:
    frame = pl.DataFrame({"mos": [1.0, 2, 3, 4, 5, 6], "p": [None, 10.0, 30, 20, 50, float("inf")]})
    frame.write_parquet(tmp_path / "t.parquet")
    found = measure(tmp_path / "t.parquet", predictions=("p",), zscore=True).report.result("mos")
    expected = stats.zscore([10.0, 30, 20, 50])
    assert found.n == 4
    assert found.metrics["mae"].value == pytest.approx(np.mean(np.abs(expected - [2, 3, 4, 5])))


@pytest.mark.parametrize("votes", ["votes", 25])
def test_votes_give_the_metrics_of_uncertain_labels(table: Path, votes: int | str) -> None:
    data = columns()
    known = LabelUncertainty.from_votes(data["mos_std"], data["votes"] if votes == "votes" else 25)
    for std_columns in ({}, {"mos": "mos_std"}):
        metrics = measure(table, votes=votes, std_columns=std_columns).report.result("mos").metrics
        expected = outlier_ratio(data["predicted_mos"], data["mos"], known)
        assert metrics["outlier_ratio"].value == pytest.approx(expected)
        assert 0.5 < metrics["auc_bw"].value < 1


def test_groups_and_datasets_of_their_columns(table: Path) -> None:
    result = measure(table, group_column="scene", dataset_column="set", per_group=True, resamples=20)
    assert result.report.result("mos").groups == 18
    assert result.report.result("mos", "a", "s0").n == 4
    assert result.to_json()["intervals"]["over"] == "groups"


def test_a_dmos_table_says_so(table: Path) -> None:
    found = measure(table, direction="lower_is_better", prediction_direction="higher_is_better").report
    assert found.directions == {"mos": "lower_is_better"}
    assert any("good correlations are negative" in note for note in found.result("mos").notes)


def test_the_document_carries_settings_and_provenance(table: Path) -> None:
    document = json.loads(json.dumps(measure(table, mapping="linear").to_json(), allow_nan=False))
    assert document["schema"] == "vqa-train/eval/1"
    assert document["mapping"] == "linear"
    assert document["table"]["labels"] == ["mos"]
    entry = document["run_provenance"]["inputs"]["table"]
    assert len(entry["sha256"]) == 64
    assert document["run_provenance"]["counts"] == {"in": 60, "predicted": 60}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("mo",)}, "no column 'mo' - did you mean 'mos'"),
        ({"labels": ()}, "no label column named"),
        ({"labels": ("scene",)}, "column 'scene' of 't.parquet' holds String, expected numbers"),
        ({"predictions": ("features",)}, "holds vectors of 2, --columns names 0"),
        ({"predictions": ("features",), "columns": ("a", "a"), "fuse": {"a": 1}}, "--columns names 1 entries"),
        ({"predictions": ("features",), "columns": ("a", "b")}, "no weights"),
        ({"predictions": ("one", "two")}, "no weights"),
        ({"predictions": ("one", "two"), "fuse": {"oen": 1.0}}, "did you mean 'one'"),
        ({"predictions": ("one", "two"), "fuse": {"one": float("nan")}}, "expected a finite weight"),
        ({"predictions": ("one",), "columns": ("a",), "fuse": {"a": 1}}, "is no vector"),
        ({"predictions": ("one", "two"), "columns": ("a",), "fuse": {"a": 1}}, "give one --prediction"),
        ({"fuse": {"one": 1.0}}, "needs the columns to fuse"),
        ({"labels": ("mos", "two"), "predictions": ("one",)}, "got 1 prediction columns for 2 labels"),
        ({"labels": ("mos", "two"), "predictions": ("one",), "fuse": {"one": 1.0}}, "fused predictions are for one"),
        ({"group_column": "features"}, "expected names"),
        ({"per_group": True}, "--per-group needs a group column"),
        ({"votes": 1}, "at least 2"),
        ({"votes": 20, "labels": ("one",), "predictions": ("two",)}, "has no column 'one_std'"),
        ({"std_columns": {"mos": "mos_std"}}, "--label-std needs the number of votes"),
        ({"votes": 20, "std_columns": {"one": "mos_std"}}, "--label-std names 'one', no label"),
        ({"mapping": "cubic"}, "unknown mapping 'cubic'"),
    ],
)
def test_what_does_not_fit_is_told(table: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        measure(table, **options)


def test_a_constant_branch_cannot_be_standardised(tmp_path: Path) -> None:
    pl.DataFrame({"mos": [1.0, 2.0], "p": [3.0, 3.0]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="prediction 'p' is constant or empty"):
        measure(tmp_path / "t.parquet", predictions=("p",), zscore=True)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("absent.csv", None, "does not exist"),
        ("t.txt", b"mos\n1\n", "must end in .parquet or .csv"),
        ("t.parquet", b"no parquet", "cannot be read"),
        ("t.csv", b"mos,predicted_mos\n", "has no rows"),
        ("t.csv", b"", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_told(tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        measure(tmp_path / name)


def test_dovers_stored_predictions_give_the_published_numbers(shared: Path) -> None:
    path = shared / "data" / "konvid1k_doverpred.parquet"
    if not path.is_file():
        pytest.skip("konvid1k_doverpred.parquet is not in ../shared/data")
    metrics = measure(
        path,
        predictions=("features",),
        columns=("aesthetic", "technical"),
        fuse={"technical": 0.540, "aesthetic": 0.460},
        zscore=True,
    ).report.result("mos").metrics  # fmt: skip
    assert metrics["srocc"].value == pytest.approx(0.8828, abs=5e-4)
    assert metrics["plcc"].value == pytest.approx(0.8835, abs=5e-4)
    assert metrics["plcc_mapped"].value == pytest.approx(0.8862, abs=5e-4)
