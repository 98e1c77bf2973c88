"""The evaluation report: what is counted, what is noted, and the published DOVER numbers."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import report as report_module
from vqa_train.evaluation.report import evaluate


def scores(rows: int = 120, targets: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    target = rng.uniform(1, 5, (rows, targets))
    return target + rng.normal(0, 0.6, (rows, targets)), target


def one(predicted, target, **options):
    options = {"resamples": 50, **options}
    return evaluate(np.asarray(predicted)[:, None], np.asarray(target)[:, None], ["mos"], **options).result("mos")


def test_values_are_scipys_on_the_rows_that_have_both():
    predicted, target = scores(targets=2)
    predicted[:7, 0], target[5:20, 0], target[100:, 1] = np.nan, np.nan, np.nan
    report = evaluate(predicted, target, ["overall", "motion"], resamples=50)
    result = report.result("overall")
    x, y = predicted[20:, 0], target[20:, 0]
    assert (result.rows, result.n, result.missing_predictions, result.missing_labels) == (120, 100, 7, 15)
    assert result.coverage == pytest.approx(113 / 120)
    assert result.metrics["srocc"].value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert result.metrics["plcc"].value == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert result.metrics["krocc"].value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert result.metrics["rmse"].value == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), abs=1e-12)
    assert report.result("motion").n == 100


def test_mapped_values_are_those_of_the_mapped_predictions():
    predicted, target = scores()
    result = one(predicted[:, 0], target[:, 0])
    mapped = result.logistic(predicted[:, 0])
    assert result.metrics["plcc_mapped"].value == pytest.approx(stats.pearsonr(mapped, target[:, 0]).statistic)
    assert result.metrics["rmse_mapped"].value == pytest.approx(np.sqrt(np.mean((mapped - target[:, 0]) ** 2)))
    assert result.metrics["rmse_mapped"].value <= result.metrics["rmse"].value


def test_every_value_lies_in_its_interval_on_ordinary_data():
    predicted, target = scores()
    result = one(predicted[:, 0], target[:, 0], resamples=500)
    for estimate in result.metrics.values():
        assert estimate.interval.low < estimate.value < estimate.interval.high
        assert estimate.interval.resamples == 500
    assert result.notes == ()


def test_each_dataset_is_reported_beside_all_and_only_where_there_are_several():
    predicted, target = scores()
    names = ["live"] * 50 + ["konvid"] * 70
    report = evaluate(predicted, target, ["mos"], datasets=names, resamples=0)
    assert [(r.dataset, r.rows) for r in report.results] == [("all", 120), ("konvid", 70), ("live", 50)]
    assert report.datasets == {"konvid": 70, "live": 50}
    assert report.result("mos", "live").metrics["srocc"].value == pytest.approx(
        stats.spearmanr(predicted[:50, 0], target[:50, 0]).statistic, abs=1e-12
    )
    assert "pooled over 2 datasets" in report.result("mos").notes
    alone = evaluate(predicted, target, ["mos"], datasets=["live"] * 120, resamples=0)
    assert [r.dataset for r in alone.results] == ["all"]
    assert alone.datasets == {"live": 120}


def test_groups_of_two_datasets_with_one_name_are_two_groups():
    predicted, target = scores()
    report = evaluate(
        predicted,
        target,
        ["mos"],
        groups=[f"scene{i % 3}" for i in range(120)],
        datasets=["a"] * 60 + ["b"] * 60,
        resamples=20,
    )
    assert report.result("mos").groups == 6
    assert report.result("mos", "a").groups == 3
    assert report.to_json()["intervals"]["over"] == "groups"


def test_intervals_over_groups_are_wider_than_over_rows_of_copies():
    predicted, target = scores(30)
    x, y = np.repeat(predicted[:, 0], 8), np.repeat(target[:, 0], 8)
    rows, groups = one(x, y, resamples=400), one(x, y, resamples=400, groups=[str(i // 8) for i in range(240)])
    width = [r.metrics["srocc"].interval.high - r.metrics["srocc"].interval.low for r in (rows, groups)]
    assert width[1] > 1.7 * width[0]


@pytest.mark.parametrize(
    ("predicted", "target", "undefined", "note"),
    [
        (
            [3.0] * 20,
            np.arange(20.0),
            {"srocc", "plcc", "krocc", "plcc_mapped", "rmse_mapped"},
            "predictions are const",
        ),
        (np.arange(20.0), [3.0] * 20, {"srocc", "plcc", "krocc", "plcc_mapped", "rmse_mapped"}, "labels are constant"),
        (np.arange(4.0), np.arange(4.0), {"plcc_mapped", "rmse_mapped"}, "at least 5 rows"),
        ([1.0], [2.0], {"srocc", "plcc", "krocc", "plcc_mapped", "rmse_mapped"}, "1 rows have a prediction"),
        (
            [np.nan] * 20,
            np.arange(20.0),
            {"srocc", "plcc", "krocc", "rmse", "plcc_mapped", "rmse_mapped"},
            "0 rows have a prediction",
        ),
        ([], [], {"srocc", "plcc", "krocc", "rmse", "plcc_mapped", "rmse_mapped"}, "0 rows have a prediction"),
    ],
    ids=["constant predictions", "constant labels", "four rows", "one row", "no prediction", "no rows"],
)
def test_what_is_undefined_is_null_in_json_and_noted(predicted, target, undefined, note):
    result = one(predicted, target)
    assert {name for name, estimate in result.metrics.items() if math.isnan(estimate.value)} == undefined
    assert any(note in line for line in result.notes)
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert {name for name, entry in document["metrics"].items() if entry["value"] is None} == undefined


def test_two_rows_are_reported_and_what_has_no_interval_is_noted():
    result = one([1.0, 2.0], [2.0, 3.0])
    assert result.metrics["srocc"].value == 1.0
    assert result.metrics["rmse"].value == 1.0
    missing = [name for name, e in result.metrics.items() if math.isfinite(e.value) and not e.interval.resamples]
    assert all(any(name in line and "no interval" in line for line in result.notes) for name in missing)


def test_one_group_has_values_and_a_note_instead_of_intervals():
    predicted, target = scores()
    result = one(predicted[:, 0], target[:, 0], groups=["a"] * 120)
    assert math.isfinite(result.metrics["srocc"].value)
    assert result.metrics["srocc"].interval.resamples == 0
    assert any("only 1 group" in line for line in result.notes)


def test_reversed_predictions_are_noted_because_the_mapping_hides_the_sign():
    predicted, target = scores()
    result = one(-predicted[:, 0], target[:, 0])
    assert result.metrics["plcc"].value < 0 < result.metrics["plcc_mapped"].value
    assert any("fall as labels rise" in line for line in result.notes)


def test_kendalls_tau_takes_fewer_resamples_of_many_rows_and_says_how_many(monkeypatch):
    predicted, target = scores(300)
    monkeypatch.setattr(report_module, "_PAIR_BUDGET", 120 * 300**2)
    result = one(predicted[:, 0], target[:, 0], resamples=200)
    assert result.metrics["krocc"].interval.resamples == 120
    assert result.metrics["srocc"].interval.resamples == 200
    monkeypatch.setattr(report_module, "_PAIR_MAX_ROWS", 299)
    result = one(predicted[:, 0], target[:, 0], resamples=200)
    assert math.isfinite(result.metrics["krocc"].value)
    assert any("krocc: over 299 rows" in line for line in result.notes)


def test_the_document_has_its_schema_and_is_the_same_for_any_order_of_rows():
    predicted, target = scores(60, targets=2)
    order = np.random.default_rng(0).permutation(60)
    groups = np.array([f"g{i % 9}" for i in range(60)])
    first = evaluate(predicted, target, ["a", "b"], groups=list(groups), resamples=100).to_json()
    second = evaluate(predicted[order], target[order], ["a", "b"], groups=list(groups[order]), resamples=100).to_json()
    assert first["schema"] == "vqa-train/eval/1"
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    for one_, two in zip(first["results"], second["results"], strict=True):
        for name, entry in one_["metrics"].items():
            assert entry == pytest.approx(two["metrics"][name], rel=1e-9)


def test_shapes_that_disagree_and_a_dataset_called_all_are_errors():
    predicted, target = scores()
    with pytest.raises(ValueError, match="expected"):
        evaluate(predicted[:-1], target, ["mos"])
    with pytest.raises(ValueError, match="groups has 3 entries"):
        evaluate(predicted, target, ["mos"], groups=["a", "b", "c"])
    with pytest.raises(ConfigError, match="called 'all'"):
        evaluate(predicted, target, ["mos"], datasets=["all"] * 120)
    with pytest.raises(KeyError):
        evaluate(predicted, target, ["mos"], resamples=0).result("vmaf")


def test_dovers_stored_predictions_give_the_published_numbers(shared):
    import pyarrow.parquet as pq

    table = pq.read_table(shared / "data" / "konvid1k_doverpred.parquet")
    branches = np.stack(table["features"].to_numpy()).astype(np.float64)
    mos = table["mos"].to_numpy()
    aesthetic, technical = ((branches - branches.mean(axis=0)) / branches.std(axis=0)).T
    result = one(0.540 * technical + 0.460 * aesthetic, mos, resamples=200)
    assert result.n == 1200
    assert result.metrics["srocc"].value == pytest.approx(0.8828, abs=5e-4)
    assert result.metrics["plcc"].value == pytest.approx(0.8835, abs=5e-4)
    assert result.metrics["plcc_mapped"].value == pytest.approx(0.8862, abs=5e-4)
    assert result.metrics["srocc"].interval.low < 0.8828 < result.metrics["srocc"].interval.high
