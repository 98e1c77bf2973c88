"""`pull` fetches what is lacking, verifies it and pins it; files of the hub come from where HF_ENDPOINT says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vqa_train.core.errors import WeightsError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.weights.download import Retries
from vqa_train.weights.manifest import weights_entry
from vqa_train.weights.pins import LOCK_FILE, Pins
from vqa_train.weights.pull import pull

NOW = Retries(tries=2, pause_s=0)
DATA = b"PK the weights" * 1000
SHA = sha256_bytes(DATA)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_abcdefghijklmnop"
REPO = "facebook/vjepa2-vitg-fpc64-256"
NAME = "vjepa2-vitg-fpc64-256"


@pytest.fixture
def entry(site, make_entry):
    site.files["/f.pth"] = DATA
    return make_entry("f.pth", url=f"{site.url}/f.pth")


def test_a_url_is_fetched_verified_and_pinned(entry, weights_folder, site) -> None:
    found, fetched = pull(entry, retries=NOW)
    assert (fetched, found.checkpoint, found.checkpoint_sha256) == (1, weights_folder / "one" / "f.pth", SHA)
    pin = Pins().of("one")["f.pth"]
    assert (pin.sha256, pin.bytes, pin.source) == (SHA, len(DATA), f"{site.url}/f.pth")


def test_what_is_here_is_not_fetched_again(entry, site) -> None:
    pull(entry, retries=NOW)
    assert pull(entry, retries=NOW)[1] == 0
    assert len(site.seen) == 1


def test_a_damaged_file_is_mended_by_what_it_was(entry, weights_folder) -> None:
    pull(entry, retries=NOW)
    (weights_folder / "one" / "f.pth").write_bytes(b"damaged")
    assert pull(entry, retries=NOW)[1] == 1
    assert (weights_folder / "one" / "f.pth").read_bytes() == DATA


def test_another_file_than_at_first_use_is_refused_and_the_pin_stays(entry, weights_folder, site) -> None:
    pull(entry, retries=NOW)
    (weights_folder / "one" / "f.pth").unlink()
    site.files["/f.pth"] = b"PK another release"
    with pytest.raises(WeightsError, match=f"sent has sha256 .*, expected {SHA}"):
        pull(entry, retries=NOW)
    assert Pins().of("one")["f.pth"].sha256 == SHA
    assert not (weights_folder / "one" / "f.pth").exists()


def test_a_hash_of_the_manifest_is_enforced(site, make_entry, weights_folder) -> None:
    site.files["/f.pth"] = b"PK another release"
    entry = make_entry(("f.pth", SHA), url=f"{site.url}/f.pth")
    with pytest.raises(WeightsError, match=f"expected {SHA}"):
        pull(entry, retries=NOW)
    assert not (weights_folder / LOCK_FILE).exists()


# huggingface_hub reads HF_ENDPOINT once, when it is imported: these run the command in a process of its own.


@pytest.fixture
def content(site, serve):
    """The bytes behind a hub's redirects; the hub itself is `hub`."""
    site.files["/blob"] = DATA
    site.etag = f'"{SHA}"'
    return site


@pytest.fixture
def hub(content, serve):
    """Speaks what huggingface_hub asks of a hub: commit, linked size and hash on HEAD, and a redirect to the bytes."""
    hub = serve(type(content)(etag=None))
    for revision in ("main", COMMIT):
        path = f"/{REPO}/resolve/{revision}/model.safetensors"
        hub.redirects[path] = f"{content.url}/blob"
        linked = {"X-Linked-Etag": f'"{SHA}"', "X-Linked-Size": str(len(DATA))}
        hub.headers[path] = {"X-Repo-Commit": COMMIT, **linked}
    return hub


def environment(hub_url: str, tmp_path: Path, **env: str) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))},
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(tmp_path / "hf"),
        "VQA_TRAIN_CACHE": str(tmp_path / "cache"),
        **env,
    }


def run(hub_url: str, tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    code = "from vqa_train.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "weights", *arguments],
        env=environment(hub_url, tmp_path, **env),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_hub_is_asked_where_HF_ENDPOINT_says_and_its_commit_is_pinned(
    hub, content, tmp_path, weights_folder
) -> None:
    done = run(hub.url, tmp_path, "pull", NAME, "--json", "-", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["weights"]
    assert (result["state"], result["files"]) == ("pulled", {"model.safetensors": SHA})
    assert (weights_folder / NAME / "model.safetensors").read_bytes() == DATA
    pin = json.loads((weights_folder / LOCK_FILE).read_text())["weights"][NAME]["model.safetensors"]
    assert pin["source"] == f"hf://{REPO}@{COMMIT}/model.safetensors"
    # The token goes to the hub, never to where it redirects, and into no file.
    asked = [headers for _, path, headers in hub.seen if "/resolve/" in path]
    assert {headers.get("authorization", headers.get("Authorization")) for headers in asked} == {f"Bearer {TOKEN}"}
    assert all("authorization" not in {name.lower() for name in headers} for _, _, headers in content.seen)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)
    assert TOKEN not in done.stdout + done.stderr


def test_the_hash_that_the_hub_states_is_enforced(hub, content, tmp_path, weights_folder) -> None:
    content.files["/blob"] = DATA[:-1] + b"x"
    done = run(hub.url, tmp_path, "pull", NAME)
    assert done.returncode == 1
    assert f"expected {SHA}" in done.stderr
    assert not (weights_folder / NAME / "model.safetensors").exists()


def test_offline_means_that_nobody_is_asked(hub, tmp_path) -> None:
    done = run(hub.url, tmp_path, "pull", NAME, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert f"weights '{NAME}' cannot be pulled: HF_HUB_OFFLINE is set" in done.stderr
    assert f"`vqa-train weights add {NAME} PATH`" in done.stderr
    assert not any("/resolve/" in path for _, path, _ in hub.seen)


def test_a_repository_that_is_not_there_is_one_line(hub, tmp_path) -> None:
    hub.redirects.clear()
    done = run(hub.url, tmp_path, "pull", NAME)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed:")]
    assert f"model.safetensors of {REPO} at main could not be found: " in line


@pytest.fixture
def here(hub, monkeypatch):
    """The same hub for this process."""
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    return hub


def test_a_hub_that_is_busy_is_asked_again(here, weights_folder) -> None:
    here.heads = ["503"]
    assert pull(weights_entry(NAME), retries=NOW)[1] == 1
    here.heads = ["503", "503"]
    with pytest.raises(WeightsError, match="could not be found: .*503"):
        pull(weights_entry("vjepa2-vith-fpc64-256"), retries=NOW)


def test_files_of_one_entry_come_from_one_commit(here, content, make_entry) -> None:
    content.etag = None
    for name in ("model.safetensors", "config.json"):
        for revision in ("main", COMMIT):
            path = f"/owner/one/resolve/{revision}/{name}"
            here.redirects[path] = f"{content.url}/blob"
            here.headers[path] = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": '"a git hash"'}
    found, fetched = pull(make_entry("model.safetensors", "config.json"), retries=NOW)
    assert (fetched, set(found.sha256.values())) == (2, {SHA})
    heads = [path for method, path, _ in here.seen if method == "HEAD"]
    assert heads == ["/owner/one/resolve/main/model.safetensors", f"/owner/one/resolve/{COMMIT}/config.json"]
    assert {pin.source for pin in Pins().of("one").values()} == {
        f"hf://owner/one@{COMMIT}/model.safetensors",
        f"hf://owner/one@{COMMIT}/config.json",
    }


def test_only_what_is_lacking_is_fetched(here, content, make_entry, weights_folder) -> None:
    test_files_of_one_entry_come_from_one_commit(here, content, make_entry)
    (weights_folder / "one" / "config.json").unlink()
    assert pull(make_entry("model.safetensors", "config.json"), retries=NOW)[1] == 1


def test_one_that_fails_does_not_stop_the_others(hub, tmp_path, weights_folder) -> None:
    done = run(hub.url, tmp_path, "pull", "vjepa2-vith-fpc64-256", NAME, "--json", str(tmp_path / "r.json"))
    assert done.returncode == 4
    states = {w["name"]: w["state"] for w in json.loads((tmp_path / "r.json").read_text())["weights"]}
    assert states == {"vjepa2-vith-fpc64-256": "failed", NAME: "pulled"}
    assert "failed: vjepa2-vith-fpc64-256: " in done.stderr


def test_ctrl_c_keeps_what_has_arrived_and_the_same_command_goes_on(hub, content, tmp_path, weights_folder) -> None:
    content.plan = ["stall:5000"]
    code = "from vqa_train.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "weights", "pull", NAME],
        env=environment(hub.url, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        part = weights_folder / NAME / "model.safetensors.part"
        while not (part.exists() and part.stat().st_size == 5000):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)  # until it has got so far; the pull cannot end by itself
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: what has arrived is kept; the same command goes on from there"
    assert "Traceback" not in err
    assert run(hub.url, tmp_path, "pull", NAME).returncode == 0
    assert content.gets()[-1]["Range"] == "bytes=5000-"
    assert (weights_folder / NAME / "model.safetensors").read_bytes() == DATA
