"""What the drift gate is asked to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqa_train.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DriftInput:
    """What to look at; `features`, `scores` or both.

    Attributes:
        features: a store. Without `datasets` its whole feature sets, from the sums in their commit files.
        datasets: names or paths: their rows.
        tag: the sets as this tag keeps them, instead of as they are.
        rows: of whole sets, also read this many rows, chosen by hash, for ranges and scores; 0 for all, None for none.
        scores: what vqa-score wrote.
        data_root, manifests_dir: for `datasets`.
    """

    features: Path | None = None
    datasets: Sequence[str] = ()
    tag: str | None = None
    rows: int | None = None
    scores: Path | None = None
    data_root: Path | None = None
    manifests_dir: Path | None = None

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: nothing to look at, or options of a store without one or of whole sets with a dataset.
        """
        if self.features is None and self.scores is None:
            raise UsageError("nothing to look at", hint="give --features STORE, --scores FILE, or both")
        if self.features is None and (self.datasets or self.tag is not None or self.rows is not None):
            raise UsageError("--dataset, --set-tag and --rows need --features STORE")
        if self.datasets and (self.tag is not None or self.rows is not None):
            raise UsageError("--set-tag and --rows are of whole feature sets", hint="leave out --dataset")
