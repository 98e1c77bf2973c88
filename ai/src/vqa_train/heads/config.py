"""The part of a recipe that says how a head is built and trained; parse it with `core.config.parse`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vqa_train.core.config import StrictModel

Width = Annotated[int, Field(ge=1, le=65536)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class HeadConfig(StrictModel):
    """The network.

    Attributes:
        kind: registry name of the head.
        hidden: width of each hidden layer; empty for a linear head.
        dropout: share of hidden activations zeroed in training.
        activation: after each hidden layer.
        clip_sd: standardised inputs are clipped at plus or minus this many standard deviations.
    """

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[Width, ...] = Field(default=(64, 32), max_length=16)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    clip_sd: float = Field(default=6.0, gt=0, allow_inf_nan=False)


class LossConfig(StrictModel):
    """Weight of each loss; 0 leaves it out. All of them see standardised opinion scores."""

    smooth_l1: Weight = 0.5
    rank: Weight = 0.2
    plcc: Weight = 1.0

    @model_validator(mode="after")
    def _not_all_zero(self) -> Self:
        if not any(self.weights().values()):
            raise ValueError("at least one loss needs a weight above 0")
        return self

    def weights(self) -> dict[str, float]:
        """Name in `heads.LOSSES` -> weight."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class OptimizerConfig(StrictModel):
    """AdamW.

    Attributes:
        lr: peak learning rate.
        weight_decay: decoupled; applied to weight matrices, not to biases.
        betas: decay of the running means of the gradient and of its square.
    """

    lr: float = Field(default=3e-3, gt=0, allow_inf_nan=False)
    weight_decay: Weight = 0.3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)


class ValidationConfig(StrictModel):
    """Rows held out of training to choose the epoch.

    Attributes:
        fraction: share of the rows, about; 0 trains on all rows and keeps the last epoch.
        by: what never straddles the two parts.
    """

    fraction: float = Field(default=0.2, ge=0, lt=1)
    by: Literal["group"] = "group"


class TrainConfig(StrictModel):
    """How a head is trained.

    Attributes:
        schedule: `cosine` to 0 over all epochs, or `constant`.
        warmup: share of all steps in which the learning rate rises linearly from 0.
        epochs: passes over the training rows, at most.
        batch_size: rows per step, about: the rows are dealt into batches of equal size.
        patience: epochs without a better validation metric after which training stops; null for none.
        ema: decay per step of the running mean of the weights, which is then what is validated and kept; null for none.
        seed: changes initial weights, order of rows and dropout, not the validation split.
        target_weights: weight of each target in the loss; 1 where not named. 0 leaves it out of the loss and out of
            the choice of the epoch.
    """

    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.0, ge=0, le=0.5)
    epochs: int = Field(default=60, ge=1, le=1_000_000)
    batch_size: int = Field(default=64, ge=2)
    patience: int | None = Field(default=20, ge=1)
    ema: float | None = Field(default=0.99, gt=0, lt=1)
    seed: int = 0
    validation: ValidationConfig = ValidationConfig()
    target_weights: dict[str, Weight] | None = None
