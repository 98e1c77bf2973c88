"""Frozen feature extractors: one file each, one line here, the contract suite of tests/contracts for all."""

from vqa_train.core.plugins import Registry

BACKBONES = Registry(
    "backbone",
    {
        "nss": "vqa_train.backbones.nss:NssBackbone",
    },
    extra="backbones",
)

TEXT_ENCODERS = Registry(
    "text_encoder",
    {
        "bge-large-en-v1.5": "vqa_train.backbones.text:bge_large",
        "bge-base-en-v1.5": "vqa_train.backbones.text:bge_base",
        "bge-small-en-v1.5": "vqa_train.backbones.text:bge_small",
        "minilm": "vqa_train.backbones.text:minilm",
    },
    extra="backbones",
)
