"""Decoder on NVIDIA's video engine through PyAV: the `pyav` decoder with the decoding itself done by the GPU.

Each worker process decodes on the device and takes the frames back as NV12 planes, so that a crash stays a worker's and
nothing else of the pipeline changes. Codecs that the engine does not have are decoded on the CPU by the same FFmpeg.
"""

from __future__ import annotations

import ctypes

from av.codec.hwaccel import HWAccel

from vqa_train.core.errors import DependencyError
from vqa_train.video.pyav import PyavDecoder


class NvdecDecoder(PyavDecoder):
    """See `vqa_train.video.decode.Decoder`. Uses the first GPU that CUDA_VISIBLE_DEVICES leaves visible.

    Raises:
        DependencyError: no NVIDIA driver, or no GPU.
    """

    name = "nvdec"

    def __init__(self) -> None:
        super().__init__()
        if not _gpus():
            raise DependencyError("decoder 'nvdec' needs an NVIDIA GPU and its driver", hint="use the decoder 'pyav'")
        self.hwaccel = HWAccel("cuda", allow_software_fallback=True)


def _gpus() -> int:
    """GPUs that the CUDA driver finds; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
