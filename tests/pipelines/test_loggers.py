"""Loggers: what a fit logs is read back with each tool's own reader; off unless asked for; no fit is lost to one."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqa_train.core.config import parse
from vqa_train.core.errors import ConfigError, DependencyError, UsageError
from vqa_train.pipelines.loggers import LOGGERS
from vqa_train.pipelines.loggers.config import LoggerConfig
from vqa_train.pipelines.loggers.open import flatten, open_loggers

PARAMS = {"train": {"epochs": 3, "head": {"hidden": [8], "kind": "mlp"}}, "seeds": 3}


def entry(epoch: int, loss: float, metric: float | None = None) -> dict[str, Any]:
    return {
        "epoch": epoch, "lr": 0.01, "train_loss": loss, "validation_loss": None, "validation_metric": metric,
    }  # fmt: skip


def log_fit(configs: list[LoggerConfig], artifacts: list[Path] | None = None) -> Any:
    """Three heads, two epochs, the third stops after one; the heads come one after the other, as batches do."""
    with open_loggers(configs, "my-run", PARAMS) as loggers:
        for name, losses in (("a/mlp", (3.0, 1.0)), ("b/mlp", (5.0, 2.0)), ("c/mlp", (10.0,))):
            for epoch, loss in enumerate(losses, 1):
                loggers.on_epoch(name, entry(epoch, loss, 0.5))
        loggers.finish({"val/overall/srocc": 0.75, "val/overall/plcc": None, "nan": float("nan")}, artifacts or [])
    return loggers


MEDIANS = {1: 5.0, 2: 1.5}


def test_tensorboard_reads_back_heads_medians_and_final_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = log_fit([LoggerConfig(kind="tensorboard", folder=str(tmp_path / "logs"), heads=2)])
    assert loggers.warnings == []
    events = EventAccumulator(str(tmp_path / "logs" / "my-run"))
    events.Reload()

    def series(tag: str) -> dict[int, float]:
        return {scalar.step: scalar.value for scalar in events.Scalars(tag)}

    assert series("median/train_loss") == MEDIANS
    assert series("heads/b/mlp/train_loss") == {1: 5.0, 2: 2.0}
    assert series("final/val/overall/srocc") == {0: 0.75}
    assert series("final/heads") == {0: 3.0}
    tags = events.Tags()["scalars"]
    assert not [tag for tag in tags if tag.startswith("heads/c") or "validation_loss" in tag or "plcc" in tag]
    text = events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "train.head.hidden: [8]" in text


@pytest.fixture(params=["folder", "sqlite"])
def mlflow_uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.chdir(tmp_path)
    if request.param == "folder":
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        return str(tmp_path / "mlruns")
    pytest.importorskip("sqlalchemy", reason="MLflow's SQLite store needs sqlalchemy")
    pytest.importorskip("alembic", reason="MLflow's SQLite store needs alembic")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_mlflow_reads_back_metrics_params_and_files(mlflow_uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    (tmp_path / "metrics.json").write_text("{}")
    config = LoggerConfig(kind="mlflow", uri=mlflow_uri, project="vqa", heads=1)
    loggers = log_fit([config], [tmp_path / "metrics.json"])
    assert loggers.warnings == []
    client = MlflowClient(tracking_uri=mlflow_uri)
    [run] = client.search_runs([client.get_experiment_by_name("vqa").experiment_id])
    assert (run.info.run_name, run.info.status) == ("my-run", "FINISHED")
    assert run.data.params["train.head.hidden"] == "[8]"
    assert run.data.metrics["final/val/overall/srocc"] == 0.75
    history = client.get_metric_history(run.info.run_id, "median/train_loss")
    assert {point.step: point.value for point in history} == MEDIANS
    assert {p.step: p.value for p in client.get_metric_history(run.info.run_id, "heads/a/mlp/train_loss")} == {
        1: 3.0,
        2: 1.0,
    }
    assert not [name for name in run.data.metrics if name.startswith("heads/b")]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["metrics.json"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_fit_that_stops_leaves_a_failed_mlflow_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = str(tmp_path / "mlruns")
    with pytest.raises(KeyboardInterrupt), open_loggers([LoggerConfig(kind="mlflow", uri=uri)], "r", {}) as loggers:
        loggers.on_epoch("a", entry(1, 2.0))
        raise KeyboardInterrupt
    client = MlflowClient(tracking_uri=uri)
    [run] = client.search_runs([client.get_experiment_by_name("vqa-train").experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.metrics["heads/a/train_loss"] == 2.0


def test_mlflow_that_refuses_its_place_says_how_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="logger mlflow cannot use 'nosuch://place'"):
        open_loggers([LoggerConfig(kind="mlflow", uri="nosuch://place")], "r", {})


def records_of(data: bytes) -> list[bytes]:
    """Records of a .wandb file: 7 bytes of header, then LevelDB's log format (blocks of 32 KiB; each piece of a record
    has a checksum, a length and a type: 1 whole, 2 first, 3 middle, 4 last)."""
    found, parts, place, block = [], b"", 7, 32768
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            found.append(parts)
            parts = b""
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_offline_keeps_the_numbers_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("HOME", str(tmp_path))
    loggers = log_fit([LoggerConfig(kind="wandb", folder=str(tmp_path), project="vqa", heads=1)])
    assert loggers.warnings == []
    [file] = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    rows: list[dict[str, str]] = []
    summary: dict[str, str] = {}
    for data in records_of(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        rows += (
            [{"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}]
            if record.history.item
            else []
        )
        summary |= {"/".join(i.nested_key) or i.key: i.value_json for i in record.summary.update}
    medians = {int(float(row["epoch"])): float(row["median/train_loss"]) for row in rows if "median/train_loss" in row}
    assert medians == MEDIANS
    assert float(summary["val/overall/srocc"]) == 0.75


class Broken:
    """Opens, then fails on the second number."""

    place = "nowhere"
    count = 0

    def __init__(self, *_: Any) -> None: ...

    def log(self, scalars: Any, step: int) -> None:
        self.count += 1
        if self.count > 1:
            raise OSError("disk full")

    def finish(self, metrics: Any, artifacts: Any) -> None:
        raise AssertionError("a logger that failed is not called again")

    fail = finish


def test_a_logger_that_fails_is_left_out_and_said_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGERS, "get", lambda kind: Broken)
    said: list[str] = []
    with open_loggers([LoggerConfig(kind="tensorboard")], "r", {}, warn=said.append) as loggers:
        for epoch in range(1, 6):
            loggers.on_epoch("a", entry(epoch, 1.0))
        loggers.finish({})
    assert said == loggers.warnings == ["logger tensorboard failed and is left out from here on: disk full"]


def test_keys_of_another_logger_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"logger tensorboard takes no uri; it takes folder"):
        parse(LoggerConfig, {"kind": "tensorboard", "uri": "x"}, "recipe")
    with pytest.raises(ConfigError, match="did you mean 'project'"):
        parse(LoggerConfig, {"kind": "mlflow", "projct": "x"}, "recipe")


def test_a_logger_whose_package_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "vqa_train.pipelines.loggers.wandb", raising=False)
    with pytest.raises(DependencyError, match=r"'wandb'.*pip install 'vqa-train\[loggers\]'"):
        open_loggers([LoggerConfig(kind="wandb")], "r", {})


def test_nothing_is_imported_unless_asked_for() -> None:
    code = (
        "import sys\n"
        "from vqa_train.pipelines.loggers.open import open_loggers\n"
        "with open_loggers([], 'r', {}) as loggers:\n"
        "    loggers.on_epoch('a', {'epoch': 1, 'train_loss': 1.0})\n"
        "    loggers.finish({})\n"
        "bad = {'tensorboard', 'mlflow', 'wandb', 'torch'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_params_are_flat_and_long_ones_cut() -> None:
    flat = flatten({"a": {"b": [1, 2], "c": {}}, "d": "x" * 1000})
    assert flat["a.b"] == "[1, 2]"
    assert flat["a.c"] == "{}"
    assert len(flat["d"]) == 250
    assert flat["d"].endswith("…")


RECIPE: dict[str, Any] = {
    "schema": "vqa-train/fit/1",
    "features": {"video": {"set": "fake"}},
    "protocol": "kfold:k=3",
    "train": {"epochs": 4, "patience": None, "ema": None, "validation": {"fraction": 0}, "head": {"hidden": [4]}},
}


def fitted(data: Any, output: Path, loggers: list[dict[str, Any]], **options: Any) -> Any:
    from vqa_train.pipelines.fit import run as pipeline

    return pipeline.fit(
        pipeline.parse_fit_config({**RECIPE, "loggers": loggers}, "recipe"),
        features=data.store, output=output, dataset=str(data.manifest), options=pipeline.FitOptions(**options),
    )  # fmt: skip


def test_a_fit_logs_its_history_and_its_held_out_numbers(labelled_store: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    heard: list[str] = []
    logger = {"kind": "tensorboard", "folder": str(tmp_path / "logs")}
    result = fitted(labelled_store, tmp_path / "run", [logger], on_epoch=lambda name, _: heard.append(name))
    assert len(heard) == 4 * 4
    [folder] = (tmp_path / "logs").iterdir()
    assert folder.name == f"run-{result.record.run_provenance['run_id']}"
    assert [place.split()[0] for place in result.logged_to] == ["tensorboard"]
    events = EventAccumulator(str(folder))
    events.Reload()
    history = json.loads((tmp_path / "run" / "history.json").read_text())["heads"]
    losses = [[epoch["train_loss"] for epoch in head["epochs"]] for head in history]
    logged = {s.step: s.value for s in events.Scalars("median/train_loss")}
    assert logged == pytest.approx({i + 1: float(np.median([loss[i] for loss in losses])) for i in range(4)})
    own = {s.step: s.value for s in events.Scalars("heads/fold-1/head/seed-0/train_loss")}
    [fold] = [head for head in history if head["fold"] == "fold-1"]
    assert own == pytest.approx({epoch["epoch"]: epoch["train_loss"] for epoch in fold["epochs"]})
    [median] = events.Scalars("final/held-out/overall/srocc/median")
    assert median.value == pytest.approx(result.protocol["summary"]["overall"]["srocc"]["median"])
    [training] = events.Scalars("final/train/overall/srocc")
    assert training.value == pytest.approx(result.metrics["train"].result("overall").metrics["srocc"].value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_a_fit_leaves_its_whole_run_folder_in_mlflow(labelled_store: Any, mlflow_uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from vqa_train.pipelines.runs import open_run

    result = fitted(labelled_store, tmp_path / "run", [{"kind": "mlflow", "uri": mlflow_uri}])
    assert result.record.warnings == []
    client = MlflowClient(tracking_uri=mlflow_uri)
    [run] = client.search_runs([client.get_experiment_by_name("vqa-train").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["protocol.k"] == "3"
    assert run.data.metrics["final/heads"] == 4
    (tmp_path / "fetched").mkdir()
    for file in client.list_artifacts(run.info.run_id):
        client.download_artifacts(run.info.run_id, file.path, str(tmp_path / "fetched"))
    assert open_run(tmp_path / "fetched") == result.record


def test_loggers_change_no_file_of_the_run(labelled_store: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    plain = fitted(labelled_store, tmp_path / "plain", [])
    logged = fitted(labelled_store, tmp_path / "logged", [{"kind": "tensorboard", "folder": str(tmp_path / "logs")}])
    assert plain.logged_to == ()
    assert plain.record.files == logged.record.files


def test_a_logger_that_fails_costs_no_fit_and_is_in_the_runs_warnings(
    labelled_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqa_train.pipelines.runs import open_run

    monkeypatch.setattr(LOGGERS, "get", lambda kind: Broken)
    said: list[str] = []
    fitted(labelled_store, tmp_path / "run", [{"kind": "tensorboard"}], warn=said.append)
    assert said == open_run(tmp_path / "run").warnings
    assert said == ["logger tensorboard failed and is left out from here on: disk full"]


def test_a_logger_that_cannot_be_opened_stops_the_fit_before_it_trains(
    labelled_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "vqa_train.pipelines.loggers.wandb", raising=False)
    heard: list[str] = []
    with pytest.raises(DependencyError, match="wandb"):
        fitted(labelled_store, tmp_path / "run", [{"kind": "wandb"}], on_epoch=lambda name, _: heard.append(name))
    assert heard == []
    assert not (tmp_path / "run").exists()


def test_epochs_before_an_interruption_are_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[str, int, float]] = []

    class Kept:
        place = "here"

        def __init__(self, *_: Any) -> None: ...

        def log(self, scalars: Any, step: int) -> None:
            logged.extend((name, step, value) for name, value in scalars.items() if name.endswith("train_loss"))

        def finish(self, metrics: Any, artifacts: Any) -> None: ...

    monkeypatch.setattr(LOGGERS, "get", lambda kind: Kept)
    with open_loggers([LoggerConfig(kind="tensorboard")], "r", {}) as loggers:
        loggers.on_epoch("a", entry(2, 1.0))
        loggers.complete([("a", [entry(1, 3.0), entry(2, 1.0)]), ("b", [entry(1, 5.0)]), ("closed form", [])])
        loggers.finish({})
    assert logged == [
        ("heads/a/train_loss", 2, 1.0), ("heads/a/train_loss", 1, 3.0), ("heads/b/train_loss", 1, 5.0),
        ("median/train_loss", 1, 4.0), ("median/train_loss", 2, 1.0),
    ]  # fmt: skip


def test_a_fit_without_loggers_imports_none(labelled_store: Any, tmp_path: Path) -> None:
    import yaml

    recipe = tmp_path / "plain.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from vqa_train.pipelines.fit.run import fit, load_fit_config\n"
        "recipe, store, dataset, output = sys.argv[1:]\n"
        "fit(load_fit_config(Path(recipe)), features=Path(store), output=Path(output), dataset=dataset)\n"
        "bad = {'tensorboard', 'mlflow', 'wandb', 'torch.utils.tensorboard'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    arguments = [str(recipe), str(labelled_store.store), str(labelled_store.manifest), str(tmp_path / "run")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def test_a_password_does_not_get_into_a_recipe() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        parse(LoggerConfig, {"kind": "mlflow", "uri": "https://me:secret@host/x"}, "recipe")
    parse(LoggerConfig, {"kind": "mlflow", "uri": "https://host/x"}, "recipe")


def test_a_logger_is_told_while_the_fit_trains(
    labelled_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    class Kept:
        place = "here"

        def __init__(self, *_: Any) -> None: ...

        def log(self, scalars: Any, step: int) -> None:
            happened.append("logged")

        def finish(self, metrics: Any, artifacts: Any) -> None: ...

    monkeypatch.setattr(LOGGERS, "get", lambda kind: Kept)
    fitted(labelled_store, tmp_path / "run", [{"kind": "tensorboard"}], on_epoch=lambda *_: happened.append("told"))
    assert happened[:4] == ["told", "logged"] * 2
    assert happened.count("told") == 16
