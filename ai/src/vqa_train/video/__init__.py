"""Videos in: probing, choosing frames by time, decoding to upright RGB, worker processes that may crash."""

from vqa_train.core.plugins import Registry

DEFAULT_DECODER = "pyav"

DECODERS = Registry(
    "decoder",
    {
        "pyav": "vqa_train.video.pyav:PyavDecoder",
        "decord": "vqa_train.video.decord:DecordDecoder",
        "nvdec": "vqa_train.video.nvdec:NvdecDecoder",
    },
    extra="backbones",
)
