"""Fetches what an entry lacks into its folder, verified, and pins what was not known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from vqa_train.core.errors import WeightsError
from vqa_train.core.hashing import sha256_file
from vqa_train.weights.download import RemoteFile, Retries, download
from vqa_train.weights.find import FoundWeights, find_weights, home
from vqa_train.weights.hub import hub_files
from vqa_train.weights.manifest import WeightsEntry, WeightsFile
from vqa_train.weights.pins import Pins, new_pin


def pull(
    entry: WeightsEntry,
    *,
    retries: Retries | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[FoundWeights, int]:
    """The verified files of `entry` and how many of them were fetched; 0 when all were here already.

    A file in the weights folder that is not what it was is fetched anew, and must be what it was.

    Raises:
        WeightsError: cannot be fetched, or is not what the manifest or the pin says.
        DependencyError: huggingface_hub is needed and not installed.
        OSError: the weights folder cannot be written.
    """
    try:
        return find_weights(entry), 0
    except WeightsError:
        pass  # missing, incomplete or changed: that is what is mended here
    retries = retries or Retries()
    pins, place = Pins(), home(entry)
    known = pins.of(entry.name)
    wanted = [
        file.model_copy(update={"sha256": file.sha256 or (known[file.path].sha256 if file.path in known else None)})
        for file in entry.files
    ]
    lacking = [file for file in wanted if not _is_there(file, place.files[file.path])]
    for file, remote in zip(lacking, _remote_files(entry, lacking, retries), strict=True):
        target = place.files[file.path]
        found = download(remote, target, retries=retries, advance=advance)
        # At once, so that an interruption before the next file leaves nothing unpinned.
        pins.record(entry.name, {file.path: new_pin(found, target.stat().st_size, remote.source)})
    return find_weights(entry), len(lacking)


def _is_there(file: WeightsFile, path: Path) -> bool:
    return path.is_file() and file.sha256 in (None, sha256_file(path))


def _remote_files(entry: WeightsEntry, files: list[WeightsFile], retries: Retries) -> Iterator[RemoteFile]:
    url = entry.source.url
    if url is None:
        yield from hub_files(entry, files, retries)
    else:
        for file in files:
            yield RemoteFile(url=url, source=url, sha256=file.sha256, bytes=file.bytes)
