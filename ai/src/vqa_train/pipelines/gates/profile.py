"""profile: how fast and how large a model is, measured in fresh processes, held against limits where there are any."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.files import confined, display_path
from vqa_train.pipelines.gates.golden import golden_inputs
from vqa_train.pipelines.gates.model import GateModel, open_model, provenance_of
from vqa_train.pipelines.gates.result import Check, GateReport

Job = Mapping[str, Any]
Measure = Callable[[Job], dict[str, Any]]

_CHILD = "vqa_train.pipelines.gates.profile_child"
_COLD_RUNS = 3
_MEGABYTE = 1e6


class ProfileLimits(StrictModel):
    """The gate file's section `profile`; None for no limit. A megabyte is a million bytes.

    Attributes:
        max_p50_us, max_p95_us, max_p99_us: microseconds for one row, with the first number of threads.
        min_rows_per_s: the best of all batches and threads.
        max_rss_mb: peak resident memory of a process that runs the head alone.
        max_size_mb: files of the model: head, backbones, tokenizers.
        max_load_s: opening the head, hash included; the slowest of the processes.
        max_cold_s, max_warm_s: a video from the start of a process, and with everything open.
        max_video_rss_mb: peak resident memory of a process that scores the video.
    """

    max_p50_us: float | None = Field(default=None, gt=0)
    max_p95_us: float | None = Field(default=None, gt=0)
    max_p99_us: float | None = Field(default=None, gt=0)
    min_rows_per_s: float | None = Field(default=None, gt=0)
    max_rss_mb: float | None = Field(default=None, gt=0)
    max_size_mb: float | None = Field(default=None, gt=0)
    max_load_s: float | None = Field(default=None, gt=0)
    max_cold_s: float | None = Field(default=None, gt=0)
    max_warm_s: float | None = Field(default=None, gt=0)
    max_video_rss_mb: float | None = Field(default=None, gt=0)


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """What to measure.

    Attributes:
        model: reference of a registered model or an exported ONNX file.
        batches: rows at once, for the throughput.
        threads: of onnxruntime; the first is that of the latency.
        runs: of one row.
        seconds: at least, for each batch.
        video: clip for the whole path, with its prompt and reference where the model takes them.
        warm_runs: of the video after the first.
    """

    model: str
    batches: Sequence[int] = (1, 8, 64, 512)
    threads: Sequence[int] = (1, 2)
    runs: int = 2000
    seconds: float = 0.3
    video: Path | None = None
    prompt: str | None = None
    reference: Path | None = None
    warm_runs: int = 5
    registry: Path = Path("model")


def in_fresh_process(job: Job) -> dict[str, Any]:
    """Measure a job in a process of its own; `wall_s` is from its start to its end.

    Raises:
        ModelError: the process failed; says what it said last.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", _CHILD], input=json.dumps(dict(job)), capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - started
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(f"measuring {job['model']!r} failed: {last[:300]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return {**result, "wall_s": wall}


def profile(config: ProfileConfig, limits: ProfileLimits, *, measure: Measure = in_fresh_process) -> GateReport:
    """Measure a model and hold the numbers against the limits.

    Args:
        measure: job -> numbers; a process of its own for each.

    Raises:
        UsageError: no batches or threads, or a video for a model that is not registered.
        ModelError: the model is missing or changed, or a measurement failed.
    """
    if not config.batches or not config.threads or min([*config.batches, *config.threads, config.runs]) < 1:
        raise UsageError("batches, threads and runs must be numbers from 1 on")
    found = open_model(config.model, config.registry)
    if config.video is not None and not found.sidecar.registered:
        raise UsageError(f"model {found.label!r} is not registered, so it cannot score a video", hint="register it")
    settings = {"batches": list(config.batches), "threads": list(config.threads), "runs": config.runs}
    provenance = provenance_of("profile", found, {**settings, **limits.model_dump()})
    heads = _measure_heads(config, found, measure)
    video = None if config.video is None else _measure_video(config, found, config.video, measure)
    sizes = _sizes(found)
    return GateReport(
        gate="profile",
        model=found.label,
        model_sha256=found.sidecar.onnx.sha256,
        checks=_checks(limits, config, heads, video, sizes),
        details={"machine": _machine(), "head": heads, "video": video, "bytes": sizes},
        provenance=provenance.to_json(),
    )


def _measure_heads(config: ProfileConfig, found: GateModel, measure: Measure) -> dict[str, dict[str, Any]]:
    """Number of threads -> what the child says."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        with rows.open("wb") as handle:
            np.savez(handle, **golden_inputs(found.sidecar))  # type: ignore[arg-type]  # numpy takes names as keywords
        job = {
            "kind": "head",
            "model": found.label,
            "path": str(found.head),
            "sha256": found.sidecar.onnx.sha256,
            "rows": str(rows),
            "batches": list(config.batches),
            "runs": config.runs,
            "seconds": config.seconds,
        }
        return {str(threads): measure({**job, "threads": threads}) for threads in config.threads}


def _measure_video(config: ProfileConfig, found: GateModel, video: Path, measure: Measure) -> dict[str, Any]:
    """Medians of several processes; what is warm is the first one's."""
    name = found.sidecar.name if found.registry is None else f"{found.sidecar.name}:{found.sidecar.version}"
    job = {
        "kind": "video",
        "model": name,
        "registry": str(found.registry),
        "threads": 0,
        "video": str(video),
        "prompt": config.prompt,
        "reference": None if config.reference is None else str(config.reference),
    }
    runs = [measure({**job, "warm_runs": 0 if i else config.warm_runs}) for i in range(_COLD_RUNS)]
    warm = [float(value) for value in runs[0]["warm_s"]]
    # The first process also did the warm runs.
    cold = [run["wall_s"] - sum(run["warm_s"]) for run in runs]
    return {
        "video": display_path(video),
        "cold_s": statistics.median(cold),
        "warm_s": statistics.median(warm) if warm else None,
        **{name: statistics.median(run[name] for run in runs) for name in ("import_s", "open_s", "first_s")},
        "peak_rss_bytes": _largest([run["rss_bytes"]["peak"] for run in runs]),
    }


def _sizes(found: GateModel) -> dict[str, int]:
    """Every file of the model that scoring opens, by name, in bytes."""
    sizes = {"head": found.head.stat().st_size}
    for name, item in found.backbones.items():
        path = found.backbone_file(item)
        sizes[name] = item.backbone_onnx.bytes if item.backbone_onnx is not None else path.stat().st_size
        if item.tokenizer is not None:
            sizes[f"{name} tokenizer"] = confined(found.head.parent, item.tokenizer.file).stat().st_size
    return {**sizes, "all": sum(sizes.values())}


def _checks(
    limits: ProfileLimits,
    config: ProfileConfig,
    heads: Mapping[str, dict[str, Any]],
    video: Mapping[str, Any] | None,
    sizes: Mapping[str, int],
) -> list[Check]:
    first = str(config.threads[0])
    row = f"one row, {first} thread{'s' * (first != '1')}"
    latency = heads[first]["latency_us"]
    rows_per_s = max(value for head in heads.values() for value in head["rows_per_s"].values())
    peak = _largest([head["rss_bytes"]["peak"] for head in heads.values()])
    whole: Mapping[str, Any] = video or {}
    found: dict[str, tuple[float | None, str]] = {
        "max_p50_us": (latency["p50"], row),
        "max_p95_us": (latency["p95"], row),
        "max_p99_us": (latency["p99"], row),
        "min_rows_per_s": (rows_per_s, "the best of all batches and threads"),
        "max_rss_mb": (_megabytes(peak), "peak of a process with the head alone"),
        "max_size_mb": (_megabytes(sizes["all"]), "head, backbones and tokenizers"),
        "max_load_s": (max(head["load_s"] for head in heads.values()), "the head, hash included"),
        "max_cold_s": (whole.get("cold_s"), "a video, from the start of a process"),
        "max_warm_s": (whole.get("warm_s"), "a video, everything open"),
        "max_video_rss_mb": (
            _megabytes(whole.get("peak_rss_bytes")),
            "peak of a process with the video",
        ),
    }
    checks = []
    for name, (value, message) in found.items():
        limit = getattr(limits, name)
        if limit is None:
            continue
        label = name.partition("_")[2]
        if value is None:
            untold = name == "max_rss_mb" or (name == "max_video_rss_mb" and video is not None)
            why = "this system does not tell the peak memory of a process" if untold else "there is no --video"
            checks.append(Check.not_run(label, why))
        elif name.startswith("min"):
            checks.append(Check.at_least(label, value, limit, message))
        else:
            checks.append(Check.at_most(label, value, limit, message))
    return checks or [Check.passed("limits", "no limits were given: measured only")]


def _largest(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _megabytes(value: int | None) -> float | None:
    return None if value is None else value / _MEGABYTE


def _machine() -> dict[str, Any]:
    return {"processor": _processor(), "cores": os.cpu_count(), "platform": platform.platform()}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
