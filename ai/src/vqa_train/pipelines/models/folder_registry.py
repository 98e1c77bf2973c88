"""A registry in a folder of this machine, or one that is mounted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vqa_train.core.errors import ModelError
from vqa_train.core.files import atomic_write, atomic_write_bytes, confined
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.models.export import registry_bytes
from vqa_train.pipelines.models.parts import Part
from vqa_train.pipelines.models.remotes import Change, Contents, MissingFileError, in_order, refuse_size
from vqa_train.registry.registry import ModelRegistry


@dataclass(frozen=True)
class FolderRegistry:
    """A folder of this machine, or one that is mounted."""

    root: Path

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.root)

    def read(self) -> Contents:
        """See `Remote`."""
        return Contents(ModelRegistry(self.root).models())

    def fetch(self, contents: Contents, name: str, target: Path, most_bytes: int) -> None:
        """See `Remote`."""
        path = confined(self.root, name)
        try:
            refuse_size(name, path.stat().st_size, most_bytes, self.address)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        except FileNotFoundError as error:
            raise MissingFileError(f"{name!r} of {self.address} is missing") from error
        except OSError as error:
            raise ModelError(f"{name!r} of {self.address} cannot be read: {error.strerror or error}") from error

    def publish(self, files: Sequence[Part], change: Change) -> list[str]:
        """See `Remote`; holds the lock of the registry meanwhile."""
        registry, put = ModelRegistry(self.root), []
        with registry.locked():
            models = registry.models()
            changed = change(dict(models))
            for part in in_order(files):
                target = self.root / part.name
                if not target.is_file() or sha256_file(target) != sha256_file(part.path):
                    _copy(part.path, target)
                    put.append(part.name)
            if changed != models:
                atomic_write_bytes(registry.path, registry_bytes(changed))
        return put


def _copy(source: Path, target: Path) -> None:
    def copy(handle: IO[bytes]) -> None:
        with source.open("rb") as data:
            shutil.copyfileobj(data, handle, 1 << 20)

    atomic_write(target, copy)
