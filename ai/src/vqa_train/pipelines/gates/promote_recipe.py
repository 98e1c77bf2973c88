"""The recipe that a model was fitted with, out of its own provenance, and the same recipe under other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqa_train.core.errors import ConfigError, ModelError
from vqa_train.core.hashing import seed_from, sha256_json
from vqa_train.datasets.protocols import KFold, Protocol, parse_protocol
from vqa_train.heads import HEADS
from vqa_train.pipelines.fit.config import FitConfig, parse_fit_config
from vqa_train.registry.sidecar import ModelSidecar

_FOLDS = 5
# How a recipe is measured, watched and held in memory is not what it is.
_APART = ("protocol", "loggers", "memory_limit")


def fit_block(sidecar: ModelSidecar) -> Mapping[str, Any]:
    """The run_provenance of the fit.

    Raises:
        ModelError: the sidecar has none.
    """
    block: Mapping[str, Any] = sidecar.run_provenance
    while block.get("entrypoint") != "fit" and isinstance(block.get("parent"), Mapping):
        block = block["parent"]
    if block.get("entrypoint") != "fit" or not isinstance(block.get("config"), Mapping):
        raise ModelError(
            f"the provenance of model {sidecar.name!r} has no fit, so its recipe is not known",
            hint="register a model that `vqa-train fit` and `export` made",
        )
    return block


def recipe_of(sidecar: ModelSidecar) -> FitConfig:
    """The resolved recipe, without loggers.

    Raises:
        ModelError: the sidecar has none, or another one than it names by hash.
        ConfigError: it is of an older version of vqa-train.
    """
    config = dict(fit_block(sidecar)["config"])
    if sha256_json(config) != sidecar.train_config_hash:
        raise ModelError(
            f"model {sidecar.name!r}: its recipe has sha256 {sha256_json(config)[:12]}, its sidecar says "
            f"{sidecar.train_config_hash[:12]}",
            hint="register the model again from its run",
        )
    return parse_fit_config({**config, "loggers": []}, f"recipe of model {sidecar.name!r}")


def essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """What fits of one recipe share whatever their seeds, protocol and loggers; JSON values of a resolved recipe."""
    kept = {key: value for key, value in config.items() if key not in _APART}
    if kept.get("train") is not None:
        kept["train"] = _seedless(kept["train"])
    if kept.get("members") is not None:
        kept["members"] = [{**member, "train": _seedless(member["train"])} for member in kept["members"]]
    return kept


def _seedless(train: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in train.items() if key != "seed"}


def dump(config: FitConfig) -> dict[str, Any]:
    """JSON values, as a run records them."""
    return config.model_dump(mode="json", by_alias=True)


def with_seed(config: FitConfig, number: int) -> FitConfig:
    """The recipe under its own seeds (0), or under others that are derived from them."""
    values = dump(config)
    for owner in values["members"] or [values]:
        train = owner["train"]
        owner["train"] = {**train, "seed": seed_from("promote", train["seed"], number) if number else train["seed"]}
    return parse_fit_config(values, "recipe")


def seeds_matter(config: FitConfig) -> bool:
    """Whether any member is trained from random weights; a closed form has one result."""
    return any(not HEADS.get(member.train.head.kind).closed_form for member in config.recipes)


def protocol_for(config: FitConfig, wanted: str | dict[str, Any] | None) -> Protocol:
    """The gate's protocol, else the recipe's where it has folds, else five folds by content.

    Raises:
        ConfigError: an unknown protocol, or one without folds.
    """
    if wanted is None:
        return config.protocol if config.protocol.refit else KFold(k=_FOLDS)
    protocol = parse_protocol(wanted, "promote: protocol")
    if not protocol.refit:
        raise ConfigError(
            f"protocol {protocol.text()!r} has no folds to measure a recipe by", hint="kfold:k=5, repeated:repeats=20"
        )
    return protocol
