"""What a report is made of and where it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Advance = Callable[[str, int], Callable[[], None]]
"""(name of a long step, its parts) -> what to call after each part."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to report and what else is at hand.

    Attributes:
        source: run folder, ONNX file with its sidecar beside it, or name of a registered model.
        output: the page, .html.
        features: feature store, for permutation importance (and to evaluate a model); None leaves that out.
        data_root: where the videos are, for pictures of the worst; None takes the manifest's own root.
        datasets: manifests, instead of those that the run or the sidecar names.
        manifests_dir: where names of datasets are looked up.
        registry: where names of models are looked up.
        rows: of a run: `held-out`, `test`, `val`, `train` or `all`; of a model the split to evaluate. None chooses.
        worst: videos to show per target.
    """

    source: str
    output: Path
    features: Path | None = None
    data_root: Path | None = None
    datasets: tuple[str, ...] = ()
    manifests_dir: Path | None = None
    registry: Path = Path("model")
    rows: str | None = None
    worst: int = 8


def silent(_: str, __: int) -> Callable[[], None]:
    """An `Advance` that shows nothing."""
    return lambda: None
