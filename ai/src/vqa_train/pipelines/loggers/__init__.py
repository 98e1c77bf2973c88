"""Loggers of a fit (TensorBoard, MLflow, Weights & Biases): off unless the recipe names one, imported only then."""

from vqa_train.core.plugins import Registry

LOGGERS = Registry(
    "logger",
    {
        "tensorboard": "vqa_train.pipelines.loggers.tensorboard:TensorBoardLogger",
        "mlflow": "vqa_train.pipelines.loggers.mlflow:MlflowLogger",
        "wandb": "vqa_train.pipelines.loggers.wandb:WandbLogger",
    },
    extra="loggers",
)
"""Kind -> class of `pipelines.loggers.base.Logger`."""
