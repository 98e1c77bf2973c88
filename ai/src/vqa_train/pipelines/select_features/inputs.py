"""Which feature sets select-features chooses from where no recipe says so: those named, or all that a store has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.core.types import Video
from vqa_train.datasets.load import load_dataset
from vqa_train.heads.config import HeadConfig, LossConfig, TrainConfig, ValidationConfig
from vqa_train.pipelines.fit.config import FitConfig, parse_fit_config
from vqa_train.pipelines.table import FeatureInput, feature_key
from vqa_train.store.store import FeatureStore

DEFAULT_RECIPE = TrainConfig(
    head=HeadConfig(kind="mlp", hidden=(64, 32), dropout=0.2),
    loss=LossConfig(smooth_l1=0.5, rank=0.0, plcc=1.0),
    patience=None,
    validation=ValidationConfig(fraction=0),
)
"""Head that is trained on each choice of sets where no recipe is named."""
_OUTPUT = "pooled"


def recipe_of(inputs: Mapping[str, FeatureInput], datasets: Sequence[str]) -> FitConfig:
    """A recipe of `DEFAULT_RECIPE` for these inputs.

    Raises:
        UsageError: no dataset.
    """
    if not datasets:
        raise UsageError("no dataset named", hint="pass --dataset, or a recipe with --config")
    value = {
        "schema": "vqa-train/fit/1",
        "dataset": list(datasets),
        "features": {name: found.model_dump() for name, found in inputs.items()},
        "train": DEFAULT_RECIPE.model_dump(mode="json"),
    }
    return parse_fit_config(value, "select-features")


def inputs_of_store(
    store: Path,
    datasets: Sequence[str],
    *,
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    note: Callable[[str], None],
) -> dict[str, FeatureInput]:
    """The `pooled` output of every set of a store that has features of the datasets, by the set's name.

    Args:
        store: the store.
        datasets: names or paths.
        note: is told of each set that is left out, and why.

    Raises:
        UsageError: no dataset.
        ConfigError: no set is left.
        ManifestError, LabelError, StoreError: a dataset or a store that cannot be read.
    """
    if not datasets:
        raise UsageError("no dataset named", hint="pass --dataset, or a recipe with --config")
    videos: list[Video] = []
    for name in datasets:
        root = data_root / Path(name).stem if data_root is not None and len(datasets) > 1 else data_root
        root = root if root is None or root.is_dir() else data_root
        videos += load_dataset(name, data_root=root, manifests_dir=manifests_dir, stores=[store]).videos
    sets = FeatureStore.open(store).sets()
    times = Counter(found.spec.backbone for found in sets)
    inputs: dict[str, FeatureInput] = {}
    for found in sets:
        shapes = {output.name: output.shape for output in found.spec.outputs}
        if _OUTPUT not in shapes or len(shapes[_OUTPUT]) != 1:
            note(f"{found.name} is left out: it has no output {_OUTPUT!r}; name another one with --input")
            continue
        known = found.known_keys()
        there = sum(feature_key(found.spec, video) in known for video in videos)
        if not there:
            note(f"{found.name} is left out: it has none of the {len(videos)} videos")
            continue
        if there < len(videos):
            note(f"{found.name} has {there} of the {len(videos)} videos; all sets are compared on videos that all have")
        name = found.spec.backbone if times[found.spec.backbone] == 1 else found.name.replace("@", "-")
        inputs[name] = FeatureInput(set=found.name, output=_OUTPUT)
    if not inputs:
        raise ConfigError(
            f"store {str(store)!r} has no features of dataset {', '.join(datasets)}",
            hint="run `vqa-train extract-features` or `vqa-train import-features` first",
        )
    return inputs
