"""The files that a registered model is made of, each with the hash that the chain of hashes gives it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vqa_train.core.errors import ModelError
from vqa_train.core.files import confined
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.proto import read_facts
from vqa_train.onnx.runtime import EXTERNAL_KEY
from vqa_train.registry.cache import onnx_cache_path
from vqa_train.registry.registry import ModelRegistry, RegistryEntry
from vqa_train.registry.sidecar import SIDECAR_FILE, ModelInput, ModelSidecar
from vqa_train.registry.signature import signature_path

ONNX_FOLDER = "onnx"
"""Folder of a registry for backbones that belong to several models or are too large for a model's own folder."""
_MOST_TOKENIZER_BYTES = 256 << 20


@dataclass(frozen=True)
class Part:
    """One file of a model.

    Attributes:
        kind: "sidecar", "signature", "card", "head", "backbone", "tokenizer" or "weights".
        what: for messages: the kind with the backbone that it is of.
        name: where a registry has it, relative to registry.json.
        path: where it is here.
        sha256: that its bytes must have; None for a signature, which nothing vouches for.
        bytes: that it must have; None where nothing says it.
    """

    kind: str
    what: str
    name: str
    path: Path
    sha256: str | None = None
    bytes: int | None = None

    @property
    def is_graph(self) -> bool:
        """Whether it is an ONNX file, which may name files of weights."""
        return self.kind in ("head", "backbone")

    @property
    def most_bytes(self) -> int:
        """What it may have at most when it comes from elsewhere."""
        return self.bytes if self.bytes is not None else _MOST_TOKENIZER_BYTES


@dataclass(frozen=True)
class RegisteredModel:
    """A model of a registry: its verified sidecar, its entry, and where its files are.

    Attributes:
        root: the folder of registry.json.
        folder: what the files of the sidecar are relative to.
    """

    root: Path
    sidecar: ModelSidecar
    folder: Path
    entry: RegistryEntry

    @classmethod
    def find(cls, registry: ModelRegistry, model: str) -> RegisteredModel:
        """The model of that name; its card and signature were looked at too.

        Raises:
            ModelError, ConfigError, UsageError: as `ModelRegistry.find`.
        """
        found = cls.described(registry, model)
        registry.find(found.label)
        return found

    @classmethod
    def described(cls, registry: ModelRegistry, model: str) -> RegisteredModel:
        """The model of that name, of which no more than the sidecar was verified.

        Raises:
            ModelError, ConfigError, UsageError: as `ModelRegistry.described`.
        """
        name, version = registry.resolve(model)
        sidecar, path = registry.described(f"{name}:{version}")
        return cls(registry.root, sidecar, path.parent, registry.models()[name].versions[version])

    @property
    def label(self) -> str:
        """NAME:VERSION."""
        return f"{self.sidecar.name}:{self.sidecar.version}"

    @property
    def prefix(self) -> str:
        """Where a registry has the model's folder, relative to registry.json."""
        return f"{self.sidecar.name}/{self.sidecar.version}"

    def parts(self) -> list[Part]:
        """Every file but the weights that a graph names, which `weights_of` gives once the graph is known to be right.

        They need not be there.

        Raises:
            VqaError: a path that leaves the model's folder.
        """
        sidecar = self.folder / Path(self.entry.sidecar).name
        found = [
            Part("sidecar", "sidecar", f"{self.prefix}/{SIDECAR_FILE}", sidecar, self.entry.sidecar_sha256),
            self._own("head", "head", self.sidecar.onnx.file, self.sidecar.onnx.sha256, self.sidecar.onnx.bytes),
        ]
        if self.sidecar.card is not None:
            card = self.sidecar.card
            found.append(self._own("card", "card", card.file, card.sha256, card.bytes))
        signature = signature_path(sidecar)
        if signature.is_file():
            found.append(Part("signature", "signature", f"{self.prefix}/{signature.name}", signature))
        for item in self.sidecar.inputs:
            found += self._of_input(item)
        unique = {part.name: part for part in found}
        return list(unique.values())

    def _of_input(self, item: ModelInput) -> list[Part]:
        label = f"{item.backbone}@{item.fingerprint[:12]}"
        found, onnx, tokenizer = [], item.backbone_onnx, item.tokenizer
        if onnx is not None and onnx.file is not None:
            found.append(self._own("backbone", f"backbone {label}", onnx.file, onnx.sha256, onnx.bytes))
        elif onnx is not None:
            beside, cached = self.root / ONNX_FOLDER / f"{onnx.sha256}.onnx", onnx_cache_path(onnx.sha256)
            path = beside if beside.is_file() else cached
            name = f"{ONNX_FOLDER}/{onnx.sha256}.onnx"
            found.append(Part("backbone", f"backbone {label}", name, path, onnx.sha256, onnx.bytes))
        if tokenizer is not None:
            found.append(self._own("tokenizer", f"tokenizer {label}", tokenizer.file, tokenizer.sha256, None))
        return found

    def _own(self, kind: str, what: str, file: str, sha256: str, size: int | None) -> Part:
        return Part(kind, what, f"{self.prefix}/{file}", confined(self.folder, file), sha256, size)


def weights_of(graph: Part) -> list[Part]:
    """The files of weights beside a graph whose bytes are known to be right: it names them with their hashes.

    Raises:
        ModelError: what it says of them is malformed.
        OSError: the graph cannot be read.
    """
    text = read_facts(graph.path.read_bytes()).metadata.get(EXTERNAL_KEY, "{}")
    folder = PurePosixPath(graph.name).parent
    found = []
    try:
        for name, entry in sorted(json.loads(text).items()):
            if PurePosixPath(name).name != name or name in ("", ".", ".."):
                raise ValueError(f"{name!r} is no file beside it")
            claimed = (str(entry["sha256"]), int(entry["bytes"]))
            found.append(
                Part("weights", f"weights of {graph.what}", f"{folder}/{name}", graph.path.parent / name, *claimed)
            )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"ONNX file {str(graph.path)!r} has malformed metadata {EXTERNAL_KEY!r}: {error}") from error
    return found


def difference(part: Part) -> str | None:
    """What is wrong with the bytes of a part, None where they are right or nothing says what they must be."""
    try:
        size, found = part.path.stat().st_size, sha256_file(part.path)
    except FileNotFoundError:
        return f"{part.what} {str(part.path)!r} is missing"
    except OSError as error:
        return f"{part.what} {str(part.path)!r} cannot be read: {error.strerror}"
    if part.sha256 is not None and found != part.sha256:
        return f"{part.what} {str(part.path)!r} has sha256 {found[:12]}, expected {part.sha256[:12]}"
    if part.bytes is not None and size != part.bytes:
        return f"{part.what} {str(part.path)!r} has {size} bytes, its sidecar says {part.bytes}"
    return None


def intact_parts(model: RegisteredModel) -> list[Part]:
    """Every file of a model, each found to have the bytes that the chain of hashes says.

    Raises:
        ModelError: names the first that is missing or differs.
    """
    parts = model.parts()
    for part in list(parts):
        _refuse(part)
        if part.is_graph:
            beside = weights_of(part)
            for weights in beside:
                _refuse(weights)
            parts += beside
    return list({part.name: part for part in parts}.values())


def _refuse(part: Part) -> None:
    wrong = difference(part)
    if wrong is not None:
        raise ModelError(wrong, hint="`vqa-train models verify` says what else differs; pull or register it again")


def in_cache(part: Part) -> bool:
    """Whether the cache of ONNX files has a large backbone already, with the weights that it names."""
    if part.kind != "backbone" or part.sha256 is None:
        return False
    kept = replace(part, path=onnx_cache_path(part.sha256))
    return difference(kept) is None and all(difference(weights) is None for weights in weights_of(kept))
