"""Resolves what the columns of a feature file mean: what was asked for, else what the usual names say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.datasets.external.base import FeatureFile, FeatureFileError
from vqa_train.datasets.external.labels import LabelColumns
from vqa_train.datasets.external.select import select_columns
from vqa_train.pipelines.importing.config import ImportConfig

ID, FEATURES, MOS, MOS_STD, GROUP = "video_id", "features", "mos", "mos_std", "content_id"


@dataclass(frozen=True)
class Resolved:
    """The columns of a file: `features` (one vector, or numbers side by side), what is about the rows, and the rest."""

    features: list[str]
    vector: bool
    labels: LabelColumns
    unused: list[str]


def resolve_columns(file: FeatureFile, config: ImportConfig) -> Resolved:
    """Which columns are read as what.

    Raises:
        UsageError: options that contradict each other, or a file without a usual name and no option that names one.
        FeatureFileError: a column that is not there.
    """
    if config.number_rows and config.id_column is not None:
        raise UsageError("--number-rows and --id-column both decide the ids", hint="keep one")
    if config.features_column is not None and config.dim_columns:
        raise UsageError("--features-column and --dim-columns both name the features", hint="keep one")
    labels = _label_columns(file, config)
    taken = {*labels.texts, *labels.numbers}
    if config.dim_columns:
        features = select_columns(file, config.dim_columns, taken)
    else:
        features = [config.features_column or FEATURES]
        if config.features_column is None and FEATURES not in file.names:
            raise UsageError(f"{file.what} has no column {FEATURES!r}; it has {file.listed()}", hint=_FEATURES_HINT)
        file.check_columns(features)
    both = [name for name in features if name in taken]
    if both:
        raise UsageError(f"column {both[0]!r} is named as a feature and as an id, label, group or split")
    vectors = [name for name in features if file.is_vector(name)]
    if vectors and len(features) > 1:
        raise UsageError(
            f"column {vectors[0]!r} of {str(file.path)!r} holds vectors, the other features are numbers",
            hint="import it by itself, with --features-column",
        )
    unused = [name for name in file.names if name not in {*taken, *features}]
    return Resolved(features, bool(vectors), labels, unused)


_FEATURES_HINT = "name a column of vectors with --features-column, or columns of numbers with --dim-columns 'f_*'"


def _label_columns(file: FeatureFile, config: ImportConfig) -> LabelColumns:
    found = set(file.names)
    # Against the videos of a dataset its own labels count, unless others are asked for.
    usual = config.videos is None
    targets = config.labels if config.labels is not None else {MOS: MOS} if usual and MOS in found else {}
    std = config.std
    if std is None:
        std = {MOS: MOS_STD} if targets.get(MOS) == MOS and MOS_STD in found else {}
    group = config.group_column if config.group_column is not None else GROUP if usual and GROUP in found else None
    name = None if config.number_rows else config.id_column or ID
    if name is not None and config.id_column is None and name not in found:
        raise UsageError(
            f"{file.what} has no column {ID!r}; it has {file.listed()}",
            hint="name the column of the videos' ids with --id-column, or pass --number-rows where there are none",
        )
    unknown = [target for target in std if target not in targets]
    if unknown:
        raise UsageError(
            f"--std-column names {unknown[0]!r}, which is no --label", hint=did_you_mean(unknown[0], list(targets))
        )
    columns = LabelColumns(
        id=name,
        targets=targets,
        std=std,
        group=group or None,
        split=config.split_column or None,
        prompt=config.prompt_column or None,
    )
    file.check_columns([*columns.texts, *columns.numbers])
    return columns


def check_names(names: tuple[str, ...], dims: int, file: FeatureFile) -> None:
    """Refuse names of dimensions that are not one each.

    Raises:
        FeatureFileError: too many, too few, or one twice.
    """
    if names and (len(names) != dims or len(set(names)) != dims):
        raise FeatureFileError(
            f"{len(names)} --feature-names ({len(set(names))} distinct) for the {dims} dimensions of {str(file.path)!r}"
        )


def ranges_of(given: Mapping[str, tuple[float, float]], targets: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Target -> range, where one was given for it or for all.

    Raises:
        UsageError: a range of something that is no label, or with its ends the wrong way round.
    """
    for name, (low, high) in given.items():
        if name and name not in targets:
            raise UsageError(f"--mos-range of {name!r}, which is no --label", hint=did_you_mean(name, list(targets)))
        if not low < high:
            raise UsageError(f"--mos-range {low:g},{high:g}: the lowest score comes first and is below the highest")
    found = {target: given.get(target, given.get("")) for target in targets}
    return {target: bounds for target, bounds in found.items() if bounds is not None}
