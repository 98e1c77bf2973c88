"""Extracts features of thousands of damaged videos: the run must end, with a row or a reason for every one of them.

Usage: python tools/bench/soak_videos.py [--videos 2000] [--seed 0] [--workers 2] [--keep DIR] [--output docs/benchmarks]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import describe_machine, markdown_machine
from mutated_videos import CODECS, FRAMES, MUTATIONS, SIZE, Mutated, encode_clips, mutated_videos

from vqa_train.core.files import atomic_write_bytes, atomic_write_json
from vqa_train.core.hashing import sha256_bytes
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.scan import scan
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

TIMEOUT_S = 20


def write_dataset(root: Path, videos: Sequence[Mutated], clips: dict[tuple[str, str], bytes]) -> tuple[Path, list[str]]:
    """The damaged videos, and each undamaged clip as a control; the manifest and their ids, in order."""
    folder = root / "data"
    folder.mkdir(parents=True)
    names = [f"{i:05d}.{video.container}" for i, video in enumerate(videos)]
    for name, video in zip(names, videos, strict=True):
        (folder / name).write_bytes(video.data)
    for (codec, container), data in clips.items():
        (folder / f"whole-{codec}.{container}").write_bytes(data)
        names.append(f"whole-{codec}.{container}")
    labels = "id,path,mos\n" + "".join(f"{name},{name},3\n" for name in names)
    (folder / "labels.csv").write_text(labels, encoding="utf-8")
    manifest = root / "data.yaml"
    scan(
        ScanConfig(
            root=folder, output=manifest, name="data", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "path": "path"}, targets={"q": "mos"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    return manifest, names


def extract(manifest: Path, store: Path, workers: int) -> tuple[int, dict[str, Any], str]:
    """Run the command; exit code, report, what it said."""
    report = store.parent / "report.json"
    report.unlink(missing_ok=True)
    command = [
        str(Path(sys.executable).parent / "vqa-train"), "extract-features", "--dataset", str(manifest),
        "--backbone", "nss", "--output", str(store), "--workers", str(workers),
        "--video-timeout", str(TIMEOUT_S), "--video-timeout-max", str(TIMEOUT_S), "--json", str(report),
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return done.returncode, found, done.stderr


def soak(root: Path, count: int, seed: int, workers: int) -> dict[str, Any]:
    """Extract, account for every input, verify, run again; ends the program at the first thing that is wrong."""
    (root / "clips").mkdir(parents=True)
    clips = encode_clips(root / "clips")
    videos = mutated_videos(clips, count, seed)
    manifest, names = write_dataset(root, videos, clips)
    keys = [sha256_bytes(video.data) for video in videos] + [sha256_bytes(data) for data in clips.values()]
    started = time.monotonic()
    code, report, said = extract(manifest, root / "store", workers)
    seconds = time.monotonic() - started
    if code not in (0, 4) or not report:
        sys.exit(f"the run ended with exit code {code}: {said[-500:]}")
    features = FeatureStore.open(root / "store").find("nss")
    rows = features.read(columns=["video_sha256"])["video_sha256"].to_pylist()
    failures = {failure.id: failure for failure in features.failures()}
    what = {}
    for name, key in zip(names, keys, strict=True):
        if (key in features.known_keys()) == (name in failures):
            sys.exit(f"{name} has both a row and a failure, or neither")
        what[name] = str(failures[name].reason) if name in failures else "features"
    if len(rows) != len(set(rows)) or len(rows) + len(failures) != len(names) or len(set(keys)) != len(names):
        sys.exit(f"{len(rows)} rows ({len(set(rows))} distinct) and {len(failures)} failures of {len(names)} inputs")
    broken = [name for name in names[count:] if what[name] != "features"]
    if broken:
        sys.exit(f"undamaged clips without features: {broken}")
    problems = verify(root / "store").problems
    if problems:
        sys.exit(f"store verify: {problems[0]}")
    again, second, _ = extract(manifest, root / "store", workers)
    counts = second["sets"][0]
    if (again, counts["done"], counts["left"], sum(counts["failed"].values())) != (code, 0, 0, 0):
        sys.exit(f"a second run found something to do: exit code {again}, {counts}")
    return {
        "videos": count, "controls": len(clips), "seed": seed, "exit_code": code, "seconds": round(seconds, 1),
        "rows": len(rows), "failures": len(failures), "unexplained": 0, "crashes_of_the_run": 0,
        "retried": report["retried"], "recovered": report["recovered"],
        "outcomes": dict(Counter(what[name] for name in names[:count]).most_common()),
        "by_codec": _table(videos, what, lambda video: video.codec, list(CODECS)),
        "by_mutation": _table(videos, what, lambda video: video.mutation, list(MUTATIONS)),
    }  # fmt: skip


def _table(videos: Sequence[Mutated], what: dict[str, str], kind: Any, kinds: list[str]) -> dict[str, dict[str, int]]:
    counts = {name: Counter[str]() for name in kinds}
    for video, outcome in zip(videos, what.values(), strict=False):
        counts[kind(video)][outcome] += 1
    return {name: dict(counter) for name, counter in counts.items()}


def page(result: dict[str, Any], machine: dict[str, Any], workers: int) -> str:
    """The benchmark's page."""
    outcomes = list(result["outcomes"])

    def table(title: str, rows: dict[str, dict[str, int]]) -> str:
        lines = [f"| {title} | videos | " + " | ".join(outcomes) + " |", "|---" * (len(outcomes) + 2) + "|"]
        for name, counts in rows.items():
            cells = " | ".join(str(counts.get(outcome, 0)) for outcome in outcomes)
            lines.append(f"| {name} | {sum(counts.values())} | {cells} |")
        return "\n".join(lines)

    return f"""# Damaged videos

`python tools/bench/soak_videos.py --videos {result["videos"]} --seed {result["seed"]} --workers {workers}`: clips of {FRAMES} frames of {SIZE[0]}x{SIZE[1]},
encoded on the spot, damaged in {len(MUTATIONS)} ways ({", ".join(MUTATIONS)}), no two files alike, and the {result["controls"]} undamaged clips, through
`vqa-train extract-features --backbone nss`.

| inputs | rows | failures with a reason | unexplained | crashes of the run | ended their process, tried again | of them done then | seconds |
|---|---|---|---|---|---|---|---|
| {result["videos"] + result["controls"]} | {result["rows"]} | {result["failures"]} | {result["unexplained"]} | {result["crashes_of_the_run"]} | {result["retried"]} | {result["recovered"]} | {result["seconds"]} |

The script ends with an error unless every input has either one row or one failure, every undamaged clip has its row, `store verify` is clean,
and a second run finds nothing to do. "features": the damage left a video that decodes as its container promises, or hit bytes that mean nothing.

{table("codec", result["by_codec"])}

{table("damage", result["by_mutation"])}

{markdown_machine(machine)}
"""


def main() -> None:
    """Parse, soak, write soak_videos.md and .json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, help="make videos and store in this folder, which must not exist, and keep them"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    if options.keep:
        result = soak(options.keep, options.videos, options.seed, options.workers)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = soak(Path(folder), options.videos, options.seed, options.workers)
    machine = describe_machine()
    schema = {"schema": "vqa-train/soak-videos/1", "machine": machine}
    atomic_write_json(options.output / "soak_videos.json", {**schema, **result})
    atomic_write_bytes(options.output / "soak_videos.md", page(result, machine, options.workers).encode())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
