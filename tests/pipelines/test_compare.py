"""compare: the tests see the same rows of every model, their numbers are SciPy's, and what differs is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from vqa_train.core.errors import RunError, UsageError
from vqa_train.evaluation.significance import corrected_resampled_t
from vqa_train.pipelines.evaluate.compare import compare


def rows(noise: float, count: int = 80, seed: int = 1) -> dict[str, Any]:
    mos = np.random.default_rng(0).uniform(1, 5, count)
    return {
        "id": [f"v{i:03d}" for i in range(count)],
        "mos": mos,
        "predicted_mos": mos + np.random.default_rng(seed).normal(0, noise, count),
    }


def write(path: Path, data: dict[str, Any]) -> str:
    frame = pl.DataFrame(data)
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return str(path)


def folds(noise: float, *, splits: int = 12, count: int = 80, seed: int = 1) -> dict[str, Any]:
    """Repeated random 80/20 splits: the same rows in each fold whatever the seed of the noise."""
    data: dict[str, list[Any]] = {"fold": [], "id": [], "mos": [], "predicted_mos": []}
    mos = np.random.default_rng(0).uniform(1, 5, count)
    rng = np.random.default_rng(seed)
    for split in range(splits):
        for i in np.random.default_rng(split).permutation(count)[: count // 5]:
            data["fold"].append(f"split{split:02d}")
            data["id"].append(f"v{i}")
            data["mos"].append(mos[i])
            data["predicted_mos"].append(mos[i] + rng.normal(0, noise))
    return data


def test_rows_are_joined_by_id_whatever_their_order_and_the_value_is_scipys(tmp_path: Path) -> None:
    one, two = rows(0.3), rows(0.8, seed=2)
    a = write(tmp_path / "a.parquet", one)
    b = write(tmp_path / "b.csv", pl.DataFrame(two).sample(fraction=1, shuffle=True, seed=0).to_dict(as_series=False))
    result = compare([a, b], metrics=["srocc", "rmse"], resamples=300)
    srocc, rmse = result.comparisons
    expected = [stats.spearmanr(x["predicted_mos"], x["mos"]).statistic for x in (one, two)]
    assert srocc.values == pytest.approx(expected)
    assert srocc.difference.value == pytest.approx(expected[0] - expected[1])
    assert (srocc.first, srocc.second, srocc.test) == ("a", "b", "bootstrap")
    assert srocc.better == rmse.better == "a"
    assert rmse.difference.value < 0
    assert srocc.p_holm < 0.05
    assert (result.rows, result.folds, result.resampled) == (80, 0, "rows")


def test_only_rows_that_both_have_are_compared_and_the_others_counted(tmp_path: Path) -> None:
    one, two = rows(0.3), rows(0.5, seed=2)
    two = {name: values[10:] for name, values in two.items()}
    two["predicted_mos"][:3] = np.nan
    result = compare([write(tmp_path / "a.parquet", one), write(tmp_path / "b.parquet", two)], resamples=50)
    assert result.rows == 67
    assert "a: 10 rows that another model lacks are left out" in result.notes
    assert any("3 labelled rows" in note for note in result.notes)


def test_whole_groups_are_resampled_where_there_are_groups(tmp_path: Path) -> None:
    one, two = rows(0.5), rows(0.6, seed=2)
    plain = compare([write(tmp_path / "a.parquet", one), write(tmp_path / "b.parquet", two)], metrics=["plcc"])
    copies = [{name: np.repeat(values, 8) for name, values in data.items()} for data in (one, two)]
    for data in copies:
        data["group"] = data["id"]
        data["id"] = [f"{i}" for i in range(640)]
    paths = [write(tmp_path / f"{name}.parquet", data) for name, data in zip("cd", copies, strict=True)]
    grouped = compare(paths, metrics=["plcc"])
    assert grouped.resampled == "groups"
    widths = [r.comparisons[0].difference.high - r.comparisons[0].difference.low for r in (plain, grouped)]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_over_folds_both_tests_are_those_of_the_fold_metrics(tmp_path: Path) -> None:
    one, two = folds(0.4), folds(0.6, seed=2)
    paths = [write(tmp_path / "a.parquet", one), write(tmp_path / "b.parquet", two)]
    result = compare(paths, metrics=["srocc"])
    per_fold = [
        [
            stats.spearmanr(part["predicted_mos"], part["mos"]).statistic
            for _, part in sorted(pl.DataFrame(data).group_by("fold"), key=lambda item: item[0])
        ]
        for data in (one, two)
    ]
    wilcoxon, corrected = result.comparisons
    assert (wilcoxon.test, corrected.test) == ("wilcoxon", "corrected_t")
    assert wilcoxon.values == pytest.approx([np.median(values) for values in per_fold])
    # Correlations over 16 rows take few values: some of the differences are equal, so the test is not exact.
    differences = np.round(np.subtract(*per_fold), 12)
    assert wilcoxon.difference.p == pytest.approx(stats.wilcoxon(differences, method="asymptotic").pvalue)
    # Each fold holds out 16 of the rows that occur at all.
    total = len(set(one["id"]))
    expected = corrected_resampled_t(*per_fold, test_share=16 / (total - 16))
    assert corrected.difference.p == pytest.approx(expected.p)
    assert result.folds == 12
    assert any("tests are over the splits alone" in note for note in result.notes)


def test_folds_that_hold_each_row_once_are_also_bootstrapped(tmp_path: Path) -> None:
    paths = []
    for name, noise in (("a", 0.4), ("b", 0.6)):
        data = rows(noise, seed=ord(name))
        data["fold"] = [f"f{i % 5}" for i in range(80)]
        paths.append(write(tmp_path / f"{name}.parquet", data))
    result = compare(paths, metrics=["plcc"], resamples=50)
    assert [c.test for c in result.comparisons] == ["wilcoxon", "corrected_t", "bootstrap"]
    assert any("pools the held-out rows" in note for note in result.notes)


def test_three_models_give_three_pairs_corrected_together(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.parquet", rows(0.4 + 0.1 * i, seed=i)) for i, n in enumerate("abc")]
    result = compare(paths, metrics=["plcc"], resamples=300)
    assert [(c.first, c.second) for c in result.comparisons] == [("a", "b"), ("a", "c"), ("b", "c")]
    raw = np.array([c.difference.p for c in result.comparisons])
    smallest = int(raw.argmin())
    assert result.comparisons[smallest].p_holm == pytest.approx(min(1.0, 3 * raw[smallest]))


def test_mapped_metrics_map_each_model_by_itself(tmp_path: Path) -> None:
    one = rows(0.3)
    two = {**one, "predicted_mos": 100 * np.asarray(one["predicted_mos"]) - 7}
    paths = [write(tmp_path / "a.parquet", one), write(tmp_path / "b.parquet", two)]
    result = compare(paths, metrics=["rmse", "rmse_mapped"], resamples=50)
    raw, mapped = result.comparisons
    assert raw.better == "a"
    assert mapped.difference.value == pytest.approx(0.0, abs=1e-6)


def test_a_model_against_itself_and_a_collapsed_one(tmp_path: Path) -> None:
    one = rows(0.3)
    constant = {**one, "predicted_mos": np.full(80, 3.0)}
    names = {"same": one, "copy": one, "flat": constant}
    paths = [write(tmp_path / f"{name}.parquet", data) for name, data in names.items()]
    result = compare(paths, metrics=["srocc"], resamples=50)
    itself, flat, _ = result.comparisons
    assert (itself.difference.value, itself.difference.p, itself.better) == (0.0, 1.0, None)
    assert math.isnan(flat.difference.p)
    assert math.isnan(flat.p_holm)
    assert flat.better is None
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["schema"] == "vqa-train/compare/1"
    assert document["comparisons"][1]["p_holm"] is None
    assert document["comparisons"][1]["values"][1] is None


def test_rows_of_the_split_asked_for_are_compared(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        data = rows(0.3, seed=ord(name))
        data["split"] = ["train"] * 60 + ["test"] * 20
        paths.append(write(tmp_path / f"{name}.parquet", data))
    assert compare(paths, resamples=20).rows == 20
    assert compare(paths, split="all", resamples=20).rows == 80
    with pytest.raises(UsageError, match="no rows of split 'val'"):
        compare(paths, split="val")


def test_a_name_may_be_given_and_alike_ones_are_told_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    a, b = write(tmp_path / "x" / "p.parquet", rows(0.3)), write(tmp_path / "y" / "p.parquet", rows(0.4))
    assert list(compare([a, b], resamples=20).models) == [a, b]
    assert list(compare([f"svr={a}", f"mlp={b}"], resamples=20).models) == ["svr", "mlp"]
    with pytest.raises(UsageError, match="two models are called 'svr'"):
        compare([f"svr={a}", f"svr={b}"])


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", rows(0.3))
    with pytest.raises(UsageError, match="got 1 model"):
        compare([a])
    with pytest.raises(UsageError, match="does not exist"):
        compare([a, str(tmp_path / "absent.parquet")])
    with pytest.raises(UsageError, match="did you mean 'srocc'"):
        compare([a, a], metrics=["sroc"])
    with pytest.raises(UsageError, match="cannot compare metric 'c0'"):
        compare([a, a], metrics=["c0"])
    with pytest.raises(UsageError, match="unknown mapping"):
        compare([a, a], mapping="cubic")
    with pytest.raises(UsageError, match="mapped metrics and --mapping none"):
        compare([a, a], metrics=["plcc_mapped"], mapping="none")
    other = write(tmp_path / "other.parquet", {**rows(0.3), "id": [f"w{i}" for i in range(80)]})
    with pytest.raises(UsageError, match="no row .* in common"):
        compare([a, other])
    twice = write(tmp_path / "twice.parquet", {**rows(0.3), "id": ["v000"] * 80})
    with pytest.raises(UsageError, match="has id 'v000' twice"):
        compare([a, twice])
    labels = rows(0.3)
    labels["mos"] = labels["mos"] + 0.5
    with pytest.raises(UsageError, match=r"label 'mos' of 'v000' is .* in a, .* in labels"):
        compare([a, write(tmp_path / "labels.parquet", labels)])
    bare = write(tmp_path / "bare.parquet", {"id": ["v0"], "mos": [1.0]})
    with pytest.raises(UsageError, match="has no target"):
        compare([a, bare])
    renamed = pl.DataFrame(rows(0.3)).rename({"mos": "tone", "predicted_mos": "predicted_tone"})
    renamed.write_parquet(tmp_path / "tone.parquet")
    with pytest.raises(UsageError, match="share no target: a has mos; tone has tone"):
        compare([a, str(tmp_path / "tone.parquet")])
    with pytest.raises(UsageError, match="target 'tone' is not in every model"):
        compare([a, write(tmp_path / "b.parquet", rows(0.3))], targets=["tone"])


def test_folds_must_hold_the_same_rows(tmp_path: Path) -> None:
    one, two = folds(0.4), folds(0.4)
    two["id"][0] = "elsewhere"
    with pytest.raises(UsageError, match="fold 'split00' of a and b holds different rows"):
        compare([write(tmp_path / "a.parquet", one), write(tmp_path / "b.parquet", two)])
    with pytest.raises(UsageError, match="held-out rows of 12 folds, c rows"):
        compare([str(tmp_path / "a.parquet"), write(tmp_path / "c.parquet", rows(0.3))])


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="is not a run folder"):
        compare([write(tmp_path / "a.parquet", rows(0.3)), str(tmp_path / "folder")])


@pytest.mark.parametrize("counts", [True, False], ids=["counts", "lists of rows"])
def test_a_run_folders_held_out_rows_and_sizes_are_used(tmp_path: Path, counts: bool) -> None:
    from vqa_train.core.hashing import sha256_file
    from vqa_train.pipelines import runs

    paths = []
    for name, noise in (("a", 0.4), ("b", 0.6)):
        folder = tmp_path / name
        folder.mkdir()
        write(folder / runs.HELD_OUT_FILE, folds(noise, seed=ord(name)))
        sizes: dict[str, Any] = {"train": 64, "test": 16} if counts else {"train": ["v"] * 64, "test": ["v"] * 16}
        report = {"folds": [{"name": f"split{i:02d}", **sizes} for i in range(12)]}
        (folder / runs.PROTOCOL_FILE).write_text(json.dumps(report))
        (folder / runs.RUN_FILE).write_text(json.dumps(record(folder, runs, sha256_file)))
        paths.append(str(folder))
    result = compare(paths, metrics=["plcc"])
    corrected = result.comparisons[1]
    differences = corrected.difference
    half = (differences.high - differences.low) / 2
    frames = [pl.read_parquet(Path(path) / runs.HELD_OUT_FILE).partition_by("fold") for path in paths]
    per_fold = [[stats.pearsonr(f["predicted_mos"], f["mos"]).statistic for f in parts] for parts in frames]
    spread = np.var(np.subtract(*per_fold), ddof=1)
    assert half == pytest.approx(stats.t.ppf(0.975, 11) * math.sqrt((1 / 12 + 16 / 64) * spread))
    (Path(paths[0]) / runs.HELD_OUT_FILE).write_bytes(b"changed")
    with pytest.raises(RunError, match="sha256"):
        compare(paths)


def test_cells_of_a_cross_dataset_matrix_that_hold_nothing_out_are_left_out(tmp_path: Path) -> None:
    from vqa_train.core.hashing import sha256_file
    from vqa_train.pipelines import runs

    paths = []
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        data = folds(0.4, splits=4, seed=ord(name))
        write(folder / runs.HELD_OUT_FILE, data)
        cells = [["x", "x"], ["x", "y"], ["y", "x"], ["y", "y"]]
        report = {"folds": [{"name": f"split{i:02d}", "train": 64, "test": 16, "cell": c} for i, c in enumerate(cells)]}
        (folder / runs.PROTOCOL_FILE).write_text(json.dumps(report))
        (folder / runs.RUN_FILE).write_text(json.dumps(record(folder, runs, sha256_file)))
        paths.append(str(folder))
    result = compare(paths, metrics=["plcc"])
    assert result.folds == 2
    assert result.rows == 32


def record(folder: Path, runs: Any, digest: Any) -> dict[str, Any]:
    """The least that a run record may say."""
    return {
        "schema": runs.RUN_SCHEMA, "inputs": [], "targets": ["mos"], "mos_range": {}, "expected_output_range": {},
        "direction": "higher_is_better", "dataset": {}, "dataset_license": "", "datasets": [], "config": {},
        "config_sha256": "", "rows": {}, "best_epoch": 0, "training": {}, "members": [], "protocol": {},
        "splits_sha256": "", "run_provenance": {},
        "files": {name: digest(folder / name) for name in (runs.HELD_OUT_FILE, runs.PROTOCOL_FILE)},
    }  # fmt: skip
