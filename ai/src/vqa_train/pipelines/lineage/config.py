"""What `lineage` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class LineageConfig:
    """Which model, and what is at hand to compare it with; without a store or a run folder that part is not looked for.

    Attributes:
        model: reference in the registry, name of a ready-made scorer, path of a bundle, or an exported X.onnx.
        registry: the folder that holds registry.json.
        features: the feature store that the model was fitted on.
        run: the run folder that `fit` wrote.
        manifests: folder of dataset manifests.
        data_root: where the data is; None as the manifests and the environment say.
        content: also read the bytes of the weights and of the run's videos, as far as they are on this machine.
    """

    model: str
    registry: Path = Path("model")
    features: Path | None = None
    run: Path | None = None
    manifests: Path = Path("manifests")
    data_root: Path | None = None
    content: bool = False
