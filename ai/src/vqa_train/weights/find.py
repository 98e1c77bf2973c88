"""Finds the files of an entry on this machine, without any network, and verifies every byte before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Literal

from vqa_train.core.errors import WeightsError
from vqa_train.core.files import display_path
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_file
from vqa_train.weights.manifest import WeightsEntry, WeightsFile, weights_entry
from vqa_train.weights.pins import Pin, Pins, new_pin

Place = Literal["given", "weights folder", "package", "Hugging Face cache"]
_PINNED = ("weights folder", "Hugging Face cache")


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where files of an entry are, or would be.

    Attributes:
        place: which kind of place.
        folder: the folder that holds them.
        files: manifest path -> path on this machine.
    """

    place: Place
    folder: Path
    files: Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """Files whose bytes are what the manifest and the pins say.

    Attributes:
        entry: what the manifest says.
        location: where they are.
        sha256: of each file, by manifest path.
    """

    entry: WeightsEntry
    location: Location
    sha256: Mapping[str, str]

    @property
    def checkpoint(self) -> Path:
        """The file that holds the tensors."""
        return self.location.files[self.entry.checkpoint.path]

    @property
    def checkpoint_sha256(self) -> str:
        """Identity of the weights."""
        return self.sha256[self.entry.checkpoint.path]


def find_weights(entry: WeightsEntry | str, override: Path | None = None) -> FoundWeights:
    """The verified files of an entry: of `override`, else of the first place that has its checkpoint.

    Hashes are remembered while a file's stat stays the same, so a second call reads nothing. A hash that the manifest
    does not know is recorded at the first call and enforced by later ones. `override` is hashed and compared with
    nothing: other weights than the published ones are meant, and their hash stands in the features' fingerprint.

    Args:
        entry: an entry of the manifest, or its name.
        override: a file (the checkpoint) or a folder with all files.

    Raises:
        UsageError: no entry of that name.
        WeightsError: missing or incomplete (names the file, the places and the command that fetches it), or other
            bytes than the manifest or the pin says.
    """
    if isinstance(entry, str):
        entry = weights_entry(entry)
    location = locate(entry, override)
    pins = Pins()
    with HashCache() as cache:
        hashes = verify_files(entry, location, pins.of(entry.name), cache)
    unknown = {file.path for file in entry.files if file.sha256 is None} - pins.of(entry.name).keys()
    if unknown and location.place in _PINNED:
        fresh = {p: new_pin(hashes[p], location.files[p].stat().st_size, str(entry.source)) for p in unknown}
        # A folder that cannot be written cannot keep pins; the hash still stands in the fingerprint.
        with suppress(OSError):
            pins.record(entry.name, fresh)
    return FoundWeights(entry=entry, location=location, sha256=hashes)


def locate(entry: WeightsEntry, override: Path | None = None) -> Location:
    """Where the files of `entry` are, unverified.

    Raises:
        WeightsError: nowhere, or the place that has the checkpoint lacks another file.
    """
    location = present(entry, override)
    if location is not None:
        refuse_incomplete(entry, location)
        return location
    candidates = [given(entry, override)] if override is not None else list(places(entry))
    looked = ", ".join(repr(str(c.files[entry.checkpoint.path])) for c in candidates)
    package = f" or `{entry.package.install}`" if entry.package else ""
    raise WeightsError(
        f"weights {entry.name!r} not found: no {entry.checkpoint.path}; looked for {looked}",
        hint=f"fetch with `vqa-train weights pull {entry.name}`{package}; "
        f"without a network `vqa-train weights add {entry.name} PATH`",
    )


def present(entry: WeightsEntry, override: Path | None = None) -> Location | None:
    """`override`, else the first place, if it has the checkpoint; other files may be missing there."""
    candidates = iter([given(entry, override)]) if override is not None else places(entry)
    return next((c for c in candidates if c.files[entry.checkpoint.path].is_file()), None)


def refuse_incomplete(entry: WeightsEntry, location: Location) -> None:
    """Does nothing where all files are there.

    Raises:
        WeightsError: names the first that is missing.
    """
    for name, path in location.files.items():
        if not path.is_file():
            raise WeightsError(
                f"weights {entry.name!r}: {str(location.folder)!r} has no {name}",
                hint=f"it must hold all of {', '.join(file.path for file in entry.files)}",
            )


def places(entry: WeightsEntry) -> Iterator[Location]:
    """Every place that is looked at, in order: the weights folder, the Python package, the Hugging Face cache."""
    yield home(entry)
    if entry.package is not None:
        spec = find_spec(entry.package.module)
        if spec is not None and spec.origin is not None:
            yield _in_folder("package", Path(spec.origin).parent / entry.package.folder, entry)
    if entry.source.repo is not None:
        yield from _hub_cache(entry, entry.source.repo)


def home(entry: WeightsEntry) -> Location:
    """The entry's own folder in the weights folder."""
    return _in_folder("weights folder", Pins().folder / entry.name, entry)


def verify_files(
    entry: WeightsEntry, location: Location, pins: Mapping[str, Pin], cache: HashCache | None
) -> dict[str, str]:
    """The sha256 of every file, by manifest path, after comparing it with the manifest and the pins, unless given.

    Args:
        cache: remembers hashes by stat; None reads every byte.

    Raises:
        WeightsError: the first file that differs, with both values and how to accept or mend it.
    """
    hashes = {}
    for file in entry.files:
        if file.path not in location.files:
            continue
        path = location.files[file.path]
        try:
            hashes[file.path] = cache.sha256(path) if cache is not None else sha256_file(path)
        except OSError as error:
            raise WeightsError(
                f"weights {entry.name!r}: {str(path)!r} cannot be read: {error.strerror or error}"
            ) from error
        if location.place != "given":
            # A package is versioned by its own means: other files than the checkpoint may differ from the hub's.
            pin = pins.get(file.path) if location.place in _PINNED else None
            _compare(entry, file, path, hashes[file.path], pin)
    return hashes


def _compare(entry: WeightsEntry, file: WeightsFile, path: Path, found: str, pin: Pin | None) -> None:
    where = f"weights {entry.name!r}: {str(path)!r} has sha256 {found}"
    if file.sha256 is not None and found != file.sha256:
        raise WeightsError(
            f"{where}, the manifest says {file.sha256}",
            hint=f"fetch the right file with `vqa-train weights pull {entry.name}`",
        )
    if file.sha256 is None and pin is not None and found != pin.sha256:
        raise WeightsError(
            f"{where}, at first use ({pin.when}, from {pin.source}) it was {pin.sha256}",
            hint=f"to get that one again `vqa-train weights pull {entry.name}`; "
            f"to accept the change `vqa-train weights add {entry.name} {display_path(path)} --force`",
        )


def given(entry: WeightsEntry, path: Path) -> Location:
    """A folder with all files, or the checkpoint alone."""
    if path.is_dir():
        return _in_folder("given", path, entry)
    return Location(place="given", folder=path.parent, files={entry.checkpoint.path: path})


def _in_folder(place: Place, folder: Path, entry: WeightsEntry) -> Location:
    return Location(place=place, folder=folder, files={file.path: folder / file.path for file in entry.files})


def _hub_cache(entry: WeightsEntry, repo: str) -> Iterator[Location]:
    """The cached snapshot of the entry's repository, or the cache folder where it would be."""
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ModuleNotFoundError:
        return
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    cached = try_to_load_from_cache(repo, entry.checkpoint.path, revision=entry.source.revision)
    if isinstance(cached, str):
        folder = Path(cached).parents[len(PurePosixPath(entry.checkpoint.path).parts) - 1]
    yield _in_folder("Hugging Face cache", folder, entry)
