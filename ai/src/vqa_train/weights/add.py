"""Takes a local file or folder into the weights folder, once it is known to be readable and to be the right one."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vqa_train.core.errors import WeightsError
from vqa_train.core.files import atomic_write, fsync_dir
from vqa_train.core.hashing import sha256_file
from vqa_train.weights.find import FoundWeights, Location, given, home
from vqa_train.weights.manifest import WeightsEntry
from vqa_train.weights.pins import Pins, new_pin

LOCAL = "local file"


@dataclass(frozen=True, kw_only=True)
class Added:
    """What `add` did.

    Attributes:
        found: the files in the weights folder.
        tensors: in the checkpoint.
        changed: files whose pin was replaced.
    """

    found: FoundWeights
    tensors: int
    changed: tuple[str, ...]


def add(entry: WeightsEntry, path: Path, *, count_tensors: Callable[[Path], int], force: bool = False) -> Added:
    """Copy (or hard-link, where that works) the files of `entry` from `path` and pin them.

    Args:
        path: a folder with all files of the entry; or, where it has one, that file under any name.
        count_tensors: reads the checkpoint and raises WeightsError where it is none.
        force: accept other bytes than were pinned at first use; never other than the manifest says.

    Raises:
        WeightsError: missing, unreadable, not a checkpoint, or not the bytes that the manifest or a pin says.
        OSError: the weights folder cannot be written.
    """
    source = _source(entry, path)
    tensors = count_tensors(source.files[entry.checkpoint.path])
    pins = Pins()
    known = pins.of(entry.name)
    hashes = {name: sha256_file(file) for name, file in source.files.items()}
    changed = []
    for file in entry.files:
        found = hashes[file.path]
        where = f"weights {entry.name!r}: {str(source.files[file.path])!r} has sha256 {found}"
        if file.sha256 is not None and found != file.sha256:
            raise WeightsError(
                f"{where}, the manifest says {file.sha256}", hint="it is another release, or damaged: fetch it again"
            )
        if file.sha256 is None and file.path in known and known[file.path].sha256 != found:
            if not force:
                raise WeightsError(
                    f"{where}, at first use ({known[file.path].when}) it was {known[file.path].sha256}",
                    hint="add --force to accept the change; features of both differ in their fingerprint",
                )
            changed.append(file.path)
    target = home(entry)
    for name, origin in source.files.items():
        _place(origin, target.files[name])
    fresh = {n: new_pin(hashes[n], target.files[n].stat().st_size, LOCAL) for n in source.files}
    pins.record(entry.name, fresh, replace=True)
    found_now = FoundWeights(entry=entry, location=target, sha256=hashes)
    return Added(found=found_now, tensors=tensors, changed=tuple(changed))


def _source(entry: WeightsEntry, path: Path) -> Location:
    if not path.exists():
        raise WeightsError(f"{str(path)!r} does not exist")
    names = ", ".join(file.path for file in entry.files)
    if path.is_file():
        if len(entry.files) > 1:
            raise WeightsError(f"weights {entry.name!r} are a folder with {names}, got the file {str(path)!r}")
        kind = Path(entry.checkpoint.path).suffix
        if path.suffix != kind:
            raise WeightsError(f"weights {entry.name!r} are a {kind} file, got {str(path)!r}")
    location = given(entry, path)
    for file in location.files.values():
        if not file.is_file():
            raise WeightsError(f"{str(path)!r} has no {file.name}", hint=f"it must hold all of {names}")
    return location


def _place(source: Path, target: Path) -> None:
    if target.exists() and source.samefile(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        os.link(source.resolve(), temporary)
    except OSError:  # another file system, or one without links
        with source.open("rb") as data:
            atomic_write(target, lambda handle: shutil.copyfileobj(data, handle, 1 << 20))
        return
    temporary.replace(target)
    fsync_dir(target.parent)
