"""Heads: the small trained part, from feature vectors to opinion scores, with losses, trainer and checkpoints."""

from vqa_train.core.plugins import Registry

HEADS = Registry(
    "head",
    {
        "fusion": "vqa_train.heads.fusion:FusionHead",
        "kernel_ridge": "vqa_train.heads.kernel_ridge:KernelRidgeHead",
        "linear": "vqa_train.heads.linear:LinearHead",
        "mlp": "vqa_train.heads.mlp:MlpHead",
        "temporal": "vqa_train.heads.temporal:TemporalHead",
    },
    extra="train",
)
"""Kind -> subclass of `heads.base.Head`."""

LOSSES = Registry(
    "loss",
    {
        "smooth_l1": "vqa_train.heads.losses:smooth_l1",
        "huber": "vqa_train.heads.losses:huber",
        "rank": "vqa_train.heads.losses:rank",
        "plcc": "vqa_train.heads.losses:plcc",
        "srocc": "vqa_train.heads.losses:srocc",
    },
    extra="train",
)
