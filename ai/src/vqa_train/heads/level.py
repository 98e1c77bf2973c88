"""The level of scores whose losses do not see it: set by least squares on the training rows.

Ranking and correlation losses leave the mean of the scores free (and the correlations their size too). Nothing but
rounding then decides them, so a head that trained with those alone is put on the scale of its labels afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vqa_train.heads.base import Head
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.member import Member
from vqa_train.heads.predict import scores_of
from vqa_train.heads.table import TrainingTable


def has_level(config: TrainConfig) -> bool:
    """Whether a loss of the recipe sees how high the scores are."""
    return bool(config.loss.smooth_l1 or config.loss.huber) or config.head.output != "point"


@torch.no_grad()
def set_levels(head: Head, members: Sequence[Member], table: TrainingTable) -> None:
    """Move and stretch the scores of each model without a level, per target, towards its training labels.

    Labels are those of the target's reference dataset. Scores are never turned round: where the slope would not be
    above 0 they are only moved.
    """
    none = np.zeros(0, dtype=np.int64)
    rows = [none if has_level(member.config) else member.train for member in members]
    if not any(map(len, rows)):
        return
    for model, (member, scores) in enumerate(zip(members, scores_of(head, table, rows), strict=True)):
        if not len(rows[model]):
            continue
        for column, reference in enumerate(member.scaling.reference.tolist()):
            labels = table.targets[member.train, column].astype(np.float64)
            known = ~np.isnan(labels) & (table.dataset[member.train] == reference)
            x, y = scores[known, column].astype(np.float64), labels[known]
            variance = float(x.var())
            slope = float(((x - x.mean()) * (y - y.mean())).mean()) / variance if variance > 0 else 0.0
            slope = slope if slope > 0 and np.isfinite(slope) else 1.0
            mean = float(head.target_mean[model, column])
            head.target_mean[model, column] = float(y.mean() + slope * (mean - x.mean()))
            head.target_std[model, column] *= slope
