"""Whether rows that a model is measured on are rows that it was fitted on, as far as its sidecar tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vqa_train.registry.sidecar import ModelSidecar


def fitted_datasets(sidecar: ModelSidecar) -> list[str]:
    """Names of the datasets that the model was fitted on."""
    own = sidecar.datasets or [found for found in (sidecar.dataset,) if found is not None]
    return [found.name for found in own]


def keeps_test_rows(sidecar: ModelSidecar) -> bool | None:
    """Whether the test rows of its datasets, as `eval` finds them, took no part in the fit; None where unknown."""
    block: Mapping[str, Any] = sidecar.run_provenance
    while block.get("entrypoint") != "fit" and isinstance(block.get("parent"), Mapping):
        block = block["parent"]
    if block.get("entrypoint") != "fit":
        return None
    protocol = (block.get("config") or {}).get("protocol") or {}
    left = int((block.get("counts") or {}).get("test") or 0)
    return left > 0 and (protocol.get("kind", "splits") == "splits" or protocol.get("rows") == "train")


def seen_rows_warning(sidecar: ModelSidecar, datasets: Sequence[str], split: str) -> str | None:
    """What must be said where rows of `split` of these datasets are called unseen but were fitted on.

    `train` and `val` call nothing unseen.
    """
    own = sorted(set(datasets) & set(fitted_datasets(sidecar)))
    if not own or split in ("train", "val") or (split == "test" and keeps_test_rows(sidecar) is not False):
        return None
    text = f"model {sidecar.name!r} was fitted on rows of split {split!r} of {', '.join(own)}: too good for new videos"
    if sidecar.protocol is not None:
        text += f"; its {sidecar.protocol.folds} held-out folds are in its sidecar, under `protocol`"
    return text
