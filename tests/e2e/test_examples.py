"""The examples under tools/examples do what their headers say, on small real models and without torch."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vqa_train import backbones
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.scoring import Score, Scorer
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureStore

TESTS = Path(__file__).parents[1]
EXAMPLES = TESTS.parent / "tools" / "examples"
WITHOUT_TORCH = """\
import runpy, sys
for name in ("torch", "transformers", "sklearn", "scipy", "onnx", "safetensors", "decord"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PROMPTS = ("a red fox", "grey noise")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


gate_ladder, rank_by_prompt, frames = (load(EXAMPLES / f"{n}.py") for n in ("gate_ladder", "rank_by_prompt", "frames"))
chromium = load(Path(__file__).with_name("chromium.py"))


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def tiny(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    patch.syspath_prepend(TESTS / "registry")
    patch.syspath_prepend(TESTS / "backbones")
    module = importlib.import_module("tiny_model")
    patch.setattr(backbones.BACKBONES, "_builtin", module.BUILTIN)
    patch.setattr(backbones.TEXT_ENCODERS, "_builtin", module.BUILTIN_TEXT)
    root = tmp_path_factory.mktemp("text")
    patch.setenv("VQA_TRAIN_TEXT_MODELS", str(root))
    module.text_folder(root)
    return module


@pytest.fixture(scope="module")
def registry(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sure` has an interval for `overall`, `plain` has none, `prompted` takes a prompt, `pair` a reference."""
    root = tmp_path_factory.mktemp("registry") / "model"
    options: dict[str, dict[str, Any]] = {
        "sure": {"ensemble": True},
        "plain": {},
        "prompted": {"ensemble": True, "text": True},
        "pair": {},
    }
    for name, chosen in options.items():
        path = tiny.export_tiny(root / f"{name}.onnx", **chosen)
        if name == "pair":
            sidecar = json.loads(path.with_suffix(".json").read_text())
            sidecar["inputs"][1]["of"] = "reference"
            path.with_suffix(".json").write_text(json.dumps(sidecar))
        register(
            RegisterConfig(
                model=path, kind="fr" if name == "pair" else "nr", dataset="ladder", license="Apache-2.0",
                train_commit=tiny.COMMIT, registry=root,
            )
        )  # fmt: skip
    return root


@pytest.fixture
def ladder(write_video: Callable[..., Path], tmp_path: Path) -> dict[int, Path]:
    """CRF -> rendition of one scene; names that sort against their bit rate."""
    return {
        crf: write_video(tmp_path / f"{100 - crf}.mp4", frames=12, size=(80, 96), options={"crf": str(crf), "g": "12"})
        for crf in (12, 30, 51)
    }


def without_torch(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", WITHOUT_TORCH, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def call(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of an example's `main`."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    try:
        return int(module.main())
    except SystemExit as ended:
        return int(ended.code or 0)


def scored(video: str, overall: float, **changes: Any) -> Score:
    """A score as it could be, with an interval of half a point to both sides."""
    fields: dict[str, Any] = {
        "video": video, "prompt": None, "scores": {"overall": overall}, "spread": {"overall": None},
        "interval": {"overall": (overall - 0.5, overall + 0.5)}, "level": 0.9, "missing": (),
        "mos_range": {"overall": (1.0, 5.0)}, "expected_range": {"overall": (1.0, 5.0)},
        "direction": "higher_is_better", "model": "m", "version": "1", "model_sha256": "0" * 64, "provider": "cpu",
    }  # fmt: skip
    return Score(**{**fields, **changes})


def test_gate_lets_a_ladder_pass_and_refuses_the_rungs_below_the_limit(registry: Path, ladder: dict[int, Path]) -> None:
    with Scorer("sure", registry=registry) as scorer:
        low = {crf: scorer.score(video).interval["overall"][0] for crf, video in ladder.items()}  # type: ignore[index]
    arguments = ["sure", *reversed(ladder.values()), "--registry", registry, "--least"]
    passed = without_torch("gate_ladder.py", *arguments, min(low.values()) - 0.01)
    assert passed.returncode == 0, passed.stderr
    assert [line.split()[0] for line in passed.stdout.splitlines()[2:5]] == ["88.mp4", "70.mp4", "49.mp4"]
    worst, second, _ = sorted(low, key=low.__getitem__)
    refused = without_torch("gate_ladder.py", *arguments, (low[worst] + low[second]) / 2)
    assert refused.returncode == 3, refused.stderr
    lines = [line for line in refused.stdout.splitlines() if "REFUSED" in line]
    assert [line.split()[0] for line in lines] == [ladder[worst].name]
    assert "2 of 3 renditions pass" in refused.stdout


LOWER: dict[str, Any] = {"direction": "lower_is_better"}
LOW_ENDS: dict[str, Any] = {"interval": {"overall": (0.5, 1.9)}}


@pytest.mark.parametrize(
    ("changes", "above", "refused"),
    [
        ({}, None, None),
        ({"interval": {"overall": (1.9, 3.0)}}, None, "1.90 is beyond 2"),
        ({"interval": {"overall": None}, "scores": {"overall": 1.9}}, None, "1.90 is beyond 2"),
        ({}, 4.1, "1.10 worse than the rung above"),
        ({}, 3.9, None),
        ({}, 1.5, None),
        # Where lower is better, the upper end of the interval counts and the signs turn around.
        (LOWER, None, "3.50 is beyond 2"),
        (LOWER | LOW_ENDS, 1.5, "1.50 worse than the rung above"),
        (LOWER | LOW_ENDS, 4.5, None),
    ],
)
def test_gate_judges_a_rung_by_its_pessimistic_end_and_by_the_rung_above(
    changes: dict[str, Any], above: float | None, refused: str | None
) -> None:
    rung = gate_ladder.judge(scored("a.mp4", 3.0, **changes), above, "overall", 2.0, 1.0)
    assert rung.refused == refused


def test_gate_compares_each_rung_with_the_next_higher_one(registry: Path, ladder: dict[int, Path]) -> None:
    with Scorer("plain", registry=registry) as scorer:
        highest, middle, lowest = (scorer.score(video).scores["overall"] for video in ladder.values())
        drops = [highest - middle, middle - lowest]
        rungs = gate_ladder.gate(
            scorer, list(ladder.values()), source=None, target="overall", least=-99, margin=sum(drops) / 2
        )
    assert [rung.refused is not None for rung in rungs] == [False, drops[0] > drops[1], drops[1] > drops[0]]
    assert drops[0] != drops[1]


def test_gate_refuses_a_file_that_cannot_be_scored(
    registry: Path, ladder: dict[int, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ladder[30].write_bytes(b"no video")
    assert call(gate_ladder, monkeypatch, "plain", *ladder.values(), "--registry", registry, "--least", -99) == 3
    out = capsys.readouterr().out
    assert "REFUSED: " in next(line for line in out.splitlines() if line.startswith("70.mp4"))
    assert "2 of 3 renditions pass" in out


def test_gate_compares_with_the_source_where_the_model_is_full_reference(
    registry: Path, ladder: dict[int, Path], write_video: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source = write_video(tmp_path / "in" / "source.mp4", frames=12, size=(80, 96), options={"crf": "0"}, seed=3)
    arguments = ["pair", *ladder.values(), "--registry", registry, "--least", -99]
    assert call(gate_ladder, monkeypatch, *arguments) == 2
    assert "give the pristine video with --source" in capsys.readouterr().err
    assert call(gate_ladder, monkeypatch, *arguments, "--source", source) == 0
    lines = capsys.readouterr().out.splitlines()[2:5]
    with Scorer("pair", registry=registry) as scorer:
        expected = [scorer.score(video, reference=source).scores["overall"] for video in ladder.values()]
    assert [float(line.split()[3]) for line in lines] == pytest.approx(expected, abs=0.006)
    assert call(gate_ladder, monkeypatch, "plain", *arguments[1:], "--source", source) == 2


def test_rank_orders_the_clips_of_each_prompt_by_score(
    registry: Path, write_video: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    names = [f"{prompt.replace(' ', '_')}__{seed}.mp4" for prompt in PROMPTS for seed in range(3)]
    for seed, name in enumerate(names):
        write_video(folder / name, frames=10, size=(80, 96), options={"crf": str(12 + 7 * seed)}, seed=seed)
    (folder / "grey_noise__broken.mp4").write_bytes(b"no video")
    done = without_torch("rank_by_prompt.py", "prompted", folder, "--registry", registry)
    assert done.returncode == 4, done.stderr
    assert "no score: " in done.stderr and "grey_noise__broken.mp4" in done.stderr
    blocks = {block.splitlines()[0]: block.splitlines()[1:] for block in done.stdout.strip().split("\n\n")}
    with Scorer("prompted", registry=registry) as scorer:
        for prompt in PROMPTS:
            mine = [name for name in names if rank_by_prompt.prompt_of(Path(name)) == prompt]
            scores = {name: scorer.score(folder / name, prompt).scores["overall"] for name in mine}
            assert len(scores) == 3
            assert [line.split()[-1] for line in blocks[prompt]] == sorted(scores, key=scores.__getitem__, reverse=True)
    assert "90% of people's scores" in done.stdout


def test_rank_marks_what_is_too_close_to_call_and_takes_a_table_of_prompts(tmp_path: Path) -> None:
    clips = [scored(n, s, prompt="p") for n, s in (("a", 3.0), ("b", 4.5), ("c", 4.0), ("d", 1.9), ("e", 1.9))]
    rows = rank_by_prompt.rank(clips, "overall")["p"]
    assert [(row.rank, row.video, row.close) for row in rows] == [
        (1, "b", False), (2, "c", True), (3, "a", True), (4, "d", False), (5, "e", True)
    ]  # fmt: skip
    lower = [scored(clip.video, clip.scores["overall"], prompt="p", direction="lower_is_better") for clip in clips]
    assert [row.video for row in rank_by_prompt.rank(lower, "overall")["p"]] == ["d", "e", "a", "c", "b"]
    table = tmp_path / "prompts.csv"
    table.write_text('video,prompt\nx.mp4,"a fox, red"\n')
    (request,) = rank_by_prompt.requests_in(tmp_path, table)
    assert (request.video, request.prompt) == (tmp_path / "x.mp4", "a fox, red")


def test_rank_refuses_a_model_without_prompts_and_a_table_without_columns(
    registry: Path, ladder: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert call(rank_by_prompt, monkeypatch, "plain", tmp_path, "--registry", registry) == 2
    assert "takes no prompts" in capsys.readouterr().err
    (tmp_path / "p.csv").write_text("file,text\n")
    assert call(rank_by_prompt, monkeypatch, "prompted", tmp_path, "--prompts", tmp_path / "p.csv") == 1
    assert "expected video and prompt" in capsys.readouterr().err


@pytest.fixture
def store(tiny: ModuleType, ladder: dict[int, Path], tmp_path: Path) -> FeatureStore:
    """Features of the ladder, as extraction commits them."""
    from vqa_train.video.decode import read_clips

    store, backbone = FeatureStore(tmp_path / "store"), tiny.TinyBackbone()
    store.create()
    features = store.create_set(backbone.spec, license="MIT")
    rows = []
    for video in ladder.values():
        (clips,) = read_clips(video, [backbone.spec.sampling])
        outputs = backbone.extract(clips)
        rows += [
            FeatureRow(key=sha256_file(video), view=view, outputs=o, facts=clip.facts())
            for view, (o, clip) in enumerate(zip(outputs, clips, strict=True))
        ]
    features.append(rows, profile={"decoder": "pyav"}, run_id="a" * 32)
    return store


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_frames_hold_the_scores_and_the_features(
    library: str, registry: Path, ladder: dict[int, Path], store: FeatureStore, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip(library)
    from vqa_train.cli.main import main

    for form in ("csv", "json"):
        words = [*ladder.values(), "--model", "plain", "--registry", registry, "--format", form]
        monkeypatch.setattr(
            sys, "argv", ["vqa-train", "score", *map(str, words), "--output", str(tmp_path / f"scores.{form}")]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        frame = frames.READERS[library][f".{form}"](tmp_path / f"scores.{form}")
        column = "scores.overall" if (library, form) == ("pandas", "json") else "overall"
        with Scorer("plain", registry=registry) as scorer:
            expected = [scorer.score(video).scores["overall"] for video in ladder.values()]
        assert list(frame["video"]) == [str(video) for video in ladder.values()]
        assert list(frame[column]) == pytest.approx(expected, abs=1e-5)
    (features,) = store.sets()
    frame = frames.READERS[library]["features"](features.folder)
    stored = {
        (k, int(v)): np.asarray(p)
        for k, v, p in zip(frame["video_sha256"], frame["view"], frame["pooled"], strict=True)
    }
    assert len(stored) == 6
    for (key, view), row in stored.items():
        np.testing.assert_array_equal(row, features.matrix("pooled", [key], view=view)[0])
    words = [tmp_path / "scores.csv", "--features", features.folder, "--with", library]
    assert call(frames, monkeypatch, *words) == 0
    assert "6 rows of features" in capsys.readouterr().out


@pytest.fixture(scope="module")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """node_modules of the page's package.json."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    shutil.copy(EXAMPLES / "browser" / "package.json", folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"onnxruntime-web cannot be had: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = chromium.find_chromium()
    if executable is None:
        pytest.skip("no browser: none of chromium, google-chrome is on the PATH")
    with chromium.chromium(executable) as found:
        yield found


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def page(
    npm: Path, registry: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, str]]:
    """The page with its data/, and the address where it is served."""
    folder = tmp_path / "browser"
    shutil.copytree(EXAMPLES / "browser", folder, ignore=shutil.ignore_patterns("node_modules", "data"))
    (folder / "node_modules").symlink_to(npm)
    export = load(folder / "export_vector.py")
    assert call(export, monkeypatch, "sure", store.root, "--registry", registry, "--output", folder / "data") == 0
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


FINISHED = """
new Promise(done => {
  const root = document.documentElement, look = () => root.dataset.state && done(root.dataset.state);
  new MutationObserver(look).observe(root, {attributes: true});
  look();
})
"""


def visit(browser: Any, url: str, width: int = 1000) -> str:
    """Open the page and wait until it says how it ended."""
    browser.events.clear()
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.send("Emulation.setDeviceMetricsOverride", size)
    browser.send("Page.navigate", {"url": url})
    browser.wait_for("Page.loadEventFired")
    answer = browser.send("Runtime.evaluate", {"expression": FINISHED, "awaitPromise": True, "returnByValue": True})
    return str(answer["result"]["value"])


def test_the_page_shows_what_onnxruntime_says_in_python(browser: Any, page: tuple[Path, str], registry: Path) -> None:
    folder, url = page
    assert visit(browser, url) == "done", browser.evaluate("document.querySelector('#status').textContent")
    rows = browser.evaluate("[...document.querySelectorAll('tbody tr')].map(r => ({...r.dataset}))")
    vector = json.loads((folder / "data" / "vector.json").read_text())
    inputs = {name: np.array([given["values"]], np.float32) for name, given in vector["inputs"].items()}
    outputs = OnnxModel(registry / "sure" / "1" / "model.onnx").run(inputs)
    assert [row["target"] for row in rows] == ["overall", "temporal"]
    assert [float(row["score"]) for row in rows] == pytest.approx(outputs["scores"][0].tolist(), abs=1e-4)
    low, high = map(float, rows[0]["interval"].split())
    assert (low, high) == pytest.approx((outputs["low"][0, 0], outputs["high"][0, 0]), abs=1e-4)
    assert "interval" not in rows[1]  # not bounded
    checks = browser.evaluate("[...document.querySelectorAll('#checks li')].map(e => e.textContent)")
    assert len(checks) == 7 and all(text.startswith("passed") for text in checks)
    external = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
        and not event["params"]["request"]["url"].startswith((url, "data:"))
    ]
    assert external == []
    assert visit(browser, url, width=320) == "done"
    assert browser.evaluate("document.documentElement.scrollWidth") == 320
    messages = [e for e in browser.events if e.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert messages == []


def flip_head(data: Path) -> str:
    graph = bytearray((data / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (data / "model.onnx").write_bytes(graph)
    return "sha256 of the head"


def edit_sidecar(data: Path) -> str:
    text = (data / "model.json").read_text()
    (data / "model.json").write_text(text.replace('"higher_is_better"', '"lower_is_better"'))
    return "sha256 of the sidecar"


def other_features(data: Path) -> str:
    vector = json.loads((data / "vector.json").read_text())
    vector["inputs"]["motion"]["fingerprint"] = "0" * 64
    (data / "vector.json").write_text(json.dumps(vector))
    return "fingerprint of the features motion"


def swap_outputs(data: Path) -> str:
    """A forger who makes the hashes fit: the graph now gives the targets in another order than when registered."""
    sidecar = json.loads((data / "model.json").read_text())
    sidecar["golden_rows"]["scores"] = [row[::-1] for row in sidecar["golden_rows"]["scores"]]
    (data / "model.json").write_text(json.dumps(sidecar))
    (data / "registered.json").write_text(json.dumps({"sidecar_sha256": sha256_file(data / "model.json")}))
    return "golden rows"


@pytest.mark.parametrize("damage", [flip_head, edit_sidecar, other_features, swap_outputs])
def test_the_page_refuses_what_does_not_fit(
    browser: Any, page: tuple[Path, str], damage: Callable[[Path], str]
) -> None:
    folder, url = page
    what = damage(folder / "data")
    assert visit(browser, url) == "refused"
    assert what in browser.evaluate("document.querySelector('#status').textContent")
    assert browser.evaluate("document.querySelector('#scores').hidden")
    assert browser.evaluate("document.querySelectorAll('#checks .bad').length") == 1
