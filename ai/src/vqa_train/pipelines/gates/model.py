"""The model that a gate looks at: a registered one or an exported file with its sidecar; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vqa_train.core.errors import ModelError
from vqa_train.core.files import confined
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.registry.cache import find_cached
from vqa_train.registry.locate import place_of, policy
from vqa_train.registry.registry import ModelRegistry
from vqa_train.registry.sidecar import ModelInput, ModelSidecar, read_sidecar, sidecar_path


@dataclass(frozen=True)
class GateModel:
    """A model and where its files are; their bytes are verified by whoever opens them.

    Attributes:
        label: how reports name it: NAME:VERSION, or the file's name.
        sidecar: of the model.
        head: the ONNX file of the head.
        registry: the folder around a registered model; None for an exported file.
    """

    label: str
    sidecar: ModelSidecar
    head: Path
    registry: Path | None = None

    @property
    def backbones(self) -> dict[str, ModelInput]:
        """Name of a backbone with the start of its fingerprint -> an input that takes its features; none unless
        registered."""
        known = [item for item in self.sidecar.inputs if item.backbone_onnx is not None]
        return {f"{item.backbone}@{item.fingerprint[:12]}": item for item in reversed(known)}

    def backbone_file(self, item: ModelInput) -> Path:
        """Where the ONNX file of an input's backbone is.

        Raises:
            ModelError: it has none, or it is kept in the cache and not there.
        """
        onnx = item.backbone_onnx
        if onnx is None:
            raise ModelError(f"input {item.name!r} of model {self.label!r} has no backbone ONNX: it is not registered")
        if onnx.file is not None:
            return confined(self.head.parent, onnx.file)
        return find_cached(
            onnx.sha256,
            size=onnx.bytes,
            what=f"backbone {item.backbone!r} of model {self.label!r}",
            remedy="copy it there from a machine that has it, or register the model again where the weights are",
            beside=self.registry / "onnx" if self.registry is not None else None,
        )


def open_model(model: str, registry: Path = Path("model")) -> GateModel:
    """A model by name in the registry, as a folder or bundle, or as an exported X.onnx with X.json beside it.

    Raises:
        ModelError: no such model, or a sidecar that is missing or changed.
        UsageError: neither a name nor a path that exists.
    """
    if model.endswith(".onnx"):
        path = Path(model)
        return GateModel(path.name, read_sidecar(sidecar_path(path)), path)
    root, ref = place_of(model, registry)
    sidecar, folder = ModelRegistry(root, require_signature=policy()).find(ref)
    return GateModel(f"{sidecar.name}:{sidecar.version}", sidecar, confined(folder, sidecar.onnx.file), root)


def provenance_of(gate: str, model: GateModel, config: dict[str, object]) -> RunProvenance:
    """The block of a gate's run, with the model's file as its input."""
    block = RunProvenance(entrypoint=gate, config={"model": model.label, **config})
    if model.head.is_file():
        block.inputs["model"] = file_entry(model.head, "onnx-model")
    return block
