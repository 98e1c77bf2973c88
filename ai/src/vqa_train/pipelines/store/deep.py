"""`store verify --deep`: extracts a sample of keys again and compares the rows with those that the store holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import UsageError, VqaError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.engines.base import VideoTask
from vqa_train.pipelines.extract.build import configure
from vqa_train.pipelines.extract.compute import resolve_compute
from vqa_train.pipelines.extract.config import ExtractConfig
from vqa_train.pipelines.extract.run import engine_options, one_thread_per_clip
from vqa_train.store.commits import places
from vqa_train.store.diff import relative_difference
from vqa_train.store.feature_set import FeatureSet
from vqa_train.store.store import FeatureStore

SAME, OTHER_DEVICE, REDUCED = 1e-5, 1e-4, 1e-2
"""How far two extractions of one clip may be apart, as a part of the largest size of the output: docs/extraction.md."""
_LISTED = 5

Rows = dict[tuple[str, int], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True)
class DeepConfig:
    """What to extract again.

    Attributes:
        dataset: manifest name or path, whose videos (or prompts) the sample is drawn from.
        sample: keys per feature set; which ones is decided by `seed` and their hashes.
        sets: selectors of feature sets; empty for all.
        data_root, manifests_dir, device, decoder, workers: as `ExtractConfig`.
    """

    dataset: str
    sample: int = 8
    seed: int = 0
    sets: tuple[str, ...] = ()
    data_root: Path | None = None
    manifests_dir: Path | None = None
    device: str = "auto"
    decoder: str = "pyav"
    workers: int = 2


@dataclass
class DeepSet:
    """What the second extraction of one feature set gave.

    Attributes:
        checked: rows that were compared.
        unchecked: why none were; None where some were.
        bound: the largest bound that applied.
        largest: output -> the largest difference, as a part of the largest size of that output in the sample.
        problems: one line each.
    """

    name: str
    checked: int = 0
    unchecked: str | None = None
    bound: float = SAME
    largest: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON values; an infinite difference as null."""
        value = asdict(self)
        value["largest"] = {name: gap if np.isfinite(gap) else None for name, gap in self.largest.items()}
        return value


def verify_deep(root: Path, config: DeepConfig, *, log: Callable[[str], None] = lambda _: None) -> list[DeepSet]:
    """Extract a sample of every feature set again.

    A set whose backbone is not at hand (weights, package), whose features were imported, or of which the dataset has no
    file, is reported as unchecked.

    Raises:
        UsageError: nothing could be checked at all; a sample below 1.
        StoreError, ManifestError: as opening them.
    """
    if config.sample < 1:
        raise UsageError(f"--sample must be at least 1, got {config.sample}")
    store = FeatureStore.open(root)
    sets = [store.find(name) for name in config.sets] or store.sets()
    dataset = load_dataset(
        config.dataset, data_root=config.data_root, manifests_dir=config.manifests_dir, stores=[root]
    )
    found = []
    for feature_set in sets:
        log(f"{feature_set.name}: extracting up to {config.sample} keys again")
        try:
            found.append(_check(feature_set, dataset, config))
        except VqaError as error:
            found.append(DeepSet(feature_set.name, unchecked=str(error)))
    if all(each.unchecked is not None for each in found):
        why = "; ".join(f"{each.name}: {each.unchecked}" for each in found) or "the store has no feature sets"
        raise UsageError(f"nothing could be extracted again: {why}")
    return found


def _check(feature_set: FeatureSet, dataset: Dataset, config: DeepConfig) -> DeepSet:
    spec = feature_set.spec
    if spec.imported:
        return DeepSet(feature_set.name, unchecked="its features were imported")
    known = feature_set.known_keys()
    if spec.modality == "text":
        texts = {_key(video.prompt): video.prompt for video in dataset.videos if video.prompt and video.prompt.strip()}
        keys = _sample(known & texts.keys(), config)
        return _compare(feature_set, keys, lambda: _encode(feature_set, {key: texts[key] for key in keys}, config))
    videos = {video.sha256: video for video in (*dataset.references, *dataset.videos)}
    there = {key for key in known & videos.keys() if dataset.has_videos and _is_file(dataset, videos[key])}
    keys = _sample(there, config)
    return _compare(feature_set, keys, lambda: _extract(feature_set, [videos[key] for key in keys], dataset, config))


def _key(text: str) -> str:
    return sha256_bytes(text.encode("utf-8"))


def _is_file(dataset: Dataset, video: Video) -> bool:
    try:
        return dataset.path_of(video).is_file()
    except (OSError, VqaError):
        return False


def _sample(keys: set[str], config: DeepConfig) -> list[str]:
    return sorted(keys, key=lambda key: hashlib.sha256(f"{config.seed} {key}".encode()).digest())[: config.sample]


def _compare(feature_set: FeatureSet, keys: Sequence[str], again: Callable[[], tuple[Rows, list[str]]]) -> DeepSet:
    result = DeepSet(feature_set.name)
    if not keys:
        result.unchecked = "the dataset has no file or prompt of any of its keys"
        return result
    rows, result.problems = again()
    commits = feature_set.commits()
    by_name = {commit.shard: commit for commit in commits}
    where = places(commits, set(keys))
    wanted = [row for row in sorted(where) if row[0] in {key for key, _ in rows}]
    missing = [row for row in wanted if row not in rows]
    result.problems += [
        f"key {key[:12]} has a view {view} that extracting it again does not give" for key, view in missing
    ]
    wanted = [row for row in wanted if row in rows]
    bounds = {row: _bound(by_name[where[row].shard].profile) for row in wanted}
    result.checked, result.bound = len(wanted), max(bounds.values(), default=SAME)
    for output in feature_set.spec.outputs if wanted else ():
        stored = {view: _stored(feature_set, output.name, wanted, view) for view in {view for _, view in wanted}}
        left = [stored[view][key] for key, view in wanted]
        right = [rows[row][output.name] for row in wanted]
        size = max((float(np.abs(np.nan_to_num(value)).max(initial=0.0)) for value in left), default=0.0)
        gaps = [_gap(a, b, size) for a, b in zip(left, right, strict=True)]
        result.largest[output.name] = max(gaps)
        beyond = [(row, gap) for row, gap in zip(wanted, gaps, strict=True) if gap > bounds[row]]
        for (key, view), gap in beyond[:_LISTED]:
            result.problems.append(
                f"output {output.name!r} of key {key[:12]} view {view}: extracted again it differs by {gap:.2g} of the "
                f"output's size, more than {bounds[key, view]:.0e}"
            )
        if len(beyond) > _LISTED:
            result.problems.append(f"output {output.name!r}: {len(beyond) - _LISTED} further rows differ as much")
    return result


def _gap(stored: NDArray[np.float32], again: NDArray[np.float32], size: float) -> float:
    """Largest difference as a part of `size`; relative to the row itself where that is larger, infinite for NaN."""
    if not (np.isfinite(stored).all() and np.isfinite(again).all()):
        return relative_difference(stored, again)
    gap = float(np.abs(stored.astype(np.float64) - again).max(initial=0.0))
    return gap / max(size, float(np.abs(again).max(initial=0.0))) if gap else 0.0


def _stored(
    feature_set: FeatureSet, output: str, wanted: Sequence[tuple[str, int]], view: int
) -> dict[str, NDArray[np.float32]]:
    keys = [key for key, which in wanted if which == view]
    return dict(zip(keys, feature_set.matrix(output, keys, view), strict=True))


def _bound(profile: dict[str, str]) -> float:
    """The bound between a row of `profile` and the same row extracted here in float32."""
    if profile.get("precision", "float32") != "float32":
        return REDUCED
    return SAME if profile.get("device", "cpu") == "cpu" else OTHER_DEVICE


def _same_meaning(feature_set: FeatureSet, extractor: Any) -> None:
    if extractor.spec.fingerprint != feature_set.fingerprint:
        raise UsageError(
            f"the backbone {extractor.spec.backbone!r} here has fingerprint {extractor.spec.fingerprint[:12]}",
            hint="other weights, settings or another version of vqa-train made these features",
        )


def _encode(feature_set: FeatureSet, texts: dict[str, str], config: DeepConfig) -> tuple[Rows, list[str]]:
    from vqa_train.backbones.build import build_text_encoder

    encoder = build_text_encoder(feature_set.spec.backbone)
    _same_meaning(feature_set, encoder)
    encoder.configure(resolve_compute(config.device, "float32"))
    vectors = encoder.encode(list(texts.values()))
    return {(key, 0): {"pooled": vector} for key, vector in zip(texts, vectors, strict=True)}, []


def _extract(
    feature_set: FeatureSet, videos: Sequence[Video], dataset: Dataset, config: DeepConfig
) -> tuple[Rows, list[str]]:
    from vqa_train.backbones.base import VideoBackbone
    from vqa_train.backbones.build import rebuild
    from vqa_train.engines import ENGINES

    backbone = rebuild(feature_set.spec)
    if not isinstance(backbone, VideoBackbone):
        raise UsageError(f"{feature_set.spec.backbone!r} is no video backbone here")
    _same_meaning(feature_set, backbone)
    compute = resolve_compute(config.device, "float32")
    configure([backbone], compute)
    name = feature_set.name
    tasks = [VideoTask(key=v.sha256, path=dataset.path_of(v), verify=True, sets=(name,)) for v in videos]
    like = ExtractConfig(
        dataset=config.dataset, output=feature_set.folder.parent, decoder=config.decoder, workers=config.workers
    )
    rows: Rows = {}
    problems = []
    results = ENGINES.get("local")().run(tasks, {name: backbone}, engine_options(like, compute))
    with one_thread_per_clip(), closing(results):
        for result in results:
            for row in result.rows.get(name, ()):
                rows[row.key, row.view] = dict(row.outputs)
            for reason, message in result.failures.values():
                problems.append(f"key {result.task.key[:12]} cannot be extracted again ({reason}): {message}")
    return rows, problems
