"""What a model must reach to be promoted: the gate file's section `promote`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ConfigError
from vqa_train.core.plugins import did_you_mean
from vqa_train.evaluation.rivals import check_metrics

Finite = Annotated[float, Field(allow_inf_nan=False)]
PerTarget = dict[str, Finite] | Finite
AlsoGate = Literal["compat", "drift", "ops", "parity"]


class PromoteLimits(StrictModel):
    """Limits and how the evidence is made. What a seed comes to is the median over its folds, without any mapping.

    Attributes:
        seeds: how often the recipe is fitted; the first time with its own seed.
        protocol: for the folds; None: the recipe's where it has folds, else five by content (`kfold:k=5`).
        targets: which count; all that the model has when empty.
        min_srocc, min_plcc: the worst seed must reach them; one for all targets or one per target.
        max_rmse_share: of the worst seed, as a share of the MOS range.
        max_seed_spread: largest less smallest SROCC over the seeds.
        min_seeds, min_folds: that the numbers rest on.
        min_coverage: share of the datasets' records that have labels and features.
        min_interval_coverage: share of held-out labels inside the prediction intervals, of the worst seed.
        champion: `required`: without a comparison with the present champion there is no promotion; `optional`: where
            the champion cannot be fitted again, that is said and no more.
        champion_require, champion_metrics, champion_margin: what the lead over the champion must be, as in
            `compare-models`, on the same held-out rows; of the median over the seeds.
        require_signature: public keys, one of which must have signed the sidecar.
        also: further gates, with their own sections of the gate file.
    """

    seeds: int = Field(default=3, ge=1, le=100)
    protocol: str | dict[str, Any] | None = None
    targets: list[str] = Field(default_factory=list)
    min_srocc: PerTarget | None = None
    min_plcc: PerTarget | None = None
    max_rmse_share: PerTarget | None = None
    max_seed_spread: float = Field(default=0.05, ge=0)
    min_seeds: int = Field(default=3, ge=1)
    min_folds: int = Field(default=5, ge=1)
    min_coverage: float = Field(default=0.95, ge=0, le=1)
    min_interval_coverage: PerTarget | None = None
    champion: Literal["required", "optional"] = "required"
    champion_require: Literal["better", "not-worse"] = "not-worse"
    champion_metrics: list[str] = Field(default=["srocc"], min_length=1)
    champion_margin: float = Field(default=0.02, ge=0, allow_inf_nan=False)
    require_signature: list[str] = Field(default_factory=list)
    also: list[AlsoGate] = Field(default_factory=list)

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        check_metrics(self.champion_metrics)
        return self

    def chosen(self, targets: list[str]) -> list[str]:
        """The targets that count.

        Raises:
            ConfigError: a limit is of a target that the model does not have.
        """
        named = [*self.targets]
        for limit in (self.min_srocc, self.min_plcc, self.max_rmse_share, self.min_interval_coverage):
            named += list(limit) if isinstance(limit, dict) else []
        for name in named:
            if name not in targets:
                raise ConfigError(
                    f"limits of promote name target {name!r}, which the model does not have",
                    hint=did_you_mean(name, targets),
                )
        return self.targets or targets


def limit_of(limit: Mapping[str, float] | float | None, target: str) -> float | None:
    """The limit of one target; None where it has none."""
    return limit.get(target) if isinstance(limit, Mapping) else limit
