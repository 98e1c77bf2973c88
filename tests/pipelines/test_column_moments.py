"""Moments of rows that come in blocks are NumPy's of all rows together."""

from __future__ import annotations

import numpy as np
import pytest

from vqa_train.pipelines.fit.column_moments import ColumnMoments


@pytest.mark.parametrize("shape", [(60, 4), (60, 3, 4)])
def test_blocks_give_what_all_rows_give(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    rows = (1000 + np.arange(60).reshape(-1, *[1] * (len(shape) - 1)) + rng.normal(size=shape)).astype(np.float32)
    rows[5] = np.nan
    rows[7, ..., 1] = np.inf
    rows[..., 3] = np.nan
    moments = ColumnMoments(4)
    for block in np.array_split(rows, [1, 20, 20, 45]):
        moments.add(block)
    flat = rows.reshape(-1, 4).astype(np.float64)
    flat[np.isinf(flat)] = np.nan
    assert moments.rows == 59
    assert moments.missing == pytest.approx(np.isnan(flat).mean())
    assert moments.mean[:3] == pytest.approx(np.nanmean(flat[:, :3], axis=0), rel=1e-12)
    assert moments.std[:3] == pytest.approx(np.nanstd(flat[:, :3], axis=0), rel=1e-9)
    assert moments.low[:3].tolist() == np.nanmin(flat[:, :3], axis=0).tolist()
    assert moments.high[:3].tolist() == np.nanmax(flat[:, :3], axis=0).tolist()
    assert (moments.count[3], moments.mean[3], moments.std[3]) == (0, 0, 0)
