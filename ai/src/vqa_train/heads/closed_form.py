"""Heads whose weights have a closed form: the training rows standardised and handed to `Head.solve`."""

from __future__ import annotations

import numpy as np
import torch

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import seed_from
from vqa_train.heads import HEADS
from vqa_train.heads.base import Head, standardise
from vqa_train.heads.member import Member
from vqa_train.heads.table import TrainingTable


@torch.no_grad()
def solve(table: TrainingTable, member: Member) -> tuple[Head, dict[str, float]]:
    """A head of one model in eval mode, and what it chose.

    Raises:
        ConfigError: an output other than `point`.
    """
    config = member.config
    head: Head = HEADS.get(config.head.kind)(table.shapes, table.target_names, config.head)
    if config.head.output != "point":
        raise ConfigError(f"head {config.head.kind!r} has a closed form, which gives output `point` only")
    head.set_statistics([member.scaling.statistics])
    rows = torch.from_numpy(table.rows.take(member.train)).float()
    x = standardise(rows, head.input_mean, head.input_std, head.input_varies, config.head.clip_sd)[0]
    dataset = table.dataset[member.train]
    std = member.scaling.label_std[dataset]
    labels = (table.targets[member.train] - member.scaling.label_mean[dataset]) / std
    known = ~np.isnan(labels)
    weight = known.astype(np.float32)
    if config.std_weighting and table.target_std is not None:
        ratio = table.target_std[member.train] / std
        weight *= np.where(np.isfinite(ratio), 1 / (1 + ratio * ratio), 1).astype(np.float32)
    y = torch.from_numpy(np.where(known, labels, 0).astype(np.float32))
    chosen = head.solve(x, y, torch.from_numpy(weight), config, seed_from("solve", config.seed, table.identity))
    return head.requires_grad_(False).eval(), chosen
