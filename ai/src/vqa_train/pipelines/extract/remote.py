"""What an extraction sends to other machines: how to build its backbones there, and how to commit what they give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqa_train.core.hashing import canonical_json
from vqa_train.core.provenance import package_versions
from vqa_train.core.types import FeatureSpec
from vqa_train.engines.base import Built, TaskResult
from vqa_train.pipelines.extract.compute import resolve_compute
from vqa_train.pipelines.extract.config import ExtractConfig
from vqa_train.pipelines.extract.writer import kept_by_path
from vqa_train.store.rows import Failure, FeatureRow
from vqa_train.store.store import FeatureStore

Profiles = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class BackboneBuild:
    """Builds the backbones of `config` and configures them for the machine that it is called on."""

    config: ExtractConfig

    def __call__(self) -> Built:
        """The extractors and how they compute here.

        Raises:
            WeightsError: the weights are not on this machine.
            UsageError: the device is not there.
        """
        import torch

        from vqa_train.pipelines.extract.build import build_extractors, configure

        config = self.config
        compute = resolve_compute(config.device, config.precision, config.batch, compiled=config.compiled)
        if compute.device == "cpu":
            # Cores are shared out by clip, as on one machine.
            torch.set_num_threads(1)
        extractors = build_extractors(config)
        configure(extractors, compute)
        common = common_profile(config)
        return Built(
            extractors={b.spec.set_name: b for b in extractors},
            profiles={b.spec.set_name: {**common, **b.numerics()} for b in extractors},
        )


@dataclass(frozen=True, kw_only=True)
class StoreSink:
    """Commits results to the store at `root`.

    Attributes:
        root: of the store.
        sets: by name, spec and licence of each feature set of the run.
        run_id: of the run.
    """

    root: Path
    sets: Mapping[str, tuple[FeatureSpec, str]]
    run_id: str

    def commit(self, results: Sequence[TaskResult], profiles: Sequence[Profiles]) -> None:
        """One shard per feature set and way of computing, and one failures file per feature set.

        Raises:
            StoreError: the store cannot be written.
        """
        rows: dict[str, dict[str, tuple[Mapping[str, str], list[FeatureRow]]]] = defaultdict(dict)
        failures: dict[str, list[Failure]] = defaultdict(list)
        for result, found in zip(results, profiles, strict=True):
            for name, views in result.rows.items():
                profile = found.get(name, {})
                rows[name].setdefault(canonical_json(dict(profile)), (profile, []))[1].extend(views)
            for name, (reason, message) in result.failures.items():
                key = None if kept_by_path(reason) else result.task.key
                failure = Failure(key=key, id=result.task.id, path=result.task.name, reason=reason, message=message)
                failures[name].append(failure)
        store = FeatureStore(self.root)
        for name in sorted({*rows, *failures}):
            spec, license = self.sets[name]
            feature_set = store.create_set(spec, license=license)
            for profile, batch in rows[name].values():
                feature_set.append(batch, profile=profile, run_id=self.run_id)
            if failures[name]:
                feature_set.add_failures(failures[name], run_id=self.run_id)


def common_profile(config: ExtractConfig) -> dict[str, str]:
    """What is the same in the numerics profile of every backbone."""
    return {"decoder": config.decoder, **versions("av", "torch", "transformers")}


def versions(*packages: str) -> dict[str, Any]:
    """Versions of those of `packages` that are installed here."""
    installed = package_versions()
    return {name: installed[name] for name in packages if name in installed}
