"""Opens a feature file of any kind, told apart by its first bytes."""

from __future__ import annotations

from pathlib import Path

from vqa_train.core.errors import Reason
from vqa_train.datasets.external.base import FeatureFile, FeatureFileError

_TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".csv.bz2")
KINDS = "Parquet, CSV, npz and .mat (up to version 7)"


def open_feature_file(path: Path) -> FeatureFile:
    """The feature file at `path`.

    Raises:
        FeatureFileError: missing, empty, damaged or of a kind that is not read.
        DependencyError: a .mat file without SciPy.
    """
    head = _head(path)
    if head.startswith(b"PAR1"):
        from vqa_train.datasets.external.parquet_file import ParquetFeatures

        return ParquetFeatures(path)
    if head.startswith(b"PK"):
        from vqa_train.datasets.external.npz_file import NpzFeatures

        return NpzFeatures(path)
    if head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        from vqa_train.datasets.external.mat_file import newer

        raise newer(path)
    if head.startswith(b"MATLAB") or path.suffix == ".mat":
        from vqa_train.datasets.external.mat_file import MatFeatures

        return MatFeatures(path)
    if path.name.lower().endswith(_TEXT):
        from vqa_train.datasets.external.csv_file import CsvFeatures

        return CsvFeatures(path)
    what = f"feature file {str(path)!r}"
    if path.suffix in (".parquet", ".npz"):
        raise FeatureFileError(
            f"{what} is not what its name says: it begins with {head[:8]!r}", reason=Reason.UNREADABLE
        )
    raise FeatureFileError(f"{what} is of a kind that is not read", hint=f"{KINDS} are; CSV ends in {', '.join(_TEXT)}")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            head = handle.read(128)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise FeatureFileError(
            f"feature file {str(path)!r} cannot be read: {error.strerror}",
            reason=Reason.MISSING_FILE if missing else Reason.UNREADABLE,
        ) from error
    if not head:
        raise FeatureFileError(f"feature file {str(path)!r} is empty", reason=Reason.EMPTY_FILE)
    return head
