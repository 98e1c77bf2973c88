"""Execution providers of onnxruntime by short name."""

from __future__ import annotations

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.plugins import did_you_mean

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


def installed() -> tuple[str, ...]:
    """Short names of those that the installed onnxruntime was built with, `cpu` first; whether one starts is another
    matter."""
    import onnxruntime

    available = set(onnxruntime.get_available_providers())
    return tuple(name for name, full in PROVIDERS.items() if full in available)


def resolve(name: str) -> str:
    """onnxruntime's name of a provider.

    Raises:
        UsageError: there is no such provider.
        ModelError: the installed onnxruntime does not have it.
    """
    if name not in PROVIDERS:
        raise UsageError(f"unknown provider {name!r}", hint=did_you_mean(name, list(PROVIDERS)))
    found = installed()
    if name not in found:
        raise ModelError(
            f"execution provider {name!r} is not installed",
            hint=f"installed: {', '.join(found)}; it comes with another build of onnxruntime",
        )
    return PROVIDERS[name]
