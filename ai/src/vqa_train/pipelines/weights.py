"""What the `weights` commands do: list, pull, verify and add, as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ExitCode, GateFailedError, VqaError
from vqa_train.core.files import display_path
from vqa_train.core.hashcache import HashCache
from vqa_train.core.progress import progress
from vqa_train.core.provenance import redact
from vqa_train.weights.add import add
from vqa_train.weights.download import Retries
from vqa_train.weights.manifest import WeightsEntry, known_weights, weights_entry
from vqa_train.weights.pins import weights_dir
from vqa_train.weights.pull import pull
from vqa_train.weights.status import Status, status

LIST_SCHEMA = "vqa-train/weights-list/1"
PULL_SCHEMA = "vqa-train/weights-pull/1"
VERIFY_SCHEMA = "vqa-train/weights-verify/1"
ADD_SCHEMA = "vqa-train/weights-add/1"
_MB = 1_000_000


def list_weights() -> dict[str, Any]:
    """Every entry of the manifest, with what is here of it.

    Raises:
        ConfigError: the manifest or the lock file is damaged.
    """
    entries = known_weights().values()
    with HashCache() as cache, progress("looking", len(entries)) as advance:
        found = []
        for entry in entries:
            found.append(_facts(status(entry, cache)))
            advance()
    return {"schema": LIST_SCHEMA, "folder": display_path(weights_dir()), "weights": found}


def verify_weights(names: Sequence[str] = ()) -> dict[str, Any]:
    """Read every byte of the named weights, or of all that are here, and compare; `ok` says whether all are right.

    Raises:
        UsageError: an unknown name.
        ConfigError: the manifest or the lock file is damaged.
    """
    entries = [weights_entry(name) for name in names] or list(known_weights().values())
    with progress("verifying", len(entries)) as advance:
        found = []
        for entry in entries:
            found.append(_facts(status(entry, None)))
            advance()
    if not names:
        found = [facts for facts in found if facts["state"] != "missing"]
    return {"schema": VERIFY_SCHEMA, "ok": all(facts["state"] == "present" for facts in found), "weights": found}


def pull_weights(
    names: Sequence[str], *, retries: Retries | None = None, log: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], ExitCode]:
    """Fetch the named weights; one that fails does not stop the others.

    Raises:
        UsageError: an unknown name; nothing is fetched then.
    """
    entries = [weights_entry(name) for name in dict.fromkeys(names)]
    results = []
    for entry in entries:
        result: dict[str, Any] = {"name": entry.name, "state": "failed", "license": entry.license, "error": None}
        try:
            result |= _pull(entry, retries)
        except (VqaError, OSError) as error:
            result["error"] = redact(str(error))
            log(f"failed: {entry.name}: {result['error']}")
        results.append(result)
    failed = sum(result["state"] == "failed" for result in results)
    code = ExitCode.DONE if not failed else ExitCode.ERROR if failed == len(results) else ExitCode.SOME_INPUTS_FAILED
    return {"schema": PULL_SCHEMA, "weights": results}, code


def add_weights(name: str, path: Path, *, force: bool = False) -> dict[str, Any]:
    """Take a local file or folder over.

    Raises:
        UsageError: an unknown name.
        WeightsError: as `weights.add.add`.
        DependencyError: torch is not installed.
    """
    added = add(weights_entry(name), path, count_tensors=_count_tensors, force=force)
    return {
        "schema": ADD_SCHEMA,
        "name": name,
        "path": display_path(added.found.location.folder),
        "files": dict(added.found.sha256),
        "tensors": added.tensors,
        "replaced_pins": list(added.changed),
        "license": added.found.entry.license,
        "commercial_use": added.found.entry.commercial_use,
    }


def _pull(entry: WeightsEntry, retries: Retries | None) -> dict[str, Any]:
    sizes = [file.bytes for file in entry.files]
    total = sum(size or 0 for size in sizes) // _MB if sizes[0] is not None else None
    arrived = 0
    with progress(f"{entry.name} (MB)", total) as advance:

        def count(size: int) -> None:
            nonlocal arrived
            advance((arrived + size) // _MB - arrived // _MB)
            arrived += size

        found, fetched = pull(entry, retries=retries, advance=count)
    return {
        "state": "pulled" if fetched else "present",
        "place": found.location.place,
        "path": display_path(found.location.folder),
        "files": dict(found.sha256),
        "bytes_fetched": arrived,
    }


def _count_tensors(path: Path) -> int:
    try:
        from vqa_train.backbones.checkpoint import read_checkpoint
    except ModuleNotFoundError as error:
        from vqa_train.core.errors import DependencyError

        raise DependencyError(
            f"reading {str(path)!r} needs the package {error.name!r}, which is not installed",
            hint="pip install 'vqa-train[backbones]'",
        ) from error
    return len(read_checkpoint(path))


def _facts(found: Status) -> dict[str, Any]:
    entry = found.entry
    checkpoint = entry.checkpoint.path
    return {
        "name": entry.name,
        "state": found.state,
        "place": found.location.place if found.location else None,
        "path": display_path(found.location.folder) if found.location else None,
        "bytes": found.bytes if found.location else entry.checkpoint.bytes,
        "license": entry.license,
        "commercial_use": entry.commercial_use,
        "license_checked": entry.license_checked,
        "pinned_sha256": found.pinned.get(checkpoint),
        "pinned_by": ("manifest" if entry.checkpoint.sha256 else "first use") if checkpoint in found.pinned else None,
        "files": {file.path: found.sha256.get(file.path) for file in entry.files},
        "source": str(entry.source),
        "citation": entry.citation,
        "error": redact(found.error) if found.error else None,
    }


def refuse_changed(report: dict[str, Any]) -> None:
    """Does nothing for a `verify_weights` report that is ok.

    Raises:
        GateFailedError: names what differs.
    """
    wrong = [facts["name"] for facts in report["weights"] if facts["state"] != "present"]
    if wrong:
        raise GateFailedError(
            f"{len(wrong)} of {len(report['weights'])} weights are not as they should be: {', '.join(wrong)}"
        )
