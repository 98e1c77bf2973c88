"""Push and pull through huggingface_hub: one commit holds all or nothing, and writers at once lose nothing."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.models.open_remote import open_remote
from vqa_train.pipelines.models.pull import pull_model
from vqa_train.pipelines.models.push import push_model
from vqa_train.pipelines.models.verify import verify_models

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
PLACE = "hf://org/models"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).parents[1] / "hub_server.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_neverToBeWrittenDown")
    yield server
    server.close()


def test_a_push_is_one_commit_and_comes_back_whole(
    tiny_registry: Any, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = push_model("large", PLACE, tiny_registry.root, alias="champion")
    assert len(hub.commits) == 2
    files = hub.commits[hub.head]
    assert sorted(files) == sorted([".gitattributes", "registry.json", *pushed.files])
    assert len(pushed.files) == 5
    # Again: nothing changes, so there is no commit.
    assert push_model("large", PLACE, tiny_registry.root, alias="champion").files == []
    assert len(hub.commits) == 2
    monkeypatch.setenv("VQA_TRAIN_CACHE", str(tmp_path / "another machine"))
    pulled = pull_model(PLACE, None, tmp_path / "pulled")
    assert (pulled.model, pulled.source, pulled.files) == ("large:1", PLACE, 5)
    for name in ("model.json", "model.onnx", "README.md"):
        assert sha256_file(tmp_path / "pulled/large/1" / name) == sha256_file(tiny_registry.root / "large/1" / name)
    assert verify_models(None, tmp_path / "pulled")[0].ok
    assert sorted(p.name for p in (tmp_path / "pulled/large/1").iterdir()) == ["README.md", "model.json", "model.onnx"]


def test_an_older_commit_can_be_pulled(tiny_registry: Any, hub: Any, tmp_path: Path) -> None:
    push_model("m:1", PLACE, tiny_registry.root)
    first = hub.head
    push_model("m:2", PLACE, tiny_registry.root)
    assert pull_model(f"{PLACE}@{first}", None, tmp_path / "old").model == "m:1"
    assert pull_model(f"{PLACE}@main", None, tmp_path / "new").model == "m:2"


def test_a_commit_of_somebody_else_is_built_upon(tiny_registry: Any, hub: Any) -> None:
    """Both read the same commit; the second commit is refused by the hub, and made again on top of the first."""
    barrier = threading.Barrier(2)
    first = threading.local()

    def meet() -> None:
        if not getattr(first, "done", False):
            first.done = True
            try:
                barrier.wait(timeout=5)
            except threading.BrokenBarrierError:
                return

    hub.before_commit = meet
    errors: list[BaseException] = []

    def push(model: str) -> None:
        try:
            push_model(model, PLACE, tiny_registry.root)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=push, args=(model,)) for model in ("m:1", "text")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sorted(open_remote(PLACE).read().models) == ["m", "text"]
    assert len(hub.commits) == 3


def test_a_spoiled_repository_is_refused(tiny_registry: Any, hub: Any, tmp_path: Path) -> None:
    push_model("m:1", PLACE, tiny_registry.root)
    good = hub.commits[hub.head]["m/1/model.onnx"]
    for bad in (good[:-1], good[:-1] + b"x", good + b"x"):
        hub.commit({"m/1/model.onnx": bad})
        with pytest.raises(ModelError, match=r"model\.onnx"):
            pull_model(PLACE, None, tmp_path / "pulled")
    hub.commit({"m/1/model.onnx": good})
    del hub.commits[hub.head]["m/1/README.md"]
    with pytest.raises(ModelError, match=r"README\.md' of hf://org/models is missing"):
        pull_model(PLACE, None, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_a_file_that_the_repository_leaves_out_is_said(tiny_registry: Any, hub: Any) -> None:
    hub.ignored = {"m/1/model.onnx"}
    with pytest.raises(ModelError, match=r"did not take 'm/1/model\.onnx' - does the repository's \.gitignore"):
        push_model("m:1", PLACE, tiny_registry.root)


@pytest.mark.parametrize(
    ("address", "message"),
    [("hf://org/none", "is not there, or this login may not see it"), (f"{PLACE}@none", "has no such revision")],
)
def test_what_is_not_there_is_said_in_one_line(tiny_registry: Any, hub: Any, address: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        push_model("m:1", address, tiny_registry.root)
    assert "neverToBeWrittenDown" not in str(caught.value)


def test_an_empty_repository_has_no_models(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 0 models"):
        pull_model(PLACE, None, tmp_path / "pulled")
