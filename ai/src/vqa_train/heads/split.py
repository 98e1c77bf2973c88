"""Which rows validate: whole groups, chosen by hash, never by the order of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import unit_interval


def hold_out(groups: Sequence[str], fraction: float) -> NDArray[np.bool_]:
    """True for validation rows, (N,): about `fraction` of the rows, at least one group, never all of them.

    Groups are visited in the order of their hash, and one is taken when that brings the number of rows nearer to
    what is asked for, so the choice depends on the names and sizes of the groups alone.

    Raises:
        ConfigError: fewer than two groups.
    """
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise ConfigError(
            f"a validation split by group needs at least 2 groups, got {len(sizes)}",
            hint="give a validation split, or set validation.fraction: 0 and patience: null to train on all rows",
        )
    order = sorted(sizes, key=lambda group: (unit_interval("validation", group), group))
    wanted = fraction * len(groups)
    taken: set[str] = set()
    rows = 0
    for group in order:
        nearer = abs(rows + sizes[group] - wanted) < abs(rows - wanted)
        if nearer and len(taken) < len(sizes) - 1:
            taken.add(group)
            rows += sizes[group]
    if not taken:
        taken.add(min(order, key=lambda group: sizes[group]))
    return np.fromiter((group in taken for group in groups), dtype=np.bool_, count=len(groups))
