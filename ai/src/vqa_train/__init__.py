"""vqa-train: cached features of frozen video backbones, small trained heads, scoring with ONNX alone."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqa_train.pipelines.estimator import VqaRegressor

__version__ = "0.1.0"
__all__ = ["VqaRegressor", "__version__"]


def __getattr__(name: str) -> Any:
    """`VqaRegressor`, imported when it is first asked for: it needs torch and scikit-learn."""
    if name != "VqaRegressor":
        raise AttributeError(f"module 'vqa_train' has no attribute {name!r}")
    from importlib import import_module

    from vqa_train.core.plugins import needs

    with needs("VqaRegressor", "train"):
        return import_module("vqa_train.pipelines.estimator").VqaRegressor
