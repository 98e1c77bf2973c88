"""What a feature set offers beyond its verbs: single-row checks, profiles, runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.store.store import FeatureStore


def test_a_row_can_be_checked_before_its_batch(features, make_row):
    row = make_row(features.spec, 1)
    features.check(row)
    with pytest.raises(StoreError) as caught:
        features.check(replace(row, outputs={**row.outputs, "sharpness": np.float32(np.nan)}))
    assert caught.value.reason is Reason.NON_FINITE


def test_profiles_are_counted_over_shards(features, make_row):
    rows = [make_row(features.spec, n) for n in range(6)]
    features.append(rows[:1], profile={"decoder": "pyav", "device": "cpu"}, run_id="r")
    features.append(rows[1:3], profile={"device": "cpu", "decoder": "pyav"}, run_id="r")
    features.append(rows[3:5], profile={"device": "cuda"}, run_id="r")
    assert features.profiles() == [({"decoder": "pyav", "device": "cpu"}, 3), ({"device": "cuda"}, 2)]


def test_a_run_is_kept_under_its_id_and_replaced_by_a_later_state(features):
    features.write_run({"run_id": "r1", "counts": {}})
    path = features.write_run({"run_id": "r1", "counts": {"done": 3}})
    assert path == features.folder / "runs" / "r1.json"
    assert json.loads(path.read_text())["counts"] == {"done": 3}


@pytest.mark.parametrize("provenance", [{}, {"run_id": "../x"}])
def test_a_run_needs_an_id_that_names_a_file(features, provenance):
    with pytest.raises(StoreError, match="run id"):
        features.write_run(provenance)


def test_the_store_needs_no_torch_and_planning_no_arrow(root, spec):
    code = (
        "import sys; from pathlib import Path; from vqa_train.store.store import FeatureStore;"
        "FeatureStore.open(Path(sys.argv[1])).find('nss').known_keys();"
        "assert not {'torch', 'pyarrow', 'polars', 'sklearn'} & set(sys.modules), sorted(sys.modules)"
    )
    FeatureStore(root).create_set(spec, license="MIT")
    subprocess.run([sys.executable, "-c", code, root], check=True)
