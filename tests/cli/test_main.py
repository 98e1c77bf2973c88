"""The command as a user meets it: help, exit codes, one-line errors, nothing heavy before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = (
    "datasets", "weights", "extract-features", "import-features", "store", "fit", "export", "export-backbone", "eval",
    "compare", "register", "score",
)  # fmt: skip


def vqa_train(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'vqa-train'; from vqa_train.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_names_every_command() -> None:
    done = vqa_train("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = vqa_train(command, "--help")
    assert done.returncode == 0
    assert "Usage: vqa-train" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['vqa-train', '--help']\n"
        "from vqa_train.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'polars', 'pyarrow', 'pydantic', 'av', 'onnxruntime', 'transformers', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nosuch"], "No such command"),
        (["fit"], "Missing option"),
        (["fit", "--nosuch"], "No such option"),
        (["extract-features", "--dataset", "x", "--output", "s", "--workers", "-1"], "Invalid value"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], expected: str) -> None:
    done = vqa_train(*arguments)
    assert done.returncode == 2
    assert expected in done.stderr


def test_errors_are_one_line_and_debug_shows_the_traceback(tmp_path: Path) -> None:
    arguments = ["fit", "--config", "none.yaml", "--features", "s", "--output", "r"]
    done = vqa_train(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: recipe 'none.yaml' does not exist\n"
    assert "Traceback" in vqa_train(*arguments, "--debug", cwd=tmp_path).stderr


def test_unknown_backbone_is_wrong_usage_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"x")
    (tmp_path / "l.csv").write_text("id,mos\nv,3\n")
    done = vqa_train(
        "datasets", "scan", ".", "--labels", "l.csv", "--name", "d", "--id-column", "id", "--target", "q=mos",
        "--mos-min", "1", "--mos-max", "5", "--license", "CC0-1.0", "--output", "d.yaml", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = vqa_train("extract-features", "--dataset", "d.yaml", "--backbone", "nsss", "--output", "s", cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown backbone 'nsss' - did you mean 'nss'" in done.stderr


def test_version_is_printed() -> None:
    from vqa_train import __version__

    assert vqa_train("--version").stdout.strip() == f"vqa-train {__version__}"


def test_json_goes_to_stdout_alone(tmp_path: Path) -> None:
    done = vqa_train("datasets", "list", "--json", "-", cwd=tmp_path)
    assert json.loads(done.stdout)["schema"].startswith("vqa-train/")


@pytest.mark.parametrize(("missing", "extra"), [("pyarrow", "store"), ("polars", "store"), ("torch", "train")])
def test_a_package_that_is_not_installed_is_one_line_that_names_the_extra(
    tmp_path: Path, missing: str, extra: str
) -> None:
    code = (
        "import sys; sys.argv[0] = 'vqa-train'\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {missing!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from vqa_train.cli.main import main; main()"
    )
    command = {"pyarrow": ["store", "info", "store"], "polars": ["eval", "--table", "t.csv", "--label", "a"]}
    arguments = command.get(missing, ["fit", "--config", "nss-mlp", "--features", "store", "--output", "run"])
    (tmp_path / "t.csv").write_text("a,predicted_a\n1,2\n2,3\n")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert f"needs the package {missing!r}" in done.stderr
    assert f"pip install 'vqa-train[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
