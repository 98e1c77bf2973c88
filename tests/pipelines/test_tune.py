"""tune: trials train together and equal `fit`'s own folds, the study resumes, and no test row is ever seen."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from scipy import stats

from vqa_train.core.errors import ConfigError, RunError, UsageError
from vqa_train.datasets.protocols import parse_protocol
from vqa_train.pipelines.fit.data import load_fit_data
from vqa_train.pipelines.fit.run import FitConfig, fit, load_fit_config
from vqa_train.pipelines.tune.evaluate import Objective, objective_metric, training_folds
from vqa_train.pipelines.tune.run import Standing, TuneOptions, tune
from vqa_train.pipelines.tune.space import apply

SPACE = ("lr=float:1e-3:3e-2:log", "hidden=categorical:[8]|[]", "dropout=float:0:0.4")


def recipe(data: Any, **changes: Any) -> FitConfig:
    value = yaml.safe_load(data.recipe.read_text(encoding="utf-8"))
    value["train"] = {"epochs": 6, "patience": None, "validation": {"fraction": 0}, "head": {"hidden": [8]}}
    return FitConfig.model_validate({**value, **changes})


def search(data: Any, study: Path, config: FitConfig | None = None, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"trials": 4, "batch": 2, "params": SPACE, "protocol": parse_protocol("kfold:k=3")}
    rest = {name: options.pop(name) for name in ("on_trials", "warn") if name in options}
    return tune(
        config or recipe(data),
        TuneOptions(study=study, **{**given, **options}),
        features=data.store,
        datasets=[str(data.manifest)],
        **rest,
    )


def values(report: dict[str, Any]) -> dict[int, float]:
    return {trial["number"]: trial["value"] for trial in report["top"]}


def test_finds_a_recipe_that_fit_takes(labelled_store: Any, tmp_path: Path) -> None:
    standings: list[Standing] = []
    report = search(
        labelled_store, tmp_path / "s.db", trials=10, batch=8, output=tmp_path / "best.yaml", on_trials=standings.append
    )
    assert report["trials"] == {"complete": 10, "pruned": 0, "fail": 0}
    assert report["best"]["value"] == max(values(report).values())
    assert [(each.finished, each.added) for each in standings] == [(0, 0), (8, 8), (10, 2)]
    assert (standings[0].value, standings[-1].value) == (None, report["best"]["value"])
    assert report["recipe_itself"]["number"] == 0
    assert report["recipe_itself"]["settings"] == {
        "head.dropout": 0.2, "head.hidden": [8], "optimizer.lr": 0.003,
    }  # fmt: skip
    assert set(report["importances"]) == {"head.dropout", "head.hidden", "optimizer.lr"}
    assert sum(report["importances"].values()) == pytest.approx(1)
    best = load_fit_config(tmp_path / "best.yaml")
    assert best.train is not None
    assert best.train.optimizer.lr == report["best"]["settings"]["optimizer.lr"]
    result = fit(best, features=labelled_store.store, output=tmp_path / "run", dataset=str(labelled_store.manifest))
    assert result.record.config["train"]["head"]["hidden"] == report["best"]["settings"]["head.hidden"]


def test_a_trial_s_value_is_what_a_protocol_of_fit_reports(labelled_store: Any, tmp_path: Path) -> None:
    """The rows a fit trains on, given as a dataset of their own, split by the same protocol."""
    config = recipe(labelled_store)
    data = load_fit_data(config, features=labelled_store.store, datasets=[str(labelled_store.manifest)])
    validation = training_folds(data, parse_protocol("kfold:k=3"))
    trained = set(np.concatenate([data.final.train, data.final.validation]).tolist())
    tested = [fold.test for fold in validation.folds]
    assert sorted(np.concatenate(tested).tolist()) == sorted(trained)
    objective = Objective(validation, objective_metric("srocc", data), seeds=1)
    changed = apply(config.recipes, {"head.hidden": []}, "here")
    together = objective.scores([config.recipes, changed])
    # Alone as together, and as SciPy has it.
    for members, scored in zip([config.recipes, changed], together, strict=True):
        (alone,) = objective.scores([members])
        assert alone.folds == pytest.approx(scored.folds, abs=1e-5)
        for held in scored.held_out:
            labels = data.table.targets[held.fold.test]
            each = [
                stats.spearmanr(*pair[:, ~np.isnan(pair[1])]).statistic
                for pair in (np.stack([held.predicted[:, k], labels[:, k]]) for k in range(2))
            ]
            assert scored.folds[held.fold.name] == pytest.approx(np.mean(each))
        assert scored.value == pytest.approx(np.mean(list(scored.folds.values())))
    assert together[0].value != together[1].value


def test_labels_of_test_rows_change_no_trial(labelled_store: Any, tmp_path: Path) -> None:
    """A planted leak would show: other test labels, the same value of every trial, bit for bit."""
    first = search(labelled_store, tmp_path / "one.db")
    data = load_fit_data(recipe(labelled_store), features=labelled_store.store, datasets=[str(labelled_store.manifest)])
    test = {data.table.videos[row].id for row in np.flatnonzero(data.splits == "test")}
    assert len(test) > 10
    change_labels(labelled_store, test)
    second = search(labelled_store, tmp_path / "two.db")
    assert values(first) == values(second)
    # And were training rows changed, it would show.
    change_labels(labelled_store, {video.id for video in data.table.videos} - test)
    assert values(search(labelled_store, tmp_path / "three.db")) != values(first)


def change_labels(data: Any, ids: set[str]) -> None:
    from vqa_train.datasets.draft import ScanConfig
    from vqa_train.datasets.scan import scan

    root = data.manifest.with_suffix("")
    labels = root / "labels.csv"
    head, *lines = labels.read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in lines]
    changed = [
        [row[0], f"{1 + i % 5 * 0.9:.1f}", f"{1 + i % 3:.1f}", row[3]] if row[0] in ids else row
        for i, row in enumerate(rows)
    ]
    labels.write_text("\n".join([head, *(",".join(row) for row in changed)]) + "\n", encoding="utf-8")
    data.manifest.unlink()
    scan(
        ScanConfig(
            root=root, output=data.manifest, name="set", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "group": "scene"}, targets={"overall": "overall", "detail": "detail"},
            mos_min=1, mos_max=5,
        )
    )  # fmt: skip


def outcomes(report: dict[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    return [(trial["value"], trial["settings"]) for trial in report["top"]]


def _interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


def test_the_same_search_again_gives_the_same_trials(
    labelled_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(labelled_store, tmp_path / "whole.db")
    search(labelled_store, tmp_path / "parts.db", trials=2)
    parts = search(labelled_store, tmp_path / "parts.db", trials=4)
    assert parts["top"] == whole["top"]
    assert search(labelled_store, tmp_path / "other.db", seed=1)["top"] != whole["top"]
    # So does one that was cut off in its second batch: trials without an outcome are forgotten.
    search(labelled_store, tmp_path / "cut.db", trials=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Objective, "scores", _interrupted)
        search(labelled_store, tmp_path / "cut.db")
    resumed = search(labelled_store, tmp_path / "cut.db")
    assert resumed["trials"] == {"complete": 4, "pruned": 0, "fail": 2}
    assert outcomes(resumed) == outcomes(whole)
    # A study that has its trials is only reported.
    assert search(labelled_store, tmp_path / "parts.db", trials=3)["top"] == whole["top"]


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"protocol": parse_protocol("kfold:k=4")}, "splits"),
        ({"config": {"targets": ["overall"]}}, "dataset"),
        ({"config": {"seeds": 2}}, "recipe"),
        ({"objective": "plcc"}, "objective"),
    ],
)
def test_a_study_of_another_question_is_refused(
    labelled_store: Any, tmp_path: Path, change: dict[str, Any], differs: str
) -> None:
    search(labelled_store, tmp_path / "s.db", name="mine", trials=1)
    config = recipe(labelled_store, **change.pop("config", {}))
    with pytest.raises(RunError, match=f"asked another question.*{differs} was"):
        search(labelled_store, tmp_path / "s.db", config, name="mine", trials=2, **change)
    # Beside it, under another name, it may stand.
    search(labelled_store, tmp_path / "s.db", config, name="other", trials=1, **change)


def test_other_choices_are_refused_and_other_ranges_are_not(labelled_store: Any, tmp_path: Path) -> None:
    search(labelled_store, tmp_path / "s.db", trials=2)
    wider = ("lr=float:1e-4:1e-1:log", *SPACE[1:])
    assert search(labelled_store, tmp_path / "s.db", trials=3, params=wider)["trials"]["complete"] == 3
    with pytest.raises(RunError, match=r"'head\.hidden' has other choices"):
        search(labelled_store, tmp_path / "s.db", trials=4, params=["hidden=categorical:[4]|[]"])


def test_a_diverged_trial_is_pruned_with_its_reason_and_the_others_go_on(labelled_store: Any, tmp_path: Path) -> None:
    report = search(
        labelled_store,
        tmp_path / "s.db",
        trials=6,
        batch=6,
        params=["lr=categorical:0.003|1e37", SPACE[2]],
    )
    assert report["trials"]["complete"] >= 1
    assert report["trials"]["pruned"] >= 1
    assert any("diverged in epoch" in reason for reason in report["reasons"])
    assert all(np.isfinite(value) for value in values(report).values())


def test_a_recipe_that_cannot_train_does_not_end_the_others(labelled_store: Any, tmp_path: Path) -> None:
    """Patience without validation rows is refused by the trainer, for that trial alone."""
    report = search(labelled_store, tmp_path / "s.db", trials=4, params=["patience=categorical:null|3"])
    assert report["trials"]["complete"] >= 1
    assert any("no validation rows to stop by" in reason for reason in report["reasons"])
    with pytest.raises(ConfigError, match="no trial has a value"):
        search(labelled_store, tmp_path / "t.db", trials=2, params=["patience=categorical:2|3"])


def test_an_error_is_minimised(labelled_store: Any, tmp_path: Path) -> None:
    report = search(labelled_store, tmp_path / "s.db", objective="rmse")
    assert report["objective"]["direction"] == "minimise"
    assert report["best"]["value"] == min(values(report).values())
    assert [trial["value"] for trial in report["top"]] == sorted(values(report).values())


def test_objectives_that_are_none(labelled_store: Any, tmp_path: Path) -> None:
    for name in ("sroc", "outlier_ratio"):
        with pytest.raises(UsageError, match="cannot be optimised"):
            search(labelled_store, tmp_path / "s.db", objective=name)


def test_a_recipe_without_a_test_part_is_warned_of(labelled_store: Any, tmp_path: Path) -> None:
    told: list[str] = []
    config = recipe(labelled_store, protocol="kfold:k=2")
    report = search(labelled_store, tmp_path / "s.db", config, trials=1, warn=told.append)
    assert any("tests every row" in text for text in told)
    assert report["warnings"] == told
    with pytest.raises(ConfigError, match="the dataset has none"):
        search(labelled_store, tmp_path / "t.db", protocol=parse_protocol("splits"))


def test_members_are_tuned_together(labelled_store: Any, tmp_path: Path) -> None:
    train = {"epochs": 4, "patience": None, "validation": {"fraction": 0}, "head": {"hidden": []}}
    members = [{"name": "a", "train": train}, {"name": "b", "train": {"head": {"kind": "linear"}}}]
    config = recipe(labelled_store, train=None, members=members)
    params = ["a.lr=float:1e-3:1e-1:log", "b.weight=float:0.1:5"]
    report = search(labelled_store, tmp_path / "s.db", config, params=params, output=tmp_path / "best.yaml", trials=3)
    best = load_fit_config(tmp_path / "best.yaml")
    assert best.members is not None
    assert best.members[1].weight == report["best"]["settings"]["b.weight"]
    with pytest.raises(UsageError, match="could be a.optimizer.lr or b.optimizer.lr|unknown parameter"):
        search(labelled_store, tmp_path / "t.db", config, params=["c.lr=float:1:2"])


def test_heads_that_trials_share_are_trained_once(
    labelled_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqa_train.pipelines.tune import evaluate as tune_evaluate

    asked: list[list[str]] = []
    fit_heads = tune_evaluate.fit_heads

    def counted(table: Any, jobs: Any, **named: Any) -> Any:
        asked.append(sorted(job.config.head.kind for job in jobs))
        return fit_heads(table, jobs, **named)

    train = {"epochs": 4, "patience": None, "validation": {"fraction": 0}, "head": {"hidden": []}}
    members = [{"name": "a", "train": train}, {"name": "b", "train": {"head": {"kind": "linear"}}}]
    config = recipe(labelled_store, train=None, members=members, seeds=2)
    data = load_fit_data(config, features=labelled_store.store, datasets=[str(labelled_store.manifest)])
    validation = training_folds(data, parse_protocol("kfold:k=3"))
    objective = Objective(validation, objective_metric("srocc", data), seeds=2)
    recipes = [apply(config.recipes, {"optimizer.lr": lr}, "here") for lr in (0.001, 0.003, 0.01)]
    monkeypatch.setattr(tune_evaluate, "fit_heads", counted)
    together = objective.scores(recipes[:2])
    third = objective.scores(recipes[2:])
    # Three folds of one ridge for both recipes, and none for the third.
    assert asked == [["linear"] * 3 + ["mlp"] * 12, ["mlp"] * 6]
    for members_, scored in zip(recipes, [*together, *third], strict=True):
        alone = Objective(validation, objective_metric("srocc", data), seeds=2).scores([members_])[0]
        assert alone.folds == pytest.approx(scored.folds, abs=1e-5)


def test_ctrl_c_leaves_no_running_trial(labelled_store: Any, tmp_path: Path) -> None:
    study = tmp_path / "s.db"
    config = recipe(labelled_store)
    assert config.train is not None
    slow = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 100_000})})
    path = tmp_path / "slow.yaml"
    path.write_text(json.dumps(slow.model_dump(mode="json", by_alias=True)), encoding="utf-8")
    arguments = [
        "tune", "--config", str(path), "--features", str(labelled_store.store),
        "--dataset", str(labelled_store.manifest), "--study", str(study), "--param", SPACE[0],
        "--trials", "2", "--protocol", "kfold:k=2",
    ]  # fmt: skip
    code = "import sys; sys.argv[0] = 'vqa-train'; from vqa_train.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    running = threading.Event()
    watch = threading.Thread(target=_wait_for_running, args=(study, running, process))
    watch.start()
    assert running.wait(120)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    watch.join()
    assert process.returncode == 130, told
    assert "interrupted: finished trials are in" in told
    assert "Traceback" not in told
    states = sqlite3.connect(study)
    assert states.execute("select distinct state from trials").fetchall() == [("FAIL",)]
    states.close()


def _wait_for_running(study: Path, running: threading.Event, process: subprocess.Popen[str]) -> None:
    """Set the event when the study has running trials, so that training has begun or is about to."""
    while process.poll() is None and not running.is_set():
        if study.is_file():
            reader = sqlite3.connect(f"file:{study}?mode=ro", uri=True)
            try:
                found = reader.execute("select count(*) from trials where state = 'RUNNING'").fetchone()[0]
            except sqlite3.OperationalError:  # the tables are being made
                found = 0
            finally:
                reader.close()
            if found == 2:
                running.set()


def test_the_dashboard_shows_the_study(labelled_store: Any, tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    report = search(labelled_store, tmp_path / "s.db", trials=2)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 's.db'}")
    app = dashboard.wsgi(storage)
    (study,) = _get(app, "/api/studies")["study_summaries"]
    assert study["study_name"] == report["study"]["name"]
    detail = _get(app, f"/api/studies/{study['study_id']}")
    assert {trial["state"] for trial in detail["trials"]} == {"Complete"}
    shown = {trial["number"]: trial["values"][0] for trial in detail["trials"]}
    assert {number: float(value) for number, value in shown.items()} == pytest.approx(values(report))
    storage.remove_session()
    storage.engine.dispose()


def _get(app: Any, path: str) -> Any:
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = b"".join(app(environ, lambda text, *_: status.append(text)))
    assert status == ["200 OK"], (status, body)
    return json.loads(body)
