"""`vqa-train models` prints what it found, exits as documented, and writes the same as JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from vqa_train.cli import common, models, models_keys
from vqa_train.registry.minisign_keys import SecretKey

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_registry: Any) -> Run:
    """`run(*arguments)`: exit code, stdout, stderr of the command on the registry."""
    monkeypatch.chdir(tiny_registry.root.parent)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["vqa-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            common.run(models.app)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture
def key(run: Run, tmp_path: Path) -> Path:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    assert run("keygen", tmp_path / "release", "--no-password")[0] == 0
    return tmp_path / "release.key"


def test_list_marks_what_a_name_means(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [
        ["large", "1*"], ["m", "1"], ["m", "2*"], ["text", "1*"]
    ]  # fmt: skip
    run("alias", "m:1", "champion")
    value = json.loads(run("list", "--json", "-")[1])
    assert value["schema"] == "vqa-train/models-list/1"
    marked = {f"{row['name']}:{row['version']}" for row in value["models"] if row["champion_or_last"]}
    assert marked == {"large:1", "m:1", "text:1"}


def test_a_broken_model_gives_list_exit_code_4(run: Run) -> None:
    Path("model/m/1/model.json").unlink()
    code, out, _ = run("list")
    assert code == 4
    assert "model.json' of model 'm:1' is missing" in out


def test_show_names_files_and_moves(run: Run) -> None:
    run("alias", "text:1", "champion")
    code, out, _ = run("show", "text")
    assert code == 0
    for text in ("text:1", "Apache-2.0", "overall 1..5", "prompt (tiny-text/pooled)", "text/1/tokenizers/", "champion"):
        assert text in out
    value = json.loads(run("show", "text@champion", "--json", "-")[1])
    assert (value["schema"], value["moves"][0]["version"]) == ("vqa-train/models-show/1", "1")


def test_verify_exits_1_with_what_differs(run: Run) -> None:
    code, out, _ = run("verify", "--all")
    assert (code, out.splitlines()[-1]) == (0, "4 of 4 models are what they claim to be")
    head = Path("model/m/1/model.onnx")
    head.write_bytes(head.read_bytes()[:-1])
    code, out, _ = run("verify", "m:1", "m:2")
    assert (code, out.splitlines()[-1]) == (1, "1 of 2 models are what they claim to be")
    assert "DIFFERS" in out and "has sha256" in out
    value = json.loads(run("verify", "m:1", "--json", "-")[1])
    assert (value["schema"], value["ok"]) == ("vqa-train/models-verify/1", False)
    assert [check["part"] for check in value["models"][0]["checks"] if check["verdict"] == "failed"] == ["head"]


def test_verifying_nothing_is_no_success(run: Run, tmp_path: Path) -> None:
    assert run("verify")[0] == 2
    assert run("verify", "m", "--all")[0] == 2
    code, out, _ = run("verify", "--all", "--registry", tmp_path / "none")
    assert (code, out) == (1, "0 of 0 models are what they claim to be\n")


def test_alias_and_remove(run: Run) -> None:
    assert run("alias", "m:1", "champion")[:2] == (0, "m@champion -> m:1\n")
    assert run("alias", "m:2", "champion")[1] == "m@champion -> m:2 (was 1)\n"
    assert run("alias", "m:2", "champion")[1] == "m@champion -> m:2, as before\n"
    code, _, err = run("remove", "m:2")
    assert (code, "give --force" in err) == (1, True)
    assert run("alias", "m", "champion", "--remove")[1] == "m@champion is removed (was 2)\n"
    value = json.loads(run("remove", "m:2", "--json", "-")[1])
    assert (value["schema"], value["version"]) == ("vqa-train/models-remove/1", "2")
    assert run("remove", "m")[0] == 2


def test_a_key_is_made_once_and_signs(run: Run, key: Path) -> None:
    public = key.with_suffix(".pub")
    before = key.read_bytes()
    code, _, err = run("keygen", key.with_suffix(""), "--no-password")
    assert (code, "exists already" in err) == (2, True)
    assert key.read_bytes() == before
    value = json.loads(run("sign", "m:1", "--key", key, "--comment", "for release", "--json", "-")[1])
    assert (value["schema"], value["comment"]) == ("vqa-train/models-sign/1", "for release")
    assert run("verify", "m:1", "--require-signature", public)[0] == 0
    assert run("verify", "m:2", "--require-signature", public)[0] == 1
    assert f"{value['key_id']} (verified)" in run("list", "--require-signature", public)[1]
    code, _, err = run("alias", "m:2", "champion", "--require-signature", public)
    assert (code, "has no signature" in err) == (1, True)


def test_the_password_is_that_of_the_environment(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    cheap = SecretKey.to_file
    monkeypatch.setattr(SecretKey, "to_file", lambda key, password: cheap(key, password, operations=1, memory=1 << 24))
    code, _, err = run("keygen", tmp_path / "k")
    assert (code, models_keys.PASSWORD_VARIABLE in err) == (2, True)
    assert not (tmp_path / "k.key").exists()
    monkeypatch.setenv(models_keys.PASSWORD_VARIABLE, "right")
    value = json.loads(run("keygen", tmp_path / "k", "--json", "-")[1])
    assert (value["schema"], value["encrypted"]) == ("vqa-train/models-keygen/1", True)
    assert run("sign", "m:1", "--key", tmp_path / "k.key")[0] == 0
    monkeypatch.setenv(models_keys.PASSWORD_VARIABLE, "wrong")
    code, _, err = run("sign", "m:2", "--key", tmp_path / "k.key")
    assert (code, "the password is wrong" in err) == (2, True)


def test_bundle_push_and_pull(run: Run, key: Path, tmp_path: Path) -> None:
    run("sign", "large", "--key", key)
    public = key.with_suffix(".pub")
    value = json.loads(run("export-bundle", "large", "b.tar.zst", "--json", "-")[1])
    assert (value["schema"], value["files"]) == ("vqa-train/models-export/1", 7)
    assert run("verify", "b.tar.zst", "--require-signature", public)[0] == 0
    assert run("export-bundle", "large", "b.tar.zst")[0] == 2
    assert run("push", "large", "elsewhere", "--require-signature", public)[0] == 0
    assert json.loads(run("push", "m", "elsewhere", "--json", "-")[1])["schema"] == "vqa-train/models-push/1"
    code, _, err = run("pull", "elsewhere", "m", "--registry", "pulled", "--require-signature", public)
    assert (code, "has no signature" in err) == (1, True)
    assert not Path("pulled").exists()
    code, out, err = run("pull", "elsewhere", "large", "--registry", "pulled", "--require-signature", public)
    assert code == 0
    assert "signed by" in out
    assert "fetched large/1/model.json" in err
    value = json.loads(run("pull", "elsewhere", "large", "--registry", "pulled", "--json", "-")[1])
    assert (value["schema"], value["changed"]) == ("vqa-train/models-pull/1", False)


def test_a_machine_that_only_scores_pulls_and_verifies(run: Run, tmp_path: Path) -> None:
    """With neither torch nor pyarrow, polars, onnx, scipy or safetensors."""
    run("push", "large", "elsewhere")
    code = dedent(
        """
        import sys
        absent = {"torch", "sklearn", "scipy", "onnx", "safetensors", "pyarrow", "polars", "transformers"}

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in absent:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Absent())
        from vqa_train.cli import common, models

        for arguments in (["pull", "elsewhere", "--registry", "pulled"], ["verify", "--all", "--registry", "pulled"],
                          ["export-bundle", "large", "out.tar.zst", "--registry", "pulled"], ["show", "out.tar.zst"]):
            sys.argv = ["vqa-train", *arguments]
            try:
                common.run(models.app)
            except SystemExit as stopped:
                assert not stopped.code, (arguments, stopped.code)
        """
    )
    environment = {**os.environ, "VQA_TRAIN_CACHE": str(tmp_path / "another machine")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 models are what they claim to be" in done.stdout
