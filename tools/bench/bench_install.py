"""The base install from nothing: its size by package, no torch in it, and a bundle that scores a 720p clip from a cold start.

Usage: python tools/bench/bench_install.py [--clip CLIP.mp4] [--runs 9] [--output docs/benchmarks] [--check]
Makes an empty virtual environment, runs `pip install -c constraints.txt .` in it, and lets its own `vqa-score` take a bundle that
`vqa-train models export-bundle` wrote here. --check exits with 3 where a limit is exceeded or a package is there that must not be.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_cli import make_known, make_model, timed
from machine import describe_machine, markdown_machine
from made_video import write_made_video

from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.pipelines.models.export import export_bundle

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB, LIMIT_S = 400.0, 3.0
ABSENT = ("torch", "transformers", "sklearn", "scipy", "onnx", "safetensors", "pyarrow", "polars", "pandas")
# What an empty environment brings, and no part of the install.
BROUGHT = {"pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"}
SIZES = """
import json, sys, sysconfig
from importlib.metadata import distributions
found = {}
for d in distributions(path=[sysconfig.get_path("purelib")]):
    files = [p for p in (d.locate_file(f) for f in d.files or ()) if p.is_file()]
    found[d.metadata["Name"]] = {"version": d.version, "bytes": sum(p.stat().st_size for p in files)}
print(json.dumps(found))
"""
SPENT = "import sys, time; t = time.perf_counter(); import vqa_train.scoring; print(time.perf_counter() - t)"


def install(folder: Path) -> tuple[Path, float]:
    """The interpreter of a new environment with the base install, and the seconds that pip took."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    started = time.monotonic()
    subprocess.run([*command, "-c", str(ROOT / "constraints.txt"), str(ROOT)], check=True)
    return python, time.monotonic() - started


def sizes(python: Path, folder: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Version and bytes by package, largest first, and the bytes of everything installed, compiled Python included."""
    done = subprocess.run([str(python), "-c", SIZES], capture_output=True, text=True, check=True)
    packages = {name: facts for name, facts in json.loads(done.stdout).items() if name not in BROUGHT}
    (site,) = folder.glob("lib/python*/site-packages")
    parts = [part for part in site.iterdir() if part.name.partition("-")[0] not in BROUGHT]
    whole = sum(
        f.lstat().st_size for part in parts for f in ([part] if part.is_file() else part.rglob("*")) if f.is_file()
    )
    return dict(sorted(packages.items(), key=lambda item: -item[1]["bytes"])), whole


def importable(python: Path) -> list[str]:
    """Those of `ABSENT` that the environment has."""
    code = f"import importlib.util, json; print(json.dumps([n for n in {ABSENT!r} if importlib.util.find_spec(n)]))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def cold_starts(python: Path, root: Path, clip: Path, runs: int) -> list[dict[str, Any]]:
    """Whole processes of the installed command, each scoring the clip."""
    archive, folder = root / "bench.tar.zst", root / "bundle"
    for output in (archive, folder):
        export_bundle("bench", output, root / "model")
    score = [str(python.parent / "vqa-score"), str(clip), "--format", "json", "--model"]
    done = subprocess.run([*score, str(folder)], capture_output=True, text=True, check=True, cwd=root)
    scores = json.loads(done.stdout)["results"][0]["scores"]
    before, started = os.times(), time.monotonic()
    subprocess.run([*score, str(archive)], capture_output=True, check=True, cwd=root)
    first, after = time.monotonic() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    once = {"median_s": first, "min_s": first, "max_s": first, "cpu_s": cpu}
    return [
        {"what": "an interpreter that does nothing", **timed([str(python), "-c", "pass"], runs)},
        {"what": "an interpreter that imports `vqa_train.scoring`", **timed([str(python), "-c", SPENT], runs)},
        {"what": "one 720p clip, a folder bundle", "scores": scores, **timed([*score, str(folder)], runs)},
        {"what": "one 720p clip, a `.tar.zst` bundle", "scores": scores, **timed([*score, str(archive)], runs)},
        {"what": "the same, the first time: the bundle is unpacked", **once},
    ]


def page(found: dict[str, Any], machine: dict[str, Any], runs: int) -> str:
    """The benchmark's page."""
    mb = 1e-6
    total = found["bytes"] * mb
    large = [(n, p) for n, p in found["packages"].items() if p["bytes"] * mb >= 1]
    rest = total - sum(p["bytes"] * mb for _, p in large)
    lines = [
        "# The base install", "",
        f"Made by `tools/bench/bench_install.py`. {markdown_machine(machine)}", "",
        f"`pip install -c constraints.txt .` into an empty environment: **{total:.0f} MB** (asked for: at most {LIMIT_MB:.0f}) in {len(found['packages'])} packages,",
        f"without pip's and setuptools' own, with compiled Python. Not in it: {', '.join(n for n in ABSENT if n not in found['unwanted'])}.", "",
        "| package | version | MB |", "|---|---|---|",
        *(f"| {name} | {p['version']} | {p['bytes'] * mb:.1f} |" for name, p in large),
        f"| {len(found['packages']) - len(large)} others, and what no package lists | | {rest:.1f} |", "",
        "## From nothing to a score", "",
        f"Whole processes of that environment's `vqa-score`, a made 720p clip of {found['clip_s']:.0f} s (30 fps, H.264), a model over `nss`; {runs} runs each",
        "after one that is not counted. A new process each time; the disk is warm. CPU: user and system seconds of the last run, all threads.",
        f"Load of the machine at the end, on {machine['cores']} cores: {os.getloadavg()[0]:.1f}; where it is above the cores, read the CPU column.", "",
        "| | median, s | lowest | highest | CPU, s | asked for |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in found["starts"]:
        asked = f"<= {LIMIT_S:.0f} s" if r["what"].startswith("one 720p clip") else ""
        lines.append(
            f"| {r['what']} | **{r['median_s']:.2f}** | {r['min_s']:.2f} | {r['max_s']:.2f} | {r['cpu_s']:.2f} | {asked} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="a 720p clip (default: a made one of 10 s)")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--output", type=Path, help="folder for install.md and install.json")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["VQA_TRAIN_CACHE"] = str(root / "cache")
        clip = options.clip.resolve() if options.clip else write_made_video(root / "clip.mp4", seconds=10.0)
        make_model(root, *make_known(root, 60))
        python, seconds = install(root / "venv")
        packages, whole = sizes(python, root / "venv")
        found = {
            "packages": packages, "bytes": whole, "install_s": seconds, "unwanted": importable(python),
            "clip_s": clip_seconds(clip), "starts": cold_starts(python, root, clip, options.runs),
        }  # fmt: skip
    machine = describe_machine()
    text = page(found, machine, options.runs)
    print(text)
    if options.output:
        limits = {"mb": LIMIT_MB, "cold_start_s": LIMIT_S}
        document = {"schema": "vqa-train/bench-install/1", "machine": machine, "limits": limits, **found}
        atomic_write_json(options.output / "install.json", document)
        atomic_write_bytes(options.output / "install.md", text.encode())
    slow = [r for r in found["starts"] if r["what"].startswith("one 720p clip") and r["median_s"] > LIMIT_S]
    return 3 if options.check and (whole > LIMIT_MB * 1e6 or slow or found["unwanted"]) else 0


def clip_seconds(clip: Path) -> float:
    """Length of the clip."""
    import av

    with av.open(str(clip)) as container:
        return float(container.duration or 0) / 1e6


if __name__ == "__main__":
    sys.exit(main())
