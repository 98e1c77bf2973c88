"""`vqa-train store repair|diff|merge|tag|tags|untag`: what is printed, the exit codes, and the same as JSON."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from vqa_train.cli import common, store
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureStore

SPEC = FeatureSpec(backbone="bge", definition=1, modality="text", outputs=(OutputSpec(name="pooled", shape=(3,)),))


@pytest.fixture
def root(tmp_path):
    add(tmp_path / "store", range(2))
    return tmp_path / "store"


def add(root, numbers, value=0.0, license="MIT"):
    features = FeatureStore(root).create_set(SPEC, license=license)
    rows = [FeatureRow(key=f"{n:064x}", outputs={"pooled": np.full(3, n + value, np.float32)}) for n in numbers]
    features.append(rows, profile={}, run_id="r")
    features.snapshot()


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*arguments)`: exit code, stdout, stderr of the command."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["vqa-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            common.run(store.app)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


def test_repair_moves_the_damaged_shard_aside_and_says_how_many_keys_it_held(run, root):
    shard = next(root.rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert run("verify", root)[0] == 3
    code, out, _ = run("repair", root, "--dry-run")
    assert (code, "would be moved aside (2 keys to extract again)" in out) == (0, True)
    assert run("verify", root)[0] == 3
    code, out, _ = run("repair", root)
    assert (code, "moved aside (2 keys to extract again)" in out) == (0, True)
    assert run("verify", root)[0] == 0
    assert json.loads(run("repair", root, "--json", "-")[1])["moved"] == []


def test_repair_that_leaves_something_fails_the_gate(run, root):
    next(root.rglob("spec.json")).unlink()
    code, out, err = run("repair", root)
    assert code == 3
    assert "writes it anew" in out
    assert "problems stay" in err


def test_diff_of_equal_stores_is_done_and_of_others_fails_the_gate(run, root, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(root, other)
    code, out, _ = run("diff", root, other)
    assert (code, out.splitlines()[-1]) == (0, "same")
    add(other, [7])
    code, out, err = run("diff", root, other)
    assert (code, out.splitlines()[-1]) == (3, "DIFFERENT")
    assert f"only b: {7:064x} view 0" in out
    assert "differ" in err
    value = json.loads(run("diff", root, other, "--json", "-")[1])
    assert (value["schema"], value["same"], value["sets"][0]["counts"]["only_b"]) == (
        "vqa-train/store-diff/1",
        False,
        1,
    )


def test_diff_says_how_much_rows_differ_and_that_a_set_is_missing(run, root, tmp_path):
    add(tmp_path / "b", range(2), value=1.0)
    code, out, _ = run("diff", root, tmp_path / "b")
    assert (code, "output pooled: differs up to 0.5 of its size" in out) == (3, True)
    FeatureStore(tmp_path / "c").create()
    assert f"only {root} has feature set {SPEC.set_name}" in run("diff", root, tmp_path / "c")[1]


def test_diff_sees_another_licence(run, root, tmp_path):
    add(tmp_path / "b", range(2), license="CC0-1.0")
    code, out, _ = run("diff", root, tmp_path / "b")
    assert (code, "licences differ: 'MIT' and 'CC0-1.0'" in out) == (3, True)


def test_a_store_is_compared_with_itself_as_it_was_tagged(run, root):
    code, out, _ = run("tag", root, "before")
    assert (code, out.splitlines()[0]) == (0, "1 tags")
    assert run("diff", f"{root}#before", root)[0] == 0
    add(root, [5])
    code, out, _ = run("diff", f"{root}#before", root, "--set", "bge")
    assert (code, "0 only in" in out, "1 only in" in out) == (3, True, True)
    code, _, err = run("diff", f"{root}#befor", root)
    assert (code, "did you mean 'before'" in err) == (1, True)


def test_tags_are_made_listed_moved_and_removed(run, root):
    run("tag", root, "paper", SPEC.set_name)
    (listed,) = json.loads(run("tags", root, "--json", "-")[1])["tags"]
    assert (listed["tag"], listed["rows"], listed["shards"], listed["missing_shards"]) == ("paper", 2, 1, 0)
    add(root, [9])
    code, _, err = run("tag", root, "paper")
    assert (code, "--move" in err) == (1, True)
    assert run("tag", root, "paper", "--move")[0] == 0
    assert json.loads(run("tags", root, "--json", "-")[1])["tags"][0]["rows"] == 3
    assert run("untag", root, "paper")[0] == 0
    assert json.loads(run("tags", root, "--json", "-")[1])["tags"] == []
    code, _, err = run("untag", root, "paper")
    assert (code, "has no tag 'paper'" in err) == (1, True)


def test_merge_copies_and_says_what(run, root, tmp_path):
    add(tmp_path / "b", [4])
    code, out, _ = run("merge", root, tmp_path / "b", "--output", tmp_path / "c")
    assert (code, "2 shards with 3 rows copied, 0 were there" in out) == (0, True)
    assert run("verify", tmp_path / "c")[0] == 0
    value = json.loads(run("merge", root, "--output", tmp_path / "c", "--json", "-")[1])
    assert (value["schema"], value["sets"][0]["there"]) == ("vqa-train/store-merge/1", 1)


def test_merge_of_two_licences_is_an_error(run, root, tmp_path):
    add(tmp_path / "b", [4], license="CC0-1.0")
    code, _, err = run("merge", root, tmp_path / "b", "--output", tmp_path / "c")
    assert (code, "licence" in err) == (1, True)


@pytest.mark.parametrize("arguments", [["--deep"], ["--dataset", "x.yaml"]])
def test_half_of_deep_is_wrong_usage(run, root, arguments):
    assert run("verify", root, *arguments)[0] == 2
