"""`vqa-train weights` prints what it did, exits as documented, and writes the same as JSON."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import yaml

from vqa_train.cli import common, weights
from vqa_train.core.hashing import sha256_file
from vqa_train.weights import manifest


@pytest.fixture
def listed(site, tmp_path, monkeypatch):
    """A manifest with `one` and `two`, whose files the site has, and `pinned`, whose hash it will not meet."""
    for name in ("one", "two", "pinned"):
        torch.save({"weight": torch.ones(3)}, tmp_path / f"{name}.pth")
        site.files[f"/{name}.pth"] = (tmp_path / f"{name}.pth").read_bytes()
    entries = [
        {
            "name": name,
            "source": {"url": f"{site.url}/{name}.pth"},
            "files": [{"path": f"{name}.pth", **({"sha256": "0" * 64} if name == "pinned" else {})}],
            "license": "S-Lab License 1.0",
            "commercial_use": name == "two",
        }
        for name in ("one", "two", "pinned")
    ]
    path = tmp_path / "weights.yaml"
    path.write_text(yaml.safe_dump({"schema": "vqa-train/weights/1", "weights": entries}))
    monkeypatch.setattr(manifest, "_PACKAGED", path)
    manifest.known_weights.cache_clear()
    yield tmp_path
    manifest.known_weights.cache_clear()


@pytest.fixture
def run(listed, monkeypatch, capsys):
    """`run(*arguments)`: exit code, stdout, stderr of the command."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["vqa-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            common.run(weights.app)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


def states(out):
    return {w["name"]: w["state"] for w in json.loads(out)["weights"]}


def test_list_says_what_is_here_and_under_which_licence(run, weights_folder):
    code, out, err = run("list")
    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if line.startswith("one"))
    assert row.split("  ")[0] == "one"
    for text in ("missing", "S-Lab License 1.0", "NO", "at first use"):
        assert text in row
    assert "000000000000" in next(line for line in out.splitlines() if line.startswith("pinned"))
    run("pull", "one")
    value = json.loads(run("list", "--json", "-")[1])
    assert value["schema"] == "vqa-train/weights-list/1"
    (one,) = [w for w in value["weights"] if w["name"] == "one"]
    assert (one["state"], one["place"], one["pinned_by"]) == ("present", "weights folder", "first use")
    assert one["pinned_sha256"] == one["files"]["one.pth"] == sha256_file(weights_folder / "one" / "one.pth")
    assert one["commercial_use"] is False


def test_pull_prints_a_row_per_name_and_then_finds_it_here(run, weights_folder):
    code, out, _ = run("pull", "one", "two", "one")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["pulled", "pulled"]
    code, out, _ = run("pull", "one", "two", "--json", "-")
    assert (code, states(out)) == (0, {"one": "present", "two": "present"})


def test_pull_ends_with_4_when_some_failed_and_with_1_when_none_worked(run):
    code, out, err = run("pull", "pinned", "one", "--json", "-")
    assert (code, states(out)) == (4, {"pinned": "failed", "one": "pulled"})
    assert err.startswith("failed: pinned: ")
    assert len(err.splitlines()) == 1
    assert run("pull", "pinned")[0] == 1


def test_pull_of_an_unknown_name_fetches_nothing(run, site):
    code, _, err = run("pull", "one", "tow")
    assert (code, err) == (2, "error: unknown weights 'tow' - did you mean 'two'?\n")
    assert site.seen == []


def test_verify_reads_what_is_here_and_names_what_differs(run, weights_folder):
    run("pull", "one", "two")
    code, out, err = run("verify")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "2 read"
    with (weights_folder / "one" / "one.pth").open("r+b") as file:
        file.write(b"X")
    code, out, err = run("verify", "--json", "-")
    assert (code, states(out)) == (3, {"one": "changed", "two": "present"})
    assert json.loads(out)["ok"] is False
    assert err == "error: 1 of 2 weights are not as they should be: one\n"
    assert run("verify", "two")[0] == 0
    assert run("verify", "pinned")[0] == 3


def test_add_takes_a_file_and_says_what_its_licence_forbids(run, listed):
    code, out, err = run("add", "one", listed / "one.pth")
    assert code == 0
    assert out.startswith("one: 1 tensors in ")
    assert sha256_file(listed / "one.pth") in out
    assert "no commercial use" in err
    value = json.loads(run("add", "two", listed / "two.pth", "--json", "-")[1])
    assert (value["schema"], value["tensors"], value["replaced_pins"]) == ("vqa-train/weights-add/1", 1, [])


def test_add_force_accepts_a_change(run, listed):
    run("add", "one", listed / "one.pth")
    torch.save({"weight": torch.zeros(3)}, listed / "other.pth")
    code, _, err = run("add", "one", listed / "other.pth")
    assert code == 1
    assert err.startswith("error: weights 'one': ")
    assert "--force" in err
    code, _, err = run("add", "one", listed / "other.pth", "--force")
    assert code == 0
    assert "note: one.pth differs from the one used before" in err


class Malicious:
    def __reduce__(self):
        return sys.exit, (77,)


def test_add_does_not_run_what_is_in_a_pickle(run, listed, weights_folder):
    torch.save({"weight": Malicious()}, listed / "evil.pth")
    code, _, err = run("add", "one", listed / "evil.pth")
    assert code == 1
    assert "is not weights alone and is not opened" in err
    assert len(err.splitlines()) == 1
    assert not weights_folder.exists()
