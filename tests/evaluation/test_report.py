"""The evaluation report: what is counted, what is noted, and the published DOVER numbers."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.evaluation import estimates as estimates_module
from vqa_train.evaluation import notes as notes_module
from vqa_train.evaluation.krasula import analyse_pairs
from vqa_train.evaluation.outlier_ratio import outlier_ratio
from vqa_train.evaluation.report import evaluate
from vqa_train.evaluation.rmse_star import rmse_star
from vqa_train.evaluation.uncertainty import LabelUncertainty

CORRELATIONS = {"srocc", "plcc", "krocc", "vquala"}
MAPPED = {"plcc_mapped", "rmse_mapped", "mae_mapped"}
ORDINARY = CORRELATIONS | {"rmse", "mae"} | MAPPED
# What needs the labels' confidence intervals.
UNCERTAIN = {"outlier_ratio", "outlier_ratio_mapped", "rmse_star", "rmse_star_mapped", "auc_ds", "auc_bw", "c0"}


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
    for name in ORDINARY:
        estimate = result.metrics[name]
        assert estimate.interval.low < estimate.value < estimate.interval.high
        assert estimate.interval.resamples == 500
    assert len(result.notes) == 1
    assert "without the labels' confidence intervals: auc_bw, auc_ds, c0, outlier_ratio, rmse_star" in result.notes[0]


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
            CORRELATIONS | MAPPED,
            "predictions are const",
        ),
        (np.arange(20.0), [3.0] * 20, CORRELATIONS | MAPPED, "labels are constant"),
        (np.arange(4.0), np.arange(4.0), MAPPED, "at least 5 rows"),
        ([1.0], [2.0], CORRELATIONS | MAPPED, "1 rows have a prediction"),
        (
            [np.nan] * 20,
            np.arange(20.0),
            ORDINARY,
            "0 rows have a prediction",
        ),
        ([], [], ORDINARY, "0 rows have a prediction"),
    ],
    ids=["constant predictions", "constant labels", "four rows", "one row", "no prediction", "no rows"],
)
def test_what_is_undefined_is_null_in_json_and_noted(predicted, target, undefined, note):
    result = one(predicted, target)
    assert {name for name, estimate in result.metrics.items() if math.isnan(estimate.value)} == undefined | UNCERTAIN
    assert any(note in line for line in result.notes)
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert {name for name, entry in document["metrics"].items() if entry["value"] is None} == undefined | UNCERTAIN


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
    monkeypatch.setattr(estimates_module, "_PAIR_BUDGET", 120 * 300**2)
    result = one(predicted[:, 0], target[:, 0], resamples=200)
    assert result.metrics["krocc"].interval.resamples == 120
    assert result.metrics["srocc"].interval.resamples == 200
    for module in (estimates_module, notes_module):
        monkeypatch.setattr(module, "PAIR_MAX_ROWS", 299)
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
            assert entry == (
                two["metrics"][name] if name in UNCERTAIN else pytest.approx(two["metrics"][name], rel=1e-9)
            )


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


def test_labels_with_confidence_intervals_give_every_metric_its_value():
    predicted, target = scores()
    known = LabelUncertainty.from_votes(np.random.default_rng(0).uniform(0.4, 1, 120), 20)
    result = one(predicted[:, 0], target[:, 0], uncertainty={"mos": known}, resamples=200)
    x, y = predicted[:, 0], target[:, 0]
    pairs = analyse_pairs(x, y, known)
    assert result.metrics["outlier_ratio"].value == outlier_ratio(x, y, known)
    assert result.metrics["rmse_star"].value == pytest.approx(rmse_star(x, y, known, 1), rel=1e-12)
    assert result.metrics["rmse_star_mapped"].value == pytest.approx(
        rmse_star(result.logistic(x), y, known, 4), rel=1e-12
    )
    assert result.metrics["auc_bw"].value == pytest.approx(pairs.auc_bw, rel=1e-12)
    assert result.metrics["auc_ds"].value == pytest.approx(pairs.auc_ds, rel=1e-12)
    assert result.metrics["c0"].value == pytest.approx(pairs.c0, rel=1e-12)
    for name in ("outlier_ratio", "rmse_star", "rmse_star_mapped"):
        estimate = result.metrics[name]
        assert estimate.interval.low < estimate.value < estimate.interval.high
    assert result.notes == ()


def test_the_bootstrap_keeps_each_label_with_its_own_confidence_interval():
    # Half of the labels are exact and half are vague; mixed up, far more rows would be outliers.
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 5, 400)
    vague = np.arange(400) % 2 == 1
    predicted = target + np.where(vague, rng.uniform(-0.9, 0.9, 400), rng.uniform(-0.009, 0.009, 400))
    known = LabelUncertainty.from_half_width(np.where(vague, 1.0, 0.01))
    estimate = one(predicted, target, uncertainty={"mos": known}, resamples=200).metrics["outlier_ratio"]
    assert (estimate.value, estimate.interval.low, estimate.interval.high) == (0.0, 0.0, 0.0)


def test_unknown_intervals_and_labels_that_cannot_be_told_apart_are_noted():
    predicted, target = scores()
    width = np.full(120, 0.2)
    width[:30] = np.nan
    some = one(predicted[:, 0], target[:, 0], uncertainty={"mos": LabelUncertainty.from_half_width(width)})
    assert any("30 of 120 rows" in note for note in some.notes)
    vague = LabelUncertainty.from_half_width(np.full(120, 99.0))
    result = one(predicted[:, 0], target[:, 0], uncertainty={"mos": vague})
    assert math.isnan(result.metrics["auc_bw"].value)
    assert any("no two labels differ significantly" in note for note in result.notes)
    sure = one(predicted[:, 0], target[:, 0], uncertainty={"mos": LabelUncertainty.from_half_width(np.zeros(120))})
    assert math.isnan(sure.metrics["auc_ds"].value)
    assert any("auc_ds is undefined" in note for note in sure.notes)


def test_results_of_each_group_use_the_mapping_of_their_dataset_and_say_where_rows_are_few():
    predicted, target = scores()
    groups = ["large"] * 100 + ["small"] * 19 + ["single"]
    report = evaluate(predicted, target, ["mos"], groups=groups, per_group=True, resamples=20)
    assert [(r.group, r.n) for r in report.results] == [(None, 120), ("large", 100), ("single", 1), ("small", 19)]
    whole, small = report.result("mos"), report.result("mos", group="small")
    x, y = predicted[100:119, 0], target[100:119, 0]
    assert small.metrics["srocc"].value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert small.metrics["rmse_mapped"].value == pytest.approx(np.sqrt(np.mean((whole.logistic(x) - y) ** 2)))
    assert small.mapping == whole.mapping
    assert small.metrics["srocc"].interval.resamples == 0
    single = report.result("mos", group="single")
    assert math.isnan(single.metrics["srocc"].value)
    assert any("1 rows have a prediction" in note for note in single.notes)
    few = evaluate(predicted, target, ["mos"], groups=["a"] * 115 + ["b"] * 5, per_group=True, resamples=0)
    assert any("only 5 rows" in note for note in few.result("mos", group="b").notes)
    assert few.to_json()["results"][1]["group"] == "a"
    with pytest.raises(ValueError, match="per_group needs groups"):
        evaluate(predicted, target, ["mos"], per_group=True)


def test_groups_of_several_datasets_are_reported_under_their_dataset():
    predicted, target = scores()
    names, groups = ["a"] * 60 + ["b"] * 60, [f"g{i % 2}" for i in range(120)]
    report = evaluate(predicted, target, ["mos"], groups=groups, datasets=names, per_group=True, resamples=0)
    assert [(r.dataset, r.group) for r in report.results] == [
        ("all", None), ("a", None), ("a", "g0"), ("a", "g1"), ("b", None), ("b", "g0"), ("b", "g1"),
    ]  # fmt: skip
    assert report.result("mos", "b", "g1").n == 30
    assert report.result("mos", "b", "g1").mapping == report.result("mos", "b").mapping
    assert report.result("mos", "b").mapping != report.result("mos").mapping


@pytest.mark.parametrize("mapping", ["logistic5", "linear"])
def test_another_mapping_is_used_and_recorded(mapping):
    predicted, target = scores()
    report = evaluate(predicted, target, ["mos"], mapping=mapping, resamples=20)
    result = report.result("mos")
    assert result.mapping.kind == mapping
    assert result.logistic is None
    mapped = result.mapping(predicted[:, 0])
    assert result.metrics["plcc_mapped"].value == pytest.approx(stats.pearsonr(mapped, target[:, 0]).statistic)
    document = report.to_json()
    assert document["mapping"] == document["results"][0]["mapping"]["kind"] == mapping


def test_without_a_mapping_nothing_is_mapped():
    report = evaluate(*scores(), ["mos"], mapping="none", resamples=20)
    assert not [name for name in report.result("mos").metrics if name.endswith("_mapped")]
    assert report.to_json()["results"][0]["mapping"] is None
    with pytest.raises(UsageError, match="unknown mapping 'cubic'"):
        evaluate(*scores(), ["mos"], mapping="cubic")


def test_lower_is_better_is_noted_and_changes_no_sign():
    predicted, target = scores()
    directions = {"mos": "lower_is_better"}
    plain, noted = one(predicted[:, 0], target[:, 0]), one(predicted[:, 0], target[:, 0], directions=directions)
    assert noted.metrics["srocc"] == plain.metrics["srocc"]
    assert any("lower-is-better: correlations keep their sign" in note for note in noted.notes)


def test_better_and_worse_honour_directions_that_differ():
    # A quality score against DMOS: falling, and right.
    predicted, target = scores()
    known = {"mos": LabelUncertainty.from_votes(np.full(120, 0.5), 20)}
    options = {"uncertainty": known, "directions": {"mos": "lower_is_better"}}
    turned = one(-predicted[:, 0], target[:, 0], prediction_directions={"mos": "higher_is_better"}, **options)
    same = one(predicted[:, 0], target[:, 0], **options)
    wrong = one(-predicted[:, 0], target[:, 0], **options)
    assert turned.metrics["srocc"].value < 0
    assert turned.metrics["auc_bw"].value == pytest.approx(same.metrics["auc_bw"].value)
    assert turned.metrics["c0"].value == pytest.approx(same.metrics["c0"].value)
    assert wrong.metrics["auc_bw"].value == pytest.approx(1 - same.metrics["auc_bw"].value)
    assert any("good correlations are negative" in note for note in turned.notes)


def test_the_models_own_intervals_are_checked_against_the_labels():
    predicted, target = scores(targets=2)
    target[:20, 1] = np.nan
    low, high = predicted - 0.6, predicted + 0.6
    report = evaluate(predicted, target, ["a", "b"], intervals=(low, high), resamples=0)
    inside = np.abs(predicted[20:, 1] - target[20:, 1]) <= 0.6
    found = report.result("b").intervals
    assert (found.share, found.n) == (pytest.approx(inside.mean()), 100)
    document = report.to_json()["results"][1]["prediction_intervals"]
    assert document == {"coverage": found.share, "n": 100, "mean_width": pytest.approx(1.2)}
    assert evaluate(predicted, target, ["a", "b"], resamples=0).result("a").intervals is None


@pytest.mark.parametrize("hole", [np.inf, -np.inf, np.nan])
def test_infinite_predictions_are_missing_ones(hole):
    predicted, target = scores()
    x = predicted[:, 0].copy()
    x[:5] = hole
    result, rest = one(x, target[:, 0]), one(predicted[5:, 0], target[5:, 0])
    assert (result.missing_predictions, result.n) == (5, 115)
    assert result.metrics == rest.metrics | {
        name: estimate for name, estimate in result.metrics.items() if name in UNCERTAIN
    }


def test_all_labels_masked_is_a_report_of_nothing():
    predicted, _ = scores()
    result = one(predicted[:, 0], np.full(120, np.nan))
    assert (result.n, result.missing_labels, result.coverage) == (0, 120, 1.0)
    assert all(math.isnan(estimate.value) for estimate in result.metrics.values())


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
