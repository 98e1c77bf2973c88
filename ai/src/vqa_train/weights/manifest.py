"""manifests/weights.yaml: per backbone where its weights are published, which bytes they are and under which licence.

The format is specified in docs/formats/weights.md, with the procedure for a new version. A change that an older reader
would misread gets a new number in `schema`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from vqa_train.core.config import StrictModel, load_yaml, parse
from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import did_you_mean

_PACKAGED = Path(__file__).parents[1] / "data" / "weights.yaml"
_CHECKOUT = Path(__file__).parents[4] / "manifests" / "weights.yaml"

_Text = Annotated[str, Field(min_length=1)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=100)]
_Repo = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Source(StrictModel):
    """Where the files are published: a URL of the one file, or a repository on the Hugging Face hub.

    Attributes:
        url: http or https, without login.
        repo: "owner/name".
        revision: branch, tag or commit of `repo`.
    """

    url: str | None = None
    repo: _Repo | None = None
    revision: _Text = "main"

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
                raise ValueError("must be an http or https URL without login and query")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Source:
        if (self.url is None) == (self.repo is None):
            raise ValueError("needs either url or repo")
        return self

    def __str__(self) -> str:
        return self.url or f"https://huggingface.co/{self.repo}" + (
            f"/tree/{self.revision}" if self.revision != "main" else ""
        )


class WeightsFile(StrictModel):
    """One file of an entry.

    Attributes:
        path: relative to the repository, and to the entry's own folder here; POSIX separators.
        sha256, bytes: of the file; null when not known beforehand, then recorded at first use and enforced after.
    """

    path: _Text
    sha256: _Sha256 | None = None
    bytes: Annotated[int, Field(gt=0)] | None = None

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        parts = PurePosixPath(value).parts
        if PurePosixPath(value).is_absolute() or ".." in parts or "\\" in value or "\x00" in value:
            raise ValueError("must be relative and stay inside the entry's folder")
        return value


class Package(StrictModel):
    """A Python package that carries the files: its import name and the folder in there."""

    module: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    folder: _Text
    install: _Text


class WeightsEntry(StrictModel):
    """The weights of one backbone.

    Attributes:
        name: of the entry, which is the backbone's registry name.
        source: where the files are published.
        files: all that is needed; the first is the checkpoint, whose sha256 identifies the features.
        license: SPDX id or name; `terms` travel into every model that descends from the weights.
        commercial_use: whether the licence allows it.
        license_checked: False while nobody has read the licence where the weights are published.
        citation: how the authors ask to be cited.
        package: a Python package that carries the files as well.
    """

    name: _Name
    source: Source
    files: Annotated[tuple[WeightsFile, ...], Field(min_length=1)]
    license: _Text
    commercial_use: bool
    license_checked: bool = True
    citation: str = ""
    package: Package | None = None

    @model_validator(mode="after")
    def _consistent(self) -> WeightsEntry:
        paths = [file.path for file in self.files]
        if len(set(paths)) != len(paths):
            raise ValueError("files has a path twice")
        if self.source.url is not None and len(paths) > 1:
            raise ValueError("source.url is one file; files has more")
        return self

    @property
    def terms(self) -> str:
        """The licence as it travels into sidecars: with a word on commercial use where it allows none."""
        return self.license if self.commercial_use else f"{self.license} (non-commercial)"

    @property
    def checkpoint(self) -> WeightsFile:
        """The file that holds the tensors."""
        return self.files[0]


class WeightsManifest(StrictModel):
    """The file: schema and the entries."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["vqa-train/weights/1"] = Field(alias="schema", default="vqa-train/weights/1")
    weights: tuple[WeightsEntry, ...]

    @model_validator(mode="after")
    def _names_once(self) -> WeightsManifest:
        names = [entry.name for entry in self.weights]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"weights has {twice[0]!r} twice")
        return self


def read_manifest(path: Path) -> dict[str, WeightsEntry]:
    """Name -> entry, in the order of the file.

    Raises:
        ConfigError: missing, not YAML, or not of the schema (names the key, with the nearest known one).
    """
    manifest = parse(WeightsManifest, load_yaml(path, "weights manifest"), f"weights manifest {str(path)!r}")
    return {entry.name: entry for entry in manifest.weights}


@cache
def known_weights() -> dict[str, WeightsEntry]:
    """The entries of the manifest that is installed with the package, or of the checkout it runs from.

    Raises:
        ConfigError: as `read_manifest`.
    """
    return read_manifest(_PACKAGED if _PACKAGED.is_file() else _CHECKOUT)


def weights_entry(name: str) -> WeightsEntry:
    """The entry called `name`.

    Raises:
        UsageError: no such entry (with the nearest known one).
    """
    entries = known_weights()
    if name not in entries:
        raise UsageError(f"unknown weights {name!r}", hint=did_you_mean(name, list(entries)))
    return entries[name]
