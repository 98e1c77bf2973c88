"""Heads: the small trained part, from feature vectors to opinion scores, with losses, trainer and checkpoints."""

from vqa_train.core.plugins import Registry

HEADS = Registry("head", {"mlp": "vqa_train.heads.mlp:MlpHead"}, extra="train")
"""Kind -> subclass of `heads.base.Head`."""

LOSSES = Registry(
    "loss",
    {
        "smooth_l1": "vqa_train.heads.losses:smooth_l1",
        "rank": "vqa_train.heads.losses:rank",
        "plcc": "vqa_train.heads.losses:plcc",
    },
    extra="train",
)
