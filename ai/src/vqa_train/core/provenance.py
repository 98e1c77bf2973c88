"""run_provenance: the block that says where a durable artefact came from."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vqa_train.core.files import display_path
from vqa_train.core.hashing import sha256_file, sha256_json

PROVENANCE_SCHEMA = "vqa-train/run-provenance/1"

_PACKAGES = (
    "vqa-train",
    "numpy",
    "torch",
    "onnx",
    "onnxruntime",
    "av",
    "decord",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "pyarrow",
    "polars",
    "scikit-learn",
    "scipy",
)
_SECRET = re.compile(r"(?i)(token|secret|password|passwd|api[-_]?key|credential|authorization)")
_SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{8,}|AKIA[0-9A-Z]{12,}|ghp_[A-Za-z0-9]{20,})\b")
# In a query of a URL or an assignment; a plural (tokens=...) names features.
_SECRET_PAIR = re.compile(
    r"(?i)((?<![A-Za-z0-9])(?:[A-Za-z0-9]+[-_.])*"
    r"(?:token|secret|password|passwd|api[-_]?key|access[-_]key|credential|signature|authorization|sig)=)[^&\s]+"
)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s:]+:[^/@\s]+(?=@)")


def redact(text: str) -> str:
    """`text` without the home folder's path, URL logins, signatures and values that look like access tokens."""
    text = _SECRET_PAIR.sub(r"\1***", _URL_LOGIN.sub("***", _SECRET_VALUE.sub("***", text)))
    home = str(Path.home())
    return text.replace(home, "~") if home not in ("", "/") else text


def redact_argv(argv: Sequence[str]) -> list[str]:
    """Arguments with the values of secret-looking flags replaced by ***."""
    redacted: list[str] = []
    hide_next = False
    for argument in argv:
        name, equals, _ = argument.partition("=")
        if hide_next:
            redacted.append("***")
            hide_next = False
        elif name.startswith("-") and _SECRET.search(name):
            redacted.append(f"{name}=***" if equals else name)
            hide_next = not equals
        else:
            redacted.append(redact(argument))
    return redacted


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change numbers."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit and dirtiness of the git checkout around `folder` (the working folder), None outside one."""
    cwd = folder or Path.cwd()
    try:
        commit = _git(cwd, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(cwd, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(cwd: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def file_entry(path: Path, kind: str) -> dict[str, Any]:
    """`{path, kind, sha256, bytes}` of an input or output file."""
    return {
        "path": display_path(path),
        "kind": kind,
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
    }


def new_run_id(entrypoint: str) -> str:
    """Sortable and unique: UTC time, entrypoint, random suffix."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{entrypoint}-{uuid.uuid4().hex[:8]}"


@dataclass
class RunProvenance:
    """Collects what a run was, read and wrote; `to_json` gives the block.

    Attributes:
        entrypoint: the command, e.g. "extract-features".
        config: the resolved configuration as JSON values (defaults filled in).
        device: what computed, e.g. "cpu" or "cuda:NVIDIA H200".
        seeds: name -> seed.
        inputs, outputs: name -> {path, kind, sha256, bytes}.
        counts: inputs, done, and failed by reason code.
    """

    entrypoint: str
    config: Mapping[str, Any]
    device: str = "cpu"
    seeds: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    argv: Sequence[str] = field(default_factory=lambda: list(sys.argv))
    run_id: str = ""
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.run_id = self.run_id or new_run_id(self.entrypoint)

    def to_json(self) -> dict[str, Any]:
        """The block, with the duration up to now."""
        return {
            "schema": PROVENANCE_SCHEMA,
            "run_id": self.run_id,
            "entrypoint": self.entrypoint,
            "argv": redact_argv(self.argv),
            "config": dict(self.config),
            "config_sha256": sha256_json(dict(self.config)),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "git": git_state(),
            "packages": package_versions(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "device": self.device,
            "seeds": self.seeds,
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "duration_s": round(time.time() - self.started, 3),
            "counts": self.counts,
        }
