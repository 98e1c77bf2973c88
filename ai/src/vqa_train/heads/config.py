"""The part of a recipe that says how a head is built and trained; parse it with `core.config.parse`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vqa_train.core.config import StrictModel

Width = Annotated[int, Field(ge=1, le=65536)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


class HeadConfig(StrictModel):
    """The network.

    Attributes:
        kind: registry name of the head.
        hidden: width of each hidden layer; empty for a linear head.
        dropout: share of hidden activations zeroed in training.
        activation: after each hidden layer.
        clip_sd: standardised inputs are clipped at plus or minus this many standard deviations.
        output: `point` (one number per target), `ordinal` (a distribution over `bins` of the label range, whose mean
            is the score) or `heteroscedastic` (a mean and a variance).
        bins: for `ordinal`.
        options: further settings of the kind, checked by the head.
    """

    kind: str = "mlp"
    hidden: tuple[Width, ...] = Field(default=(64, 32), max_length=16)
    dropout: Share = 0.2
    activation: Literal["gelu", "relu", "silu"] = "gelu"
    clip_sd: float = Field(default=6.0, gt=0, allow_inf_nan=False)
    output: Literal["point", "ordinal", "heteroscedastic"] = "point"
    bins: int = Field(default=20, ge=2, le=1000)
    options: dict[str, Any] = Field(default_factory=dict)


class LossConfig(StrictModel):
    """Weight of each loss; 0 leaves it out. All of them see standardised opinion scores.

    Without `smooth_l1`, `huber` or a likelihood nothing decides the level of the scores; it is then set by least
    squares on the training labels after training. `likelihood` weighs what an `ordinal` or `heteroscedastic` output
    adds; a `point` output adds nothing.
    """

    smooth_l1: Weight = 0.5
    huber: Weight = 0.0
    rank: Weight = 0.2
    plcc: Weight = 1.0
    srocc: Weight = 0.0
    likelihood: Weight = 1.0

    def weights(self) -> dict[str, float]:
        """Name in `heads.LOSSES` -> weight."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "likelihood"}


class OptimizerConfig(StrictModel):
    """AdamW.

    Attributes:
        lr: peak learning rate.
        weight_decay: decoupled; applied to weight matrices, not to biases.
        betas: decay of the running means of the gradient and of its square.
    """

    lr: float = Field(default=3e-3, gt=0, allow_inf_nan=False)
    weight_decay: Weight = 0.3
    betas: tuple[Share, Share] = (0.9, 0.999)


class ValidationConfig(StrictModel):
    """Rows held out of training to choose the epoch.

    Attributes:
        fraction: share of the rows, about; 0 trains on all rows and keeps the last epoch.
        by: what never straddles the two parts.
    """

    fraction: Share = 0.2
    by: Literal["group"] = "group"


class TrainConfig(StrictModel):
    """How a head is trained.

    Attributes:
        schedule: `cosine` to 0, `one_cycle` (up to the peak over `warmup`, 0.3 of the steps where it is 0, then cosine
            down to 0), or `constant`.
        cycles: times that `cosine` or `one_cycle` starts again (warm restarts).
        warmup: share of a cycle's steps in which the learning rate rises linearly from 0.
        epochs: passes over the training rows, at most.
        batch_size: rows per step, about: the rows are dealt into batches of equal size.
        patience: epochs without a better validation metric after which training stops; null for none.
        ema: decay per step of the running mean of the weights, which is then what is validated and kept; null for none.
        seed: changes initial weights, order of rows and dropout, not the validation split.
        target_weights: weight of each target in the loss; 1 where not named. 0 leaves it out of the loss and out of
            the choice of the epoch.
        std_weighting: labels weigh 1 / (1 + (std / label deviation)^2) where the deviation of their opinions is known.
        drop_sets: probability that a training row misses one whole input, so that the head survives its absence.
        scales: how labels of further datasets follow from the shared quality scale, which is the first dataset's:
            an `affine` or a `monotone` map per dataset, learned beside the head, or `same` for none.
    """

    head: HeadConfig = HeadConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    cycles: int = Field(default=1, ge=1, le=1000)
    warmup: float = Field(default=0.0, ge=0, le=0.5)
    epochs: int = Field(default=60, ge=1, le=1_000_000)
    batch_size: int = Field(default=64, ge=2)
    patience: int | None = Field(default=20, ge=1)
    ema: float | None = Field(default=0.99, gt=0, lt=1)
    seed: int = 0
    validation: ValidationConfig = ValidationConfig()
    target_weights: dict[str, Weight] | None = None
    std_weighting: bool = False
    drop_sets: Share = 0.0
    scales: Literal["affine", "monotone", "same"] = "affine"

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        likelihood = self.head.output != "point" and self.loss.likelihood
        if not any(self.loss.weights().values()) and not likelihood:
            raise ValueError("at least one loss needs a weight above 0")
        return self
