"""The main job on made data: renders a labelled ladder, runs every command of the chain on it, shows the scores."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

from vqa_train.core.provenance import git_state

ROOT = Path(__file__).resolve().parents[1]
DEMO = Path("demo")
BIN = Path(sys.executable).parent
SCENES, SECONDS, SIZE = 9, 2.0, "384x216"


def run(*arguments: object) -> float:
    """Show a command, run it, stop the demo where it fails; returns its seconds."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ {shlex.join(words)}", flush=True)
    started = time.monotonic()
    done = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit(f"the demo stopped: this command ended with exit code {done.returncode}")
    return time.monotonic() - started


def git_commit() -> str:
    """The commit that trained the model, or "unknown" outside a checkout."""
    state = git_state(ROOT)
    return str(state["commit"]) if state else "unknown"


def main() -> None:
    """Every step of the chain, each a command that a user could type."""
    ladder, store, run_dir, model = DEMO / "ladder", DEMO / "store", DEMO / "run", DEMO / "model"
    manifest = ladder / "manifest.yaml"
    print("vqa-train demo: distortion ladders of made scenes, labelled with a full-reference pseudo_mos (1-5).")
    print("A head learns it from no-reference features; the test scenes are ones it has never seen.")
    seconds = {
        "make the ladder": run(
            "vqa-train", "datasets", "make-ladder", "--output", ladder,
            "--scenes", SCENES, "--seconds", SECONDS, "--size", SIZE,
        ),
        "extract features": run(
            "vqa-train", "extract-features", "--dataset", manifest, "--backbone", "nss", "--text", "minilm",
            "--output", store,
        ),
        "extract again": run(
            "vqa-train", "extract-features", "--dataset", manifest, "--backbone", "nss", "--text", "minilm",
            "--output", store,
        ),
        "verify the store": run("vqa-train", "store", "verify", store),
        "fit": run(
            "vqa-train", "fit", "--config", "ai/configs/nss-mlp.yaml", "--dataset", manifest, "--features", store,
            "--output", run_dir, "--overwrite",
        ),
        "export": run("vqa-train", "export", "--checkpoint", run_dir, "--output", DEMO / "ladder.onnx"),
        "eval": run(
            "vqa-train", "eval", "--model", DEMO / "ladder.onnx", "--dataset", manifest, "--features", store,
            "--json", DEMO / "eval.json", "--predictions", DEMO / "predictions.csv",
        ),
        "register": run(
            "vqa-train", "register", "--model", DEMO / "ladder.onnx", "--kind", "nr", "--dataset", "ladder",
            "--license", "Apache-2.0", "--train-commit", git_commit(), "--metrics", DEMO / "eval.json",
            "--registry", model, "--version", "1", "--overwrite",
        ),
    }  # fmt: skip
    test = held_out_ladder(manifest)
    seconds["score"] = run("vqa-score", f"@{test}", "--model", "ladder", "--registry", model)
    print("\nseconds by step: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    print(f"in all {sum(seconds.values()):.0f} s. Open:")
    print(f"  {DEMO}/model/ladder/1/README.md  the model's card: what it is for, licences, metrics, limits")
    print(f"  {DEMO}/predictions.csv         every test clip: pseudo_mos beside the prediction")
    print(f"  {DEMO}/ladder/videos/          the clips themselves")
    print(f"  {DEMO}/run/run.json            where every number came from")


def held_out_ladder(manifest: Path) -> Path:
    """A list file with one distortion ladder of a scene that training never saw, best first."""
    from vqa_train.datasets.load import load_dataset

    dataset = load_dataset(str(ROOT / manifest))
    held_out = [video for video in dataset.videos if video.split == "test"]
    scene = min(video.group or "" for video in held_out)
    chosen = [v for v in held_out if v.group == scene and v.attributes["kind"] in ("pristine", "blur", "x264")]
    chosen.sort(key=lambda video: -video.labels["pseudo_mos"])
    path = ROOT / DEMO / "held_out.txt"
    path.write_text("".join(f"{manifest.parent / video.path}\n" for video in chosen), encoding="utf-8")
    return path.relative_to(ROOT)


if __name__ == "__main__":
    main()
