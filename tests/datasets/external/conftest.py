"""One made table of features, as every kind of feature file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.io


@dataclass(frozen=True)
class Made:
    """20 rows of 3 features; row 2 has no label, row 4 a NaN and an infinity."""

    ids: list[str]
    mos: np.ndarray
    features: np.ndarray


@pytest.fixture
def made() -> Made:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(20, 3))
    features[4] = [np.nan, np.inf, -2.5]
    mos = rng.uniform(1, 5, 20)
    mos[2] = np.nan
    return Made([f"v{i}" for i in range(20)], mos, features)


def write(kind: str, made: Made, path: Path) -> Path:
    """`made` as `path`; columns video_id, mos and features, or f_0 to f_2 in a CSV."""
    if kind == "csv":
        lines = ["video_id,mos,f_0,f_1,f_2"]
        for name, mos, row in zip(made.ids, made.mos, made.features, strict=True):
            cells = ["" if np.isnan(mos) else repr(float(mos)), *(repr(float(value)) for value in row)]
            lines.append(",".join([name, *cells]))
        path.write_text("\n".join(lines) + "\n")
    elif kind == "parquet":
        frame = {"video_id": made.ids, "mos": [None if np.isnan(m) else m for m in made.mos]}
        pl.DataFrame({**frame, "features": pl.Series(made.features, dtype=pl.Array(pl.Float64, 3))}).write_parquet(path)
    elif kind == "npz":
        with path.open("wb") as handle:
            np.savez(handle, video_id=np.array(made.ids), mos=made.mos, features=made.features)
    else:
        ids = np.array(made.ids, dtype=object)
        scipy.io.savemat(path, {"video_id": ids, "mos": made.mos, "features": made.features})
    return path


@pytest.fixture(params=["parquet", "csv", "npz", "mat"])
def any_file(request: pytest.FixtureRequest, made: Made, tmp_path: Path) -> Path:
    """The table as a file of each kind."""
    return write(request.param, made, tmp_path / f"table.{request.param}")


@pytest.fixture
def table(made: Made, tmp_path: Path) -> Callable[[str], Path]:
    """`table(kind)`: the table as a file of that kind."""
    return lambda kind: write(kind, made, tmp_path / f"table.{kind}")
