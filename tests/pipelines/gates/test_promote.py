"""promote: a sound model becomes the champion with its evidence on record; each planted defect holds it, by name."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from vqa_train.core.errors import ConfigError, ModelError, UsageError
from vqa_train.core.files import atomic_write_json
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines import runs
from vqa_train.pipelines.evaluate.model import evaluate_model
from vqa_train.pipelines.gates import promote_runs
from vqa_train.pipelines.gates.config import resolve
from vqa_train.pipelines.gates.corpus import Corpus, CorpusRow, corpus_of_run, leaks
from vqa_train.pipelines.gates.promote import PromoteRequest, Promotion, promote
from vqa_train.pipelines.gates.promote_integrity import _parity
from vqa_train.pipelines.gates.promote_limits import PromoteLimits
from vqa_train.registry.registry import ModelRegistry

EASY = {"min_srocc": 0.8, "max_rmse_share": 0.2}


@dataclass(frozen=True)
class Made:
    """The set, the module that made it, and three versions of `m`: good, of weak features, and a network."""

    release: Any
    module: Any

    @property
    def root(self) -> Path:
        return self.release.root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        module = importlib.import_module("release_set")
    release = module.make_set(tmp_path_factory.mktemp("promote") / "r")
    recipes = {
        "good": {"calibration": {"method": "cross", "level": 0.9, "folds": 5}},
        "weak": {"output": "motion"},
        "network": {"train": module.MLP},
    }
    for name, changes in recipes.items():
        release.register(release.export(release.fit(name, protocol="kfold:k=5", **changes)))
    return Made(release, module)


@pytest.fixture
def registry(made: Made, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made.release.registry, tmp_path / "model"))


@pytest.fixture
def run(made: Made, registry: Path) -> Callable[..., Promotion]:
    """Promote a version; runs are kept between tests, for finished seeds are taken again."""

    def run(model: str, *, dry_run: bool = False, say: Any = None, request: Any = None, **limits: Any) -> Promotion:
        fields = {
            "features": made.release.store,
            "registry": registry,
            "datasets": [str(made.release.manifest)],
            "output": made.root / "promote" / model.replace(":", "-"),
            "dry_run": dry_run,
            **(request or {}),
        }
        wanted = PromoteLimits(**{**EASY, **limits})
        return promote(PromoteRequest(model=model, **fields), wanted, say=say or (lambda _: None))

    return run


def wrong(promotion: Promotion) -> dict[str, str]:
    """Checks that did not pass."""
    return {check.name: check.message for check in promotion.report.checks if check.verdict != "pass"}


def aliases(registry: Path) -> dict[str, str]:
    return ModelRegistry(registry).models()["m"].aliases


def test_a_sound_model_becomes_the_champion(made: Made, registry: Path, run: Callable[..., Promotion]) -> None:
    promotion = run("m:1")
    assert (promotion.decision, promotion.moved, wrong(promotion)) == ("PROMOTE", True, {})
    assert aliases(registry) == {"champion": "1"}
    move = ModelRegistry(registry).models()["m"].moves[-1]
    document = promotion.document
    assert document is not None
    assert (move.by, move.previous, move.evidence) == ("promote", None, sha256_file(document))
    assert document.parent == registry / "m" / "promotions"
    assert document.name == f"1-{sha256_file(document)[:12]}.json"
    assert json.loads(document.read_text())["details"]["decision"] == "PROMOTE"
    # A second time it is the champion already.
    again = run("m:1")
    assert (again.decision, again.moved) == ("PROMOTE", False)


def test_every_number_is_scipys(made: Made, run: Callable[..., Promotion]) -> None:
    details = run("m:1", dry_run=True).report.details
    folder = made.root / "promote" / "m-1" / "seed-0"
    frame = pl.read_parquet(folder / "heldout.parquet")
    per_fold = [
        stats.spearmanr(rows["predicted_overall"], rows["overall"]).statistic for _, rows in frame.group_by("fold")
    ]
    srocc = details["seeds"][0]["metrics"]["overall"]["srocc"]
    assert (srocc["median"], srocc["mean"], srocc["std"]) == pytest.approx(
        (np.median(per_fold), np.mean(per_fold), np.std(per_fold, ddof=1))
    )
    over = details["over_seeds"]["overall"]["srocc"]
    # A ridge has one solution, whatever the seed.
    assert (over["n"], over["std"], over["range"]) == (3, pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert over["median"] == pytest.approx(srocc["median"])


def test_the_corpus_hash_is_what_the_page_says(made: Made, run: Callable[..., Promotion]) -> None:
    run("m:1", dry_run=True)
    corpus = corpus_of_run(made.root / "promote" / "m-1" / "seed-0", ["overall"])
    rows = []
    labels = (made.root / "set" / "labels.csv").read_text().splitlines()[1:]
    for line in labels:
        name, mos, scene = line.split(",")
        video = hashlib.sha256((made.root / "set" / f"{name}.mp4").read_bytes()).hexdigest()
        rows.append(["set", video, scene, [float(np.float32(mos))]])
    value = {"targets": ["overall"], "rows": sorted(rows)}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    moved = Corpus(corpus.targets, dict(reversed(corpus.rows.items())))
    assert moved.sha256 == corpus.sha256


@pytest.mark.parametrize(
    ("limits", "check"),
    [
        ({"min_srocc": 0.999}, "overall.srocc"),
        ({"min_plcc": {"overall": 0.999}}, "overall.plcc"),
        ({"max_rmse_share": 0.01}, "overall.rmse_share"),
        ({"min_folds": 6}, "folds"),
        ({"min_seeds": 4}, "seeds"),
        ({"min_interval_coverage": 0.999}, "overall.interval_coverage"),
    ],
)
def test_each_limit_holds(registry: Path, run: Callable[..., Promotion], limits: dict[str, Any], check: str) -> None:
    promotion = run("m:1", **limits)
    assert promotion.decision == "HOLD"
    assert list(wrong(promotion)) == [check]
    assert aliases(registry) == {}
    assert promotion.document is not None
    assert json.loads(promotion.document.read_text())["details"]["decision"] == "HOLD"


def test_intervals_hold_the_share_that_the_runs_measured(made: Made, run: Callable[..., Promotion]) -> None:
    promotion = run("m:1", dry_run=True, min_interval_coverage=0.5)
    report = json.loads((made.root / "promote" / "m-1" / "seed-0" / runs.CALIBRATION_FILE).read_text())
    found = next(check for check in promotion.report.checks if check.name == "overall.interval_coverage")
    assert (found.verdict, found.value) == ("pass", report["targets"]["overall"]["coverage"])
    uncalibrated = run("m:2", dry_run=True, min_interval_coverage=0.5, **LOOSE)
    assert wrong(uncalibrated) == {"overall.interval_coverage": "the recipe has no calibration"}


def test_a_dry_run_leaves_the_registry_as_it_was(registry: Path, run: Callable[..., Promotion]) -> None:
    before = sorted(path.name for path in (registry / "m").iterdir())
    promotion = run("m:1", dry_run=True)
    assert (promotion.decision, promotion.document, aliases(registry)) == ("PROMOTE", None, {})
    assert sorted(path.name for path in (registry / "m").iterdir()) == before


def test_seeds_that_disagree_hold(run: Callable[..., Promotion]) -> None:
    promotion = run("m:3", min_srocc=0.0, max_rmse_share=1.0, max_seed_spread=0.001)
    assert list(wrong(promotion)) == ["overall.seed_spread"]
    seeds = [tuple(seed["seeds"]) for seed in promotion.report.details["seeds"]]
    assert len(set(seeds)) == 3
    assert seeds[0] == (0,)
    # It is the largest less the smallest of the seeds' medians.
    medians = [seed["metrics"]["overall"]["srocc"]["median"] for seed in promotion.report.details["seeds"]]
    spread = next(check for check in promotion.report.checks if check.name == "overall.seed_spread")
    assert spread.value == pytest.approx(max(medians) - min(medians))


@pytest.fixture
def network_runs(made: Made, run: Callable[..., Promotion], tmp_path: Path) -> list[Path]:
    """The network's three finished runs, copied."""
    run("m:3", dry_run=True)
    source = made.root / "promote" / "m-3"
    return [Path(shutil.copytree(source / f"seed-{n}", tmp_path / f"seed-{n}")) for n in range(3)]


def rewrite(folder: Path, **tables: pl.DataFrame | dict[str, Any]) -> None:
    """Change files of a run, and run.json so that it vouches for them."""
    record = json.loads((folder / runs.RUN_FILE).read_text())
    for stem, value in tables.items():
        name = next(found for found in record["files"] if found.startswith(f"{stem}."))
        if isinstance(value, pl.DataFrame):
            value.write_parquet(folder / name)
        else:
            atomic_write_json(folder / name, value)
        record["files"][name] = sha256_file(folder / name)
    atomic_write_json(folder / runs.RUN_FILE, record)


LOOSE = {"min_srocc": -1.0, "max_rmse_share": 2.0, "max_seed_spread": 2.0}


def test_finished_runs_are_taken(run: Callable[..., Promotion], network_runs: list[Path]) -> None:
    promotion = run("m:3", request={"runs": network_runs}, **LOOSE)
    assert (promotion.decision, wrong(promotion)) == ("PROMOTE", {})


def test_one_seed_that_collapses_holds(run: Callable[..., Promotion], network_runs: list[Path]) -> None:
    """In two of five folds it says the same of everything: the median of the others must not hide it."""
    folder = network_runs[2]
    report = json.loads((folder / runs.PROTOCOL_FILE).read_text())
    collapsed = [fold["name"] for fold in report["folds"][:2]]
    frame = pl.read_parquet(folder / runs.HELD_OUT_FILE).with_columns(
        predicted_overall=pl.when(pl.col("fold").is_in(collapsed))
        .then(3.0)
        .otherwise("predicted_overall")
        .cast(pl.Float32)
    )
    for fold in report["folds"][:2]:
        rows = frame.filter(pl.col("fold") == fold["name"])
        rmse = float(((rows["predicted_overall"] - rows["overall"]) ** 2).mean() ** 0.5)
        fold["metrics"]["overall"] |= {"srocc": None, "plcc": None, "rmse": rmse}
    rewrite(folder, heldout=frame, protocol=report)
    promotion = run("m:3", request={"runs": network_runs}, **LOOSE)
    assert list(wrong(promotion)) == ["overall.undefined", "overall.srocc", "overall.seed_spread"]
    assert "run-2" in wrong(promotion)["overall.undefined"]
    seed = promotion.report.details["seeds"][2]["metrics"]["overall"]["srocc"]
    assert (seed["n"], seed["undefined"]) == (3, 2)


def test_a_tampered_run_holds(run: Callable[..., Promotion], network_runs: list[Path]) -> None:
    path = network_runs[1] / runs.HELD_OUT_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    found = wrong(run("m:3", request={"runs": network_runs}, **LOOSE))
    assert list(found) == ["runs.run-1"]
    assert "sha256" in found["runs.run-1"]


def test_predictions_that_were_made_better_hold_though_the_hashes_fit(
    run: Callable[..., Promotion], network_runs: list[Path]
) -> None:
    frame = pl.read_parquet(network_runs[1] / runs.HELD_OUT_FILE)
    rewrite(network_runs[1], heldout=frame.with_columns(predicted_overall=pl.col("overall")))
    found = wrong(run("m:3", request={"runs": network_runs}, **LOOSE))
    assert "the predictions come to" in found["runs.run-1"]


def test_predictions_of_other_rows_than_the_splits_hold(
    run: Callable[..., Promotion], network_runs: list[Path]
) -> None:
    frame = pl.read_parquet(network_runs[1] / runs.HELD_OUT_FILE)
    rewrite(network_runs[1], heldout=frame.head(len(frame) - 1))
    found = wrong(run("m:3", request={"runs": network_runs}, **LOOSE))
    assert "other rows than its splits say" in found["runs.run-1"]


def test_another_corpus_holds(made: Made, run: Callable[..., Promotion], network_runs: list[Path]) -> None:
    path = network_runs[1] / runs.PREDICTIONS_FILE
    frame = pl.read_parquet(path).with_columns(overall=pl.col("overall") + pl.lit(0.001, pl.Float32))
    rewrite(network_runs[1], predictions=frame)
    found = wrong(run("m:3", request={"runs": network_runs}, **LOOSE))
    assert list(found) == ["runs.corpus"]
    assert "run-1" in found["runs.corpus"]


def test_labels_that_changed_since_the_fit_hold(made: Made, run: Callable[..., Promotion], tmp_path: Path) -> None:
    from vqa_train.datasets.draft import ScanConfig
    from vqa_train.datasets.scan import scan

    root = Path(shutil.copytree(made.root / "set", tmp_path / "set"))
    table = root / "labels.csv"
    lines = table.read_text().splitlines()
    lines[1] = ",".join(["v000", "1.000", "scene0"])
    table.write_text("\n".join(lines) + "\n")
    scan(
        ScanConfig(
            root=root, output=tmp_path / "set.yaml", name="set", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "group": "scene"}, targets={"overall": "overall"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    request = {"datasets": [str(tmp_path / "set.yaml")], "output": tmp_path / "runs"}
    found = wrong(run("m:1", request=request))
    assert list(found) == ["corpus"]
    assert "another manifest or labels than at the fit: set" in found["corpus"]


def test_a_model_measured_on_rows_it_was_fitted_on_holds(
    made: Made, registry: Path, run: Callable[..., Promotion], tmp_path: Path
) -> None:
    """`m` was fitted on all rows by folds; its registered metrics claim the test split."""
    source = made.root / "exported" / "good.onnx"
    metrics = tmp_path / "metrics.json"
    datasets = [str(made.release.manifest)]
    result = evaluate_model(str(source), features=made.release.store, datasets=datasets, resamples=0)
    atomic_write_json(metrics, result.to_json())
    label = made.release.register(source, metrics=metrics, registry=registry)
    found = wrong(run(label))
    assert list(found) == ["integrity.metrics"]
    assert "fitted on the test rows of set too" in found["integrity.metrics"]


def test_splits_whose_groups_straddle_hold(run: Callable[..., Promotion]) -> None:
    found = wrong(run("m:1", protocol="kfold:k=5,by=row"))
    assert list(found) == ["splits.leaks"]
    assert "groups train and test (scene" in found["splits.leaks"]


def test_a_leaking_splits_file_holds(made: Made, run: Callable[..., Promotion], tmp_path: Path) -> None:
    """A file edited by hand: one row of each test part moves into training, and its scene stays behind."""
    run("m:1", dry_run=True)
    plan = json.loads((made.root / "promote" / "m-1" / "seed-0" / runs.SPLITS_FILE).read_text())
    del plan["sha256"]
    for fold in plan["folds"]:
        fold["train"].append(fold["test"].pop(0))
    edited = tmp_path / "splits.json"
    atomic_write_json(edited, plan)
    request = {"output": tmp_path / "runs"}
    assert "splits.leaks" in wrong(run("m:1", protocol=f"file:{edited}", request=request))


def test_leaks_are_by_bytes_too() -> None:
    from vqa_train.datasets.protocols import KFold, PlanFold, PlanRow, SplitPlan

    rows = tuple(PlanRow("set", str(i), None) for i in range(4))
    fold = PlanFold(name="f", train=np.array([0, 1]), test=np.array([2, 3]), validation=np.array([], np.int64))
    plan = SplitPlan(protocol=KFold(), rows=rows, folds=(fold,))

    def corpus(hashes: str, groups: str) -> Corpus:
        return Corpus(("t",), {("set", str(i)): CorpusRow(hashes[i] * 64, groups[i], (1.0,)) for i in range(4)})

    assert leaks(plan, corpus("abcd", "wxyz")) == []
    assert "1 videos train and test" in leaks(plan, corpus("abca", "wxyz"))[0]
    assert "1 groups train and test (w)" in leaks(plan, corpus("abcd", "wxwz"))[0]


def test_a_better_champion_stays(registry: Path, run: Callable[..., Promotion]) -> None:
    assert run("m:1").moved
    promotion = run("m:2", **LOOSE)
    assert list(wrong(promotion)) == ["champion.overall.srocc"]
    assert aliases(registry) == {"champion": "1"}
    leads = promotion.report.details["champion"]["leads"]
    assert len(leads) == 3
    assert all(lead[0]["difference"] < 0 for lead in leads)


def test_a_worse_champion_goes(registry: Path, run: Callable[..., Promotion]) -> None:
    assert run("m:2", **LOOSE).moved
    promotion = run("m:1", champion_require="better")
    assert wrong(promotion) == {}
    assert aliases(registry) == {"champion": "1"}
    assert ModelRegistry(registry).models()["m"].moves[-1].previous == "2"
    # The two recipes were measured on the same held-out rows.
    details = promotion.report.details
    assert {seed["splits_sha256"] for seed in details["champion"]["seeds"]} == {details["splits_sha256"]}


def test_a_champion_that_cannot_be_fitted_again_holds_unless_optional(
    registry: Path, run: Callable[..., Promotion]
) -> None:
    assert run("m:2", **LOOSE).moved
    with (registry / "m" / "2" / "model.json").open("a") as file:
        file.write("\n")
    promotion = run("m:1")
    assert promotion.report.verdict == "not_run"
    assert "sha256" in wrong(promotion)["champion"]
    optional = run("m:1", champion="optional")
    assert (optional.decision, aliases(registry)) == ("PROMOTE", {"champion": "1"})


def test_the_same_recipe_is_not_worse_and_not_better(made: Made, registry: Path, run: Callable[..., Promotion]) -> None:
    assert run("m:1").moved
    label = made.release.register(made.root / "exported" / "good.onnx", license="Apache-2.0", registry=registry)
    assert run(label, dry_run=True).decision == "PROMOTE"
    assert list(wrong(run(label, champion_require="better"))) == ["champion"]


@pytest.mark.parametrize(("file", "check"), [("model.onnx", "integrity.head"), ("README.md", "integrity.card")])
def test_a_flipped_byte_holds(registry: Path, run: Callable[..., Promotion], file: str, check: str) -> None:
    path = registry / "m" / "1" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    promotion = run("m:1")
    assert promotion.decision == "HOLD"
    assert "sha256" in wrong(promotion)[check]
    assert aliases(registry) == {}


def test_a_missing_signature_holds_where_the_policy_asks(run: Callable[..., Promotion], tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need the package cryptography")
    from vqa_train.registry.signature import SecretKey

    key = tmp_path / "release.pub"
    key.write_text(SecretKey.generate().public.to_file())
    found = wrong(run("m:1", require_signature=[str(key)]))
    assert "integrity.signature" in found


def test_a_run_of_another_recipe_holds(made: Made, run: Callable[..., Promotion], network_runs: list[Path]) -> None:
    run("m:1", dry_run=True)
    other = made.root / "promote" / "m-1" / "seed-0"
    found = wrong(run("m:3", request={"runs": [*network_runs[:2], other]}, **LOOSE))
    # And it has the seed of the first.
    assert list(found) == ["runs.recipe", "runs.distinct"]
    assert "run-2" in found["runs.recipe"]


def test_one_run_is_no_three(run: Callable[..., Promotion], network_runs: list[Path]) -> None:
    assert list(wrong(run("m:3", request={"runs": network_runs[:1] * 3}, **LOOSE))) == ["runs.distinct"]


def test_an_interruption_keeps_finished_seeds(
    made: Made, run: Callable[..., Promotion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fitted = promote_runs.fit, []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        fitted.append(options["output"].name)
        if len(fitted) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(promote_runs, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("m:1", request={"output": tmp_path / "runs"})
    first = (tmp_path / "runs" / "seed-0" / runs.RUN_FILE).read_bytes()
    assert run("m:1", request={"output": tmp_path / "runs"}).decision == "PROMOTE"
    assert fitted == ["seed-0", "seed-1", "seed-1", "seed-2"]
    assert (tmp_path / "runs" / "seed-0" / runs.RUN_FILE).read_bytes() == first
    # A kept run that somebody changed is fitted again.
    (tmp_path / "runs" / "seed-0" / runs.METRICS_FILE).write_text("{}")
    assert run("m:1", request={"output": tmp_path / "runs"}).decision == "PROMOTE"
    assert fitted[4:] == ["seed-0"]


def test_nothing_moves_where_the_registry_changed_meanwhile(registry: Path, run: Callable[..., Promotion]) -> None:
    def say(_: str) -> None:
        opened = ModelRegistry(registry)
        with opened.locked():
            opened.move_alias("m", "candidate", "1")

    with pytest.raises(ModelError, match="changed in the registry while it was judged"):
        run("m:1", say=say)
    assert "champion" not in aliases(registry)


def test_further_gates_count(made: Made, run: Callable[..., Promotion], tmp_path: Path) -> None:
    gates = tmp_path / "gates.yaml"
    gates.write_text("schema: vqa-train/gates/1\ncompat: {}\n")
    assert wrong(run("m:1", also=["compat"], request={"gates": gates}, dry_run=True)) == {}
    gates.write_text("schema: vqa-train/gates/1\ncompat: {max_opset: 7}\n")
    promotion = run("m:1", also=["compat"], request={"gates": gates})
    assert list(wrong(promotion)) == ["also.compat"]
    assert promotion.report.details["also"]["compat"]["verdict"] == "fail"


def test_wrong_arguments(run: Callable[..., Promotion], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="target 'overal'.*overall"):
        run("m:1", min_srocc={"overal": 0.5})
    with pytest.raises(ConfigError, match="no folds to measure"):
        run("m:1", protocol="splits")
    with pytest.raises(ConfigError, match="min_sroc"):
        resolve(PromoteLimits, "promote", None, {"min_sroc": 0.5})
    with pytest.raises(ModelError, match="no version '9'"):
        run("m:9")
    with pytest.raises(UsageError, match="no folder"):
        run("m:1", request={"runs": [tmp_path / "absent"]})


def test_the_command(made: Made, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqa_train.cli.main import app

    arguments = [
        "promote", "m:1", "--features", str(made.release.store), "--dataset", str(made.release.manifest), "--registry",
        str(registry), "--gates", "release", "--output", str(made.root / "promote" / "m-1"),
    ]  # fmt: skip
    held = CliRunner().invoke(app, [*arguments, "--seeds", "2"])
    assert held.exit_code == 3
    assert "HOLD (" in held.output
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "PROMOTE: champion is m:1" in done.output
    assert CliRunner().invoke(app, [*arguments, "--runs", "x", "--seeds", "3"]).exit_code != 0

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promote_runs, "fit", interrupted)
    stopped = CliRunner().invoke(app, [*arguments, "--output", str(registry / "other")])
    assert stopped.exit_code == 130
    assert "finished seeds are kept" in stopped.output


def test_a_name_alone_is_the_version_registered_last(registry: Path, run: Callable[..., Promotion]) -> None:
    assert run("m:1").moved
    assert run("m", dry_run=True, seeds=1, champion="optional").report.model == "m:3"


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([1e-7, 2e-7], "pass"),
        ([1e-7, 2e-5], "fail"),
        ([1e-7, math.nan], "fail"),
        ([1e-7, None], "fail"),
        ([], "not_run"),
    ],
)
def test_recorded_parity_holds_with_every_number_there(differences: list[Any], verdict: str) -> None:
    sets = [{"name": "real", "rows": 4, "max_scaled_diff": value} for value in differences]
    assert _parity({"tolerance": 1e-5, "sets": sets}).verdict == verdict
