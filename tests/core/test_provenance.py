import subprocess
from pathlib import Path

import pytest

from vqa_train.core.hashing import sha256_json
from vqa_train.core.provenance import RunProvenance, file_entry, git_state, redact, redact_argv


def test_secrets_and_home_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    argv = ["vqa-train", "--hf-token", "abc", "--api-key=xyz", "/home/ada/v.mp4", "s3://key:pw@host/x", "hf_abcdefghij"]
    assert redact_argv(argv) == [
        "vqa-train", "--hf-token", "***", "--api-key=***", "~/v.mp4", "s3://***@host/x", "***",
    ]  # fmt: skip
    assert redact("--features store") == "--features store"


def test_block_has_every_field_and_hashes_the_config() -> None:
    block = RunProvenance(entrypoint="fit", config={"lr": 0.1}, argv=["vqa-train", "fit"]).to_json()
    assert set(block) == {
        "schema", "run_id", "entrypoint", "argv", "config", "config_sha256", "inputs", "outputs", "git", "packages",
        "python", "platform", "cpus", "device", "seeds", "started", "duration_s", "counts",
    }  # fmt: skip
    assert block["config_sha256"] == sha256_json({"lr": 0.1})
    assert "numpy" in block["packages"]


def test_git_state_sees_commit_and_dirt(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None

    def git(*words: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "f").write_text("1")
    git("add", "f")
    git("commit", "-qm", "x")
    state = git_state(tmp_path)
    assert state is not None
    assert (len(state["commit"]), state["dirty"]) == (40, False)
    (tmp_path / "f").write_text("2")
    changed = git_state(tmp_path)
    assert changed is not None
    assert changed["dirty"] is True


def test_file_entry_names_bytes_and_hash(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    entry = file_entry(tmp_path / "f", "thing")
    assert (entry["bytes"], entry["kind"], entry["sha256"][:8]) == (3, "thing", "ba7816bf")
