"""select-features on made sets: what repeats, what tells, what to take, and that no test row or fold leaks into it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.protocols import parse_protocol
from vqa_train.heads.table import build_table
from vqa_train.pipelines.fit.config import FitConfig, parse_fit_config
from vqa_train.pipelines.fit.data import FitData, load_fit_data
from vqa_train.pipelines.select_features import run as module
from vqa_train.pipelines.select_features.columns import labels_of, score_counts, tried_counts
from vqa_train.pipelines.select_features.inputs import inputs_of_store, recipe_of
from vqa_train.pipelines.select_features.run import SelectOptions, select_features
from vqa_train.pipelines.table import FeatureInput
from vqa_train.pipelines.tune.evaluate import Objective, objective_metric, training_folds
from vqa_train.store.store import FeatureRow, FeatureStore

RIDGE = {"head": {"kind": "linear"}}
KFOLD = parse_protocol("kfold:k=3")


@pytest.fixture
def add_set(labelled_store: Any) -> Callable[..., None]:
    """`add_set(name, values(mos, rng) -> (n, D), names=None, output="pooled")` of the videos of `labelled_store`."""

    def add(
        name: str,
        values: Callable[[Any, Any], Any],
        *,
        names: tuple[str, ...] | None = None,
        output: str = "pooled",
        rows: slice = slice(None),
    ) -> None:
        videos = load_dataset(str(labelled_store.manifest)).videos
        mos = np.array([video.labels["overall"] for video in videos])
        matrix = np.float32(values(mos, np.random.default_rng(len(name))))
        spec = FeatureSpec(
            backbone=name, definition=1, modality="video", preprocessing={"imported": {}},
            outputs=(OutputSpec(name=output, shape=matrix.shape[1:], names=names),),
        )  # fmt: skip
        found = [
            FeatureRow(key=video.sha256, outputs={output: row}, facts={})
            for video, row in zip(videos, matrix, strict=True)
        ][rows]
        store = FeatureStore.open(labelled_store.store)
        store.create_set(spec, license="x").append(found, profile={}, run_id="made-by-test")

    return add


def good(mos: Any, rng: Any) -> Any:
    """Three columns: the label with noise, the label squared, and noise alone."""
    noise = rng.normal(size=(len(mos), 3))
    return np.stack([mos + noise[:, 0] * 0.5, mos**2 + noise[:, 1] * 3, noise[:, 2]], axis=1)


def noise(columns: int) -> Callable[[Any, Any], Any]:
    return lambda mos, rng: rng.normal(size=(len(mos), columns))


def recipe(inputs: dict[str, str], **changes: Any) -> FitConfig:
    value = {
        "schema": "vqa-train/fit/1",
        "features": {name: {"set": found} for name, found in inputs.items()},
        "targets": ["overall"],
        "train": RIDGE,
    }
    return parse_fit_config({**value, **changes}, "test")


def select(data: Any, config: FitConfig, **options: Any) -> dict[str, Any]:
    return select_features(
        config,
        SelectOptions(**{"protocol": KFOLD, **options}),
        features=data.store,
        datasets=[str(data.manifest)],
    )


def test_a_copy_is_redundant_and_not_taken(labelled_store: Any, add_set: Any) -> None:
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3)))[0]

    def copy(mos: Any, rng: Any) -> Any:
        values = good(mos, np.random.default_rng(4))
        return (values - values.mean(axis=0)) / values.std(axis=0) @ turn

    add_set("good", good)
    add_set("other", noise(2))
    add_set("copy", copy)
    report = select(labelled_store, recipe({"noise": "other", "good": "good", "copy": "copy"}))
    matrix = dict(zip(report["redundancy"]["sets"], report["redundancy"]["matrix"], strict=True))
    assert matrix["good"][1] == pytest.approx(1)
    assert abs(matrix["noise"][1]) < 0.1
    # Every set beside itself is 1, and the matrix is its own mirror.
    np.testing.assert_allclose(np.diag(list(matrix.values())), 1)
    np.testing.assert_allclose(list(matrix.values()), np.transpose(list(matrix.values())))
    assert report["forward"][0]["added"] in ("good", "copy")
    assert report["selected"] == [report["forward"][0]["added"]]
    alone = {entry["name"]: entry["alone"]["value"] for entry in report["sets"]}
    assert alone["good"] > 0.85 > 0.4 > alone["noise"]
    information = {entry["name"]: entry["information"]["overall"] for entry in report["sets"]}
    assert information["good"] > 0.5 > 0.2 > information["noise"]


def test_columns_are_ranked_with_the_one_that_repeats_them(labelled_store: Any, add_set: Any) -> None:
    add_set("good", good, names=("mos", "square", "noise"))
    add_set("two", noise(2))
    report = select(labelled_store, recipe({"two": "two", "good": "good"}, targets=["overall", "detail"]))
    columns = {(e["set"], e["column"], e["target"]): e for e in report["columns"]}
    assert len(columns) == len(report["columns"]) == 10
    first, second, last = (columns["good", column, "overall"] for column in range(3))
    assert [first["name"], second["name"], last["name"]] == ["mos", "square", "noise"]
    assert columns["two", 0, "overall"]["name"] is None
    assert min(first["information"], second["information"]) > 0.3 > last["information"]
    assert min(first["srocc"], second["srocc"]) > 0.8 > abs(last["srocc"])
    # `detail` falls as `overall` rises, and some rows lack it.
    assert columns["good", 0, "detail"]["srocc"] < -0.8
    assert (first["nearest"], second["nearest"]) == (1, 0)
    assert first["nearest_srocc"] == second["nearest_srocc"] > 0.7


def test_nothing_of_a_test_row_is_seen(labelled_store: Any, add_set: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    add_set("good", good)
    config = recipe({"good": "good"})
    first = select(labelled_store, config)

    def planted(which: str) -> Callable[..., FitData]:
        def load(*arguments: Any, **named: Any) -> FitData:
            data = load_fit_data(*arguments, **named)
            rows = np.flatnonzero(data.splits == which)
            assert len(rows) > 10
            table = data.table
            features = {name: np.array(values) for name, values in table.features.items()}
            targets = np.array(table.targets)
            features["good"][rows] *= -1e9
            targets[rows] = np.arange(len(rows))[:, None]
            changed = replace(table, features=features, targets=targets)
            training = build_table(
                features, targets, table.target_names, data.units, table.row_keys, datasets=table.datasets
            )
            return replace(data, table=changed, training=training)

        return load

    monkeypatch.setattr(module, "load_fit_data", planted("test"))
    assert select(labelled_store, config) == first
    # And were training rows changed, it would show.
    monkeypatch.setattr(module, "load_fit_data", planted("train"))
    assert select(labelled_store, config) != first


def test_columns_of_a_fold_are_chosen_on_its_training_rows_alone(labelled_store: Any, add_set: Any) -> None:
    """Of 400 columns of noise some fit the labels of all rows; chosen on the rows that test, they would score 0.6."""
    add_set("noisy", noise(400))
    report = select(labelled_store, recipe({"noisy": "noisy"}))
    counts = {entry["columns"]: entry["value"] for entry in report["few_columns"]["counts"]}
    assert list(counts) == [1, 2, 4, 8, 16, 32, 64, 128, 400]
    assert max(counts[8], counts[16]) < 0.35
    assert len(report["few_columns"]["selected"]) in counts


def test_few_columns_of_one_set_do_as_well_as_all(labelled_store: Any, add_set: Any) -> None:
    def values(mos: Any, rng: Any) -> Any:
        # 0.7 of the label is in column 7 and 0.3 in column 2; 3 copies 7.
        x = rng.normal(size=(len(mos), 20))
        part = rng.normal(size=len(mos))
        x[:, 7], x[:, 2] = 0.7 * mos + part, 0.3 * mos - part
        x[:, 3] = x[:, 7] + 0.01 * rng.normal(size=len(mos))
        return x

    add_set("wide", values)
    report = select(labelled_store, recipe({"wide": "wide"}))
    few = report["few_columns"]
    assert [entry["columns"] for entry in few["counts"]] == [1, 2, 4, 8, 16, 20]
    assert len(few["selected"]) == 2
    assert few["selected"][1 if few["selected"][0] == 2 else 0] in (3, 7)
    assert 2 in few["selected"]
    # Near copies stand side by side in the picture's matrix.
    places = [few["columns"].index(column) for column in (3, 7)]
    assert abs(places[0] - places[1]) == 1
    assert few["matrix"][places[0]][places[1]] > 0.99
    # All columns are what the set alone is.
    assert few["counts"][-1]["value"] == pytest.approx(report["sets"][0]["alone"]["value"])


def test_folds_with_columns_of_their_own_are_those_of_a_table_with_these(
    labelled_store: Any, add_set: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All folds in one batch, on rows that stand once for each fold, as one fold after the other on a narrow table."""
    add_set("good", good)
    config = recipe({"good": "good"}, targets=["overall", "detail"])
    data = load_fit_data(config, features=labelled_store.store, datasets=[str(labelled_store.manifest)])
    validation = training_folds(data, KFOLD)
    metric = objective_metric("plcc", data)
    chosen = {fold.name: np.array([number, 2]) for number, fold in enumerate(validation.folds[:2])}
    chosen[validation.folds[2].name] = np.array([1, 0])
    from vqa_train.pipelines.select_features import columns as select_features_columns

    monkeypatch.setattr(select_features_columns, "order_of", lambda _v, _n, rows, _c: chosen[fold_of(validation, rows)])
    counts = score_counts(
        validation, Objective(validation, metric, seeds=1), config, "good", lambda rows: rows, lambda: None
    )
    assert [count.columns for count in counts] == [1, 2, 3]
    table = data.table
    for fold in validation.folds:
        narrow = {"good": np.asarray(table.features["good"])[:, chosen[fold.name]]}
        training = build_table(narrow, table.targets, table.target_names, data.units, table.row_keys)
        own = replace(validation, data=replace(data, training=training), folds=(fold,))
        expected = Objective(own, metric, seeds=1).scores([config.recipes])[0].value
        assert counts[1].folds[fold.name] == pytest.approx(expected, abs=1e-6)


def fold_of(validation: Any, rows: Any) -> str:
    return next(fold.name for fold in validation.folds if np.array_equal(fold.train, rows))


def test_labels_of_several_datasets_are_measured_on_one_scale(labelled_store: Any, add_set: Any) -> None:
    add_set("good", good)
    config = recipe({"good": "good"})
    data = load_fit_data(config, features=labelled_store.store, datasets=[str(labelled_store.manifest)])
    table = data.table
    second = np.arange(len(table.videos)) % 2 == 1
    rows = np.arange(len(table.videos))
    one = training_folds(data, KFOLD)
    np.testing.assert_array_equal(labels_of(one, rows), table.targets)
    targets = np.where(second[:, None], 1000 - 20 * table.targets, table.targets)
    names = tuple("b" if other else "a" for other in second)
    two = replace(one, data=replace(data, table=replace(table, targets=targets, datasets=names)))
    found = labels_of(two, rows)[:, 0]
    for own, sign in ((~second, 1), (second, -1)):
        np.testing.assert_allclose(found[own], sign * stats.zscore(table.targets[own, 0], nan_policy="omit"), atol=1e-4)


def test_features_in_a_file_are_compared_but_for_few_columns(labelled_store: Any, add_set: Any) -> None:
    add_set("good", good)
    report = select(labelled_store, recipe({"good": "good"}, memory_limit=1e-9))
    assert report["few_columns"] is None
    assert any("are in a file" in text for text in report["warnings"])
    in_memory = select(labelled_store, recipe({"good": "good"}))
    assert report["sets"][0]["alone"]["value"] == pytest.approx(in_memory["sets"][0]["alone"]["value"], abs=1e-4)
    assert report["rows"]["without_features"] == in_memory["rows"]["without_features"] == 0


def test_counts_of_columns() -> None:
    assert tried_counts(1) == [1]
    assert tried_counts(2) == [1, 2]
    assert tried_counts(5) == [1, 2, 4, 5]
    assert tried_counts(4096) == [1, 2, 4, 8, 16, 32, 64, 128, 4096]


def test_features_over_time_are_averaged_for_the_measures(labelled_store: Any, add_set: Any) -> None:
    def over_time(mos: Any, rng: Any) -> Any:
        return np.stack([good(mos, rng), good(mos, rng)], axis=1)

    add_set("steps", over_time, output="temporal")
    train = {
        "epochs": 3, "patience": None, "validation": {"fraction": 0},
        "head": {"kind": "temporal", "hidden": [], "options": {"width": 4}},
    }  # fmt: skip
    config = recipe({}, features={"steps": {"set": "steps", "output": "temporal"}}, train=train)
    report = select(labelled_store, config)
    assert [entry["columns"] for entry in report["few_columns"]["counts"]] == [1, 2, 3]
    assert report["sets"][0]["columns"] == 3


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_tables_and_picture_are_written_alike_each_time(
    labelled_store: Any, add_set: Any, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    add_set("good", good)
    add_set("bad", noise(2))
    config = recipe({"good": "good", "bad": "bad"})
    report = select(labelled_store, config, output=tmp_path / "a", picture=kind)
    assert [Path(path).name for path in report["files"]] == [
        "columns.csv", "redundancy.csv", "forward.csv", f"features.{kind}",
    ]  # fmt: skip
    columns = rows_of_csv(tmp_path / "a" / "columns.csv")
    assert len(columns) == len(report["columns"]) == 5
    assert float(columns[0]["information"]) == report["columns"][0]["information"]
    assert [row["cka"] for row in rows_of_csv(tmp_path / "a" / "redundancy.csv")][::3] == ["1.0", "1.0"]
    forward = rows_of_csv(tmp_path / "a" / "forward.csv")
    assert [row["sets"] for row in forward] == ["good", "good+bad"]
    assert float(forward[1]["gain"]) == report["forward"][1]["gain"]
    picture = (tmp_path / "a" / f"features.{kind}").read_bytes()
    assert picture.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    if kind == "svg":
        for text in (b"Forward selection", b"Redundancy", b"good 0", b"+ bad"):
            assert text in picture
    select(labelled_store, config, output=tmp_path / "b", picture=kind)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_one_set_is_written_with_its_numbers_of_columns(labelled_store: Any, add_set: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    add_set("good", good)
    report = select(labelled_store, recipe({"good": "good"}), output=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"columns.csv", "few_columns.csv", "features.svg"}
    few = rows_of_csv(tmp_path / "few_columns.csv")
    assert [int(row["columns"]) for row in few] == [1, 2, 3]
    assert float(few[0]["srocc"]) == report["few_columns"]["counts"][0]["value"]
    assert "How few columns do as well as all" in (tmp_path / "features.svg").read_text(encoding="utf-8")


def rows_of_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_wrong_kinds_are_refused_before_anything_is_trained(labelled_store: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="picture 'gif' is not known"):
        select(labelled_store, recipe({"x": "no-such-set"}), output=tmp_path, picture="gif")
    with pytest.raises(UsageError, match="did you mean 'srocc'"):
        select(labelled_store, recipe({"video": "fake"}), objective="sroc")


def test_all_sets_of_a_store_that_have_the_dataset(labelled_store: Any, add_set: Any, tmp_path: Path) -> None:
    add_set("good", good)
    add_set("steps", lambda mos, rng: rng.normal(size=(len(mos), 2, 3)), output="temporal")
    add_set("part", noise(2), rows=slice(50))
    told: list[str] = []
    names = [str(labelled_store.manifest)]
    inputs = inputs_of_store(labelled_store.store, names, note=told.append)
    assert list(inputs) == ["fake", "good", "part"]
    assert inputs["good"].output == "pooled"
    assert inputs["good"].set.startswith("good@")
    assert any("steps@" in text and "has no output 'pooled'" in text for text in told)
    assert any("part@" in text and "has 50 of the 120 videos" in text for text in told)
    assert recipe_of(inputs, names).datasets == names
    with pytest.raises(UsageError, match="no dataset named"):
        inputs_of_store(labelled_store.store, [], note=told.append)
    with pytest.raises(UsageError, match="no dataset named"):
        recipe_of({"a": FeatureInput(set="good")}, [])
    empty = tmp_path / "empty"
    FeatureStore(empty).create()
    with pytest.raises(ConfigError, match="has no features of dataset"):
        inputs_of_store(empty, names, note=told.append)
