"""A registry behind a URL that fsspec knows; those who write it at once do not lose each other's models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vqa_train.core import remote
from vqa_train.core.errors import ModelError
from vqa_train.core.files import confined
from vqa_train.core.hashing import sha256_bytes
from vqa_train.pipelines.models.export import registry_bytes
from vqa_train.pipelines.models.parts import Part
from vqa_train.pipelines.models.remotes import (
    ATTEMPTS,
    MOST_REGISTRY_BYTES,
    Change,
    Contents,
    MissingFileError,
    Models,
    in_order,
    parse_registry,
    refuse_size,
    wait,
    with_version,
)
from vqa_train.registry.cache import LARGE_BYTES
from vqa_train.registry.entries import RegistryEntry
from vqa_train.registry.registry import REGISTRY_FILE
from vqa_train.registry.sidecar import SIDECAR_FILE

if TYPE_CHECKING:
    from upath import UPath


@dataclass(frozen=True)
class UrlRegistry:
    """What lies behind a URL that fsspec knows.

    On S3 registry.json is put on the condition that nobody changed it since it was read. Elsewhere it is read again
    after it was written; and whoever writes it takes up the versions whose sidecar is there and that it does not name,
    so that of two that wrote at once none is lost.
    """

    root: UPath

    @property
    def address(self) -> str:
        """The URL."""
        return str(self.root)

    @property
    def _conditional(self) -> bool:
        return self.root.protocol in ("s3", "s3a")

    def read(self) -> Contents:
        """See `Remote`."""
        path = self.root / REGISTRY_FILE
        try:
            # The tag first: a change in between makes the condition fail, not hold.
            found = remote.info(path)
            if found is None:
                return Contents({}, None)
            refuse_size(REGISTRY_FILE, int(found["size"]), MOST_REGISTRY_BYTES, self.address)
            data = remote.read(path)
        except FileNotFoundError:
            return Contents({}, None)
        except OSError as error:
            raise self._failed(REGISTRY_FILE, "read", error) from error
        return Contents(parse_registry(data, self.address), found.get("ETag"))

    def fetch(self, contents: Contents, name: str, target: Path, most_bytes: int) -> None:
        """See `Remote`."""
        path = cast("UPath", confined(cast(Path, self.root), name))
        try:
            refuse_size(name, remote.size(path), most_bytes, self.address)
            target.parent.mkdir(parents=True, exist_ok=True)
            remote.download(path, target)
        except FileNotFoundError as error:
            raise MissingFileError(f"{name!r} of {self.address} is missing") from error
        except OSError as error:
            raise self._failed(name, "read", error) from error

    def publish(self, files: Sequence[Part], change: Change) -> list[str]:
        """See `Remote`."""
        change(dict(self.read().models))
        try:
            put = [part.name for part in in_order(files) if self._put(part)]
            self._write_registry(change)
        except OSError as error:
            raise self._failed("", "written", error) from error
        return put

    def _put(self, part: Part) -> bool:
        path, size = self.root / part.name, part.path.stat().st_size
        found = remote.info(path)
        # Large ones have their hash for a name.
        if found is not None and found["size"] == size and (size > LARGE_BYTES or self._same(part)):
            return False
        remote.call(path, lambda fs, name: fs.put_file(str(part.path), name), "writing")
        written = remote.size(path)
        if written != size:
            raise OSError(None, f"{written} of {size} bytes arrived", str(path))
        return True

    def _same(self, part: Part) -> bool:
        return remote.read(self.root / part.name) == part.path.read_bytes()

    def _write_registry(self, change: Change) -> None:
        for attempt in range(ATTEMPTS):
            contents = self.read()
            models = contents.models if self._conditional else self._with_unnamed(contents.models)
            changed = change(dict(models))
            if changed == contents.models:
                return
            if self._put_registry(changed, contents) and self._has(changed):
                return
            wait(attempt)
        raise ModelError(
            f"registry {self.address} was changed by others {ATTEMPTS} times in a row",
            hint="run the command again; the model's files are there already",
        )

    def _has(self, models: Models) -> bool:
        """Whether every version of `models` is named there: a store may not know conditions, and others may write too.

        Aliases are not looked at: another push may have moved one since, and has the last word.
        """
        found = self.read().models
        if not self._conditional and self._with_unnamed(found) != found:
            return False
        return all(
            name in found and some.versions.keys() <= found[name].versions.keys() for name, some in models.items()
        )

    def _put_registry(self, models: Models, contents: Contents) -> bool:
        """Write registry.json; False where somebody else has since `contents`."""
        path, data = self.root / REGISTRY_FILE, registry_bytes(models)
        if not self._conditional:
            remote.write(path, data)
            return True
        condition = {"IfMatch": contents.moment} if contents.moment is not None else {"IfNoneMatch": "*"}
        try:
            remote.call(path, lambda fs, name: fs.pipe_file(name, data, **condition), "writing")
        except OSError as error:
            if not _is_conflict(error):
                raise
            return False
        return True

    def _with_unnamed(self, models: Models) -> Models:
        """`models` and the versions whose sidecar is there, but which registry.json does not name."""
        found = dict(models)
        for name in sorted(remote.find(self.root)):
            parts = name.split("/")
            if len(parts) != 3 or parts[2] != SIDECAR_FILE:
                continue
            some = found.get(parts[0])
            if some is not None and parts[1] in some.versions:
                continue
            entry = _entry_of(remote.read(self.root / name), parts[0], parts[1])
            if entry is not None:
                found = with_version(found, parts[0], parts[1], entry)
        return found

    def _failed(self, name: str, verb: str, error: OSError) -> ModelError:
        what = f"{name!r} of {self.address}" if name else f"registry {self.address}"
        return ModelError(f"{what} cannot be {verb}: {error.strerror or error}", hint=remote.hint(error, self.root))


def _is_conflict(error: BaseException) -> bool:
    """Whether a conditional write was refused because somebody else has written."""
    link: BaseException | None = error
    while link is not None:
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            code = response.get("Error", {}).get("Code")
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return True
        link = link.__cause__
    return False


def _entry_of(data: bytes, name: str, version: str) -> RegistryEntry | None:
    """The entry for a sidecar, None for what is none of that name."""
    try:
        value = json.loads(data)
        if (value["name"], value["version"], value["registered"]) != (name, version, True):
            return None
        return RegistryEntry(
            sidecar=f"{name}/{version}/{SIDECAR_FILE}",
            sidecar_sha256=sha256_bytes(data),
            onnx_sha256=value["onnx"]["sha256"],
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
