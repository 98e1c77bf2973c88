"""What a registry elsewhere offers, wherever it is: read it, fetch a file, publish a model."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vqa_train.core.errors import ConfigError, ModelError
from vqa_train.pipelines.models.parts import Part
from vqa_train.registry.entries import ModelVersions, RegistryEntry, read_registry
from vqa_train.registry.registry import REGISTRY_FILE

Models = dict[str, ModelVersions]
Change = Callable[[Models], Models]
ATTEMPTS = 40
"""How often registry.json is written anew when others write it too."""
MOST_REGISTRY_BYTES = 64 << 20


class MissingFileError(ModelError):
    """A registry elsewhere does not have a file."""


@dataclass(frozen=True)
class Contents:
    """What a registry had at one moment: its models, and how to say that moment to where they are from."""

    models: Models
    moment: Any = None


class Remote(Protocol):
    """A registry elsewhere, with the layout of one here."""

    @property
    def address(self) -> str:
        """For messages."""

    def read(self) -> Contents:
        """Its registry.json; no models where there is none.

        Raises:
            VqaError: it cannot be read.
        """

    def fetch(self, contents: Contents, name: str, target: Path, most_bytes: int) -> None:
        """Copy the file `name` of that moment to the new file `target`.

        Raises:
            MissingFileError: it is not there.
            ModelError: it is over `most_bytes`, or cannot be read.
        """

    def publish(self, files: Sequence[Part], change: Change) -> list[str]:
        """Put `files`, then registry.json with `change` applied to what it has; again while others write it too.

        Args:
            change: returns its argument where there is nothing to change; may refuse by an exception.

        Returns:
            Names of the files that were not there yet.

        Raises:
            VqaError: `change` refused, or it cannot be written.
        """


def parse_registry(data: bytes, address: str) -> Models:
    """The models of a registry.json from elsewhere.

    Raises:
        ConfigError: it is not JSON or not of the schema.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / REGISTRY_FILE
        path.write_bytes(data)
        try:
            return read_registry(path)
        except ConfigError as error:
            message = error.message.replace(str(path), f"{address}/{REGISTRY_FILE}")
            raise ConfigError(message, hint=error.hint) from error


def with_version(models: Mapping[str, ModelVersions], name: str, version: str, entry: RegistryEntry) -> Models:
    """`models` with one version more, as the one registered last."""
    found = models.get(name)
    others = {} if found is None else dict(found.versions)
    number = max((other.number for other in others.values()), default=0) + 1
    others[version] = entry.model_copy(update={"number": number})
    new = ModelVersions(versions=others) if found is None else found.model_copy(update={"versions": others})
    return {**models, name: new}


def in_order(files: Sequence[Part]) -> list[Part]:
    """The sidecar last: it says that the rest of its model is there."""
    return sorted(files, key=lambda part: part.kind == "sidecar")


def refuse_size(name: str, size: int, most_bytes: int, address: str) -> None:
    """Raises ModelError where a file is larger than it may be."""
    if size > most_bytes:
        raise ModelError(f"{name!r} of {address} has {size} bytes, expected at most {most_bytes}")


def wait(attempt: int) -> None:
    """Between two tries to write what others write too; at random, so that they do not meet again."""
    time.sleep(random.uniform(0.0, min(2.0, 0.02 * 1.5**attempt)))  # noqa: S311  # spreads load; nothing secret
