"""Feature files of MATLAB, up to version 7 (SciPy reads them); version 7.3 is HDF5 and is not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import DependencyError
from vqa_train.datasets.external.array_file import ArrayFeatures
from vqa_train.datasets.external.base import FeatureFileError


class MatFeatures(ArrayFeatures):
    """Matrices, char matrices and cells of texts or numbers, by variable name."""

    format = "mat"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            from scipy.io import whosmat
        except ModuleNotFoundError as error:
            raise DependencyError(
                f"{self.what} needs the package 'scipy', which is not installed", hint="pip install 'vqa-train[train]'"
            ) from error
        try:
            found = whosmat(str(path))
        except NotImplementedError as error:
            raise newer(path) from error
        except Exception as error:  # a damaged file makes SciPy raise anything from struct.error to IndexError
            raise self.damaged(error) from error
        self._shapes = {name: tuple(shape) for name, shape, _ in found}
        self.names = tuple(self._shapes)
        if not self.names:
            raise FeatureFileError(f"{self.what} holds no variables")

    def versions(self) -> dict[str, str]:
        """SciPy's."""
        import scipy

        return {"scipy": scipy.__version__}

    def shape(self, name: str) -> tuple[int, ...]:
        """See ArrayFeatures."""
        return self._shapes[name]

    def array(self, name: str) -> NDArray[Any]:
        """See ArrayFeatures; a cell array gives its texts or numbers."""
        from scipy.io import loadmat

        try:
            array = loadmat(str(self.path), variable_names=[name])[name]
        except Exception as error:  # as above
            raise self.damaged(error) from error
        if not isinstance(array, np.ndarray) or array.dtype.names:
            raise FeatureFileError(
                f"{self.what}: {name!r} is a struct or a sparse matrix, expected a full matrix or a cell"
            )
        return _opened(array) if array.dtype == object else array


def newer(path: Path) -> FeatureFileError:
    """The error for a file of MATLAB 7.3."""
    return FeatureFileError(
        f"feature file {str(path)!r} is MATLAB 7.3 (HDF5), which is not read", hint="save it with save(..., '-v7')"
    )


def _opened(cells: NDArray[Any]) -> NDArray[Any]:
    """The values in a cell array; an empty cell is None, one with several values stays an array, which is no text."""
    values = np.empty(cells.size, dtype=object)
    for i, cell in enumerate(cells.reshape(-1)):
        inner = np.asarray(cell)
        values[i] = None if inner.size == 0 else inner.reshape(-1)[0].item() if inner.size == 1 else inner
    if all(isinstance(value, int | float) for value in values):
        return values.astype(np.float64)
    return values
