import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.hashing import canonical_json, seed_from, sha256_bytes, sha256_file, sha256_json, unit_interval


def test_sha256_of_the_standards_example() -> None:
    # FIPS 180-2, appendix B.1.
    assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_file_hash_reads_past_one_piece(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    path = tmp_path / "f"
    path.write_bytes(data)
    assert sha256_file(path) == hashlib.sha256(data).hexdigest()


def test_canonical_json_does_not_depend_on_key_order() -> None:
    assert sha256_json({"b": 1, "a": [1.5, None]}) == sha256_json({"a": [1.5, None], "b": 1})
    assert canonical_json({"ä": 1, "a": 2}) == '{"a":2,"ä":1}'


def test_nan_has_no_identity() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": float("nan")})


@given(st.text(), st.text())
def test_seeds_differ_between_contents_and_stay_in_range(a: str, b: str) -> None:
    assert 0 <= seed_from(a) < 2**63
    assert 0.0 <= unit_interval(a) < 1.0
    assert (seed_from(a) == seed_from(b)) == (a == b)


def test_seed_is_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(b"split\x1fscene-1").digest()
    assert seed_from("split", "scene-1") == int.from_bytes(digest[:8], "big") >> 1


def test_unit_interval_is_uniform() -> None:
    draws = [unit_interval("u", i) for i in range(4000)]
    assert abs(sum(draws) / len(draws) - 0.5) < 0.02
    assert sum(d < 0.1 for d in draws) == pytest.approx(400, abs=80)
