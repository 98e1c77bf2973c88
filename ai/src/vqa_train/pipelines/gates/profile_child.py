"""Measures one graph, or the whole path from a video to its scores, in the process that it is the program of.

Run as `python -m vqa_train.pipelines.gates.profile_child` with a job as JSON on stdin; the result is JSON on stdout.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

_STARTED = time.perf_counter()
_WARM_UP_RUNS = 50


def main() -> None:
    """Run the job on stdin."""
    job = json.load(sys.stdin)
    result = _video(job) if job["kind"] == "video" else _head(job)
    sys.stdout.write(json.dumps(result))


def peak_rss() -> int | None:
    """Largest resident memory of this process so far, in bytes; None where the system does not tell.

    On Linux it is VmHWM, which begins anew with the program; ru_maxrss there is that of the process that started this
    one where that was larger. On macOS it is ru_maxrss.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _head(job: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from vqa_train.onnx.runtime import OnnxModel

    imported = time.perf_counter()
    base = peak_rss()
    head = OnnxModel(Path(job["path"]), expected_sha256=job["sha256"], threads=job["threads"])
    loaded = time.perf_counter()
    with np.load(job["rows"]) as archive:
        rows = {name: archive[name] for name in archive.files}
    one = {name: array[:1] for name, array in rows.items()}
    for _ in range(_WARM_UP_RUNS):
        head.run(one)
    latency = np.empty(job["runs"])
    for i in range(len(latency)):
        started = time.perf_counter_ns()
        head.run(one)
        latency[i] = (time.perf_counter_ns() - started) / 1e3
    small = peak_rss()
    throughput = {str(batch): _rows_per_s(head, rows, batch, job["seconds"]) for batch in job["batches"]}
    p50, p95, p99 = np.percentile(latency, [50, 95, 99])
    return {
        "import_s": imported - _STARTED,
        "load_s": loaded - imported,
        "latency_us": {
            "runs": len(latency),
            "min": float(latency.min()),
            "p50": float(p50),
            "p95": float(p95),
            "p99": float(p99),
        },
        "rows_per_s": throughput,
        "rss_bytes": {"imports": base, "one_row": small, "peak": peak_rss()},
    }


def _rows_per_s(head: Any, rows: dict[str, Any], batch: int, seconds: float) -> float:
    """From the median time of a batch, over at least five runs and `seconds`."""
    import numpy as np

    inputs = {name: np.ascontiguousarray(array[np.arange(batch) % len(array)]) for name, array in rows.items()}
    head.run(inputs)
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        started = time.perf_counter()
        head.run(inputs)
        times.append(time.perf_counter() - started)
    return float(batch / np.median(times))


def _video(job: dict[str, Any]) -> dict[str, Any]:
    from vqa_train.pipelines.score.scorer import Scorer

    imported = time.perf_counter()
    with Scorer(job["model"], registry=Path(job["registry"]), threads=job["threads"], provider="cpu") as scorer:
        opened = time.perf_counter()
        times = []
        for _ in range(1 + job["warm_runs"]):
            started = time.perf_counter()
            scorer.score(job["video"], job["prompt"], job["reference"])
            times.append(time.perf_counter() - started)
    return {
        "import_s": imported - _STARTED,
        "open_s": opened - imported,
        "first_s": times[0],
        "warm_s": times[1:],
        "rss_bytes": {"peak": peak_rss()},
    }


if __name__ == "__main__":
    main()
