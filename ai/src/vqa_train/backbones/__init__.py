"""Frozen feature extractors: one file each, one line here, the contract suite of tests/contracts for all."""

from vqa_train.core.plugins import Registry

BACKBONES = Registry(
    "backbone",
    {
        "nss": "vqa_train.backbones.nss:NssBackbone",
        "dover": "vqa_train.backbones.dover:dover",
        "dover++": "vqa_train.backbones.dover:dover_plus_plus",
        "dover-mobile": "vqa_train.backbones.dover:dover_mobile",
        "vjepa2-vitl-fpc64-256": "vqa_train.backbones.vjepa2:vjepa2_vitl_256",
        "vjepa2-vith-fpc64-256": "vqa_train.backbones.vjepa2:vjepa2_vith_256",
        "vjepa2-vitg-fpc64-256": "vqa_train.backbones.vjepa2:vjepa2_vitg_256",
        "vjepa2-vitg-fpc64-384": "vqa_train.backbones.vjepa2:vjepa2_vitg_384",
        "vjepa2-vitl-fpc16-256-ssv2": "vqa_train.backbones.vjepa2:vjepa2_vitl_256_ssv2",
        "vjepa2-vitg-fpc64-384-ssv2": "vqa_train.backbones.vjepa2:vjepa2_vitg_384_ssv2",
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
