"""The machine a benchmark ran on: processor, cores, memory, versions; no host name and no paths."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from vqa_train.core.provenance import package_versions


def describe_machine() -> dict[str, Any]:
    """Facts for the benchmark's JSON."""
    cpuinfo = Path("/proc/cpuinfo")
    model = platform.processor() or platform.machine()
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def markdown_machine(machine: dict[str, Any]) -> str:
    """One paragraph for the benchmark's page."""
    wanted = ("numpy", "torch", "onnxruntime", "av", "decord", "pyarrow", "scikit-learn", "scipy")
    versions = ", ".join(f"{name} {machine['packages'][name]}" for name in wanted if name in machine["packages"])
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}, {versions}. A shared virtual machine: quote medians and ratios."
    )
