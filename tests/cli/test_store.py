"""`vqa-train store` prints what it found, exits as documented, and writes the same as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vqa_train.cli import common, store
from vqa_train.core.errors import Reason
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store.rows import Failure, FeatureRow
from vqa_train.store.seal import sealed
from vqa_train.store.store import FeatureStore

SPEC = FeatureSpec(backbone="bge", definition=1, modality="text", outputs=(OutputSpec(name="pooled", shape=(3,)),))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "store"
    features = FeatureStore(root).create_set(SPEC, license="Apache-2.0")
    rows = [FeatureRow(key=f"{n:064x}", outputs={"pooled": np.full(3, n, np.float32)}) for n in range(2)]
    features.append(rows, profile={"device": "cpu", "precision": "float32"}, run_id="r")
    failure = Failure(key=None, id="b", path="b.mp4", reason=Reason.UNREADABLE, message="permission denied")
    features.add_failures([failure], "r")
    features.snapshot()
    return root


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


def test_info_prints_rows_licence_profile_and_failures(run, root):
    code, out, _ = run("info", root)
    assert code == 0
    for text in (SPEC.set_name, SPEC.fingerprint, "Apache-2.0", "pooled (3,)", "device=cpu, precision=float32"):
        assert text in out
    assert "2 rows: device" in out
    assert "1 unreadable" in out


def test_info_of_an_empty_store_says_so(run, root):
    for path in sorted((root / SPEC.set_name).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert run("info", root)[:2] == (0, f"{root}: no feature sets\n")


def test_verify_of_a_whole_store_is_done(run, root):
    code, out, err = run("verify", root)
    assert (code, err) == (0, "")
    assert out.startswith("ok: 1 feature sets, 1 shards, 2 rows")


def test_verify_of_a_damaged_store_fails_the_gate_and_names_each_problem(run, root):
    shard = next(root.rglob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 4
    shard.write_bytes(bytes(data))
    (root / SPEC.set_name / "manifest.json").unlink()
    code, out, err = run("verify", root)
    assert code == 3
    problems = out.splitlines()[:-1]
    assert any(shard.name in line and "is damaged" in line for line in problems)
    assert any("manifest.json' is missing" in line for line in problems)
    assert out.splitlines()[-1].startswith("DAMAGED")
    assert err == f"error: {len(problems)} problems in {str(root)!r}\n"


def test_failures_are_printed_and_chosen_by_reason(run, root):
    assert "permission denied" in run("failures", root)[1]
    code, out, _ = run("failures", root, "--reason", "timeout")
    assert (code, out.splitlines()[0]) == (0, "0 failures")


def test_an_unknown_reason_is_wrong_usage(run, root):
    code, _, err = run("failures", root, "--reason", "bad-luck")
    assert code == 2
    assert "timeout" in err


def test_gc_deletes_only_when_told_and_only_what_is_old(run, root):
    orphan = next(root.rglob("*.parquet")).with_name("orphan.parquet")
    orphan.write_bytes(b"12345")
    assert "0 files, 0 bytes would be deleted" in run("gc", root)[1]
    assert "1 files, 5 bytes would be deleted" in run("gc", root, "--grace", "0")[1]
    assert orphan.exists()
    assert "1 files, 5 bytes deleted" in run("gc", root, "--grace", "0", "--delete")[1]
    assert not orphan.exists()


@pytest.mark.parametrize("command", ["info", "verify", "failures", "gc"])
def test_json_goes_to_stdout_alone_or_to_a_file_beside_the_table(run, root, tmp_path, command):
    code, out, _ = run(command, root, "--json", "-")
    assert code == 0
    value = json.loads(out)
    assert value["schema"] == f"vqa-train/store-{command}/1"
    _, table, _ = run(command, root, "--json", tmp_path / "report.json")
    assert table
    assert json.loads((tmp_path / "report.json").read_text()) == value


def test_json_of_a_damaged_store_is_written_before_the_gate_fails(run, root):
    next(root.rglob("*.parquet")).unlink()
    code, out, _ = run("verify", root, "--json", "-")
    assert (code, json.loads(out)["ok"]) == (3, False)


@pytest.mark.parametrize("command", ["info", "verify", "failures", "gc"])
def test_what_is_no_store_is_an_error_in_one_line(run, tmp_path, command):
    code, out, err = run(command, tmp_path / "absent")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "is not a feature store: it does not exist" in err
    assert err.count("\n") == 1


def test_compact_merges_and_says_into_how_many(run, root):
    features = FeatureStore.open(root).find("bge")
    rows = [FeatureRow(key=f"{n:064x}", outputs={"pooled": np.full(3, n, np.float32)}) for n in range(2, 5)]
    features.append(rows, profile={"device": "cpu", "precision": "float32"}, run_id="r")
    code, out, _ = run("compact", root, "bge", "--dry-run", "--json", "-")
    planned = json.loads(out)
    assert (code, planned["dry_run"], planned["sets"][0]["shards_after"]) == (0, True, 1)
    assert len(features.commits()) == 2
    code, out, _ = run("compact", root)
    assert code == 0
    assert SPEC.set_name in out
    (commit,) = FeatureStore.open(root).find("bge").commits()
    assert commit.rows == 5
    assert run("verify", root, "--content")[0] == 0


def test_compact_refuses_a_set_that_is_not_there(run, root):
    code, _, err = run("compact", root, "nothing")
    assert code == 1
    assert "has no feature set 'nothing'" in err


def test_verify_compares_the_content_when_asked(run, root):
    """A commit that lies about its rows, both files whole: no hash tells, the rows do."""
    features = FeatureStore.open(root).find("bge")
    (commit,) = features.commits()
    path = features.folder / "shards" / f"{commit.shard}.json"
    record = json.loads(path.read_text())
    record["digests"].reverse()
    path.write_bytes(sealed(record))
    (features.folder / "manifest.json").unlink()
    for snapshot in (features.folder / "snapshots").glob("*"):
        snapshot.unlink()
    assert run("verify", root)[0] == 0
    code, out, _ = run("verify", root, "--content")
    assert code == 3
    assert "digests differ" in out
