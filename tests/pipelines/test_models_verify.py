"""A flipped byte in any file of a model is refused, by `verify` with the file's name and by the scorer."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.errors import ModelError, VqaError
from vqa_train.core.hashing import sha256_file
from vqa_train.pipelines.models.change import sign_model
from vqa_train.pipelines.models.listing import list_models, show_model
from vqa_train.pipelines.models.verify import Verified, verify_models
from vqa_train.registry.minisign_keys import SecretKey
from vqa_train.registry.registry import ModelRegistry, RegistryEntry
from vqa_train.registry.sidecar import ModelSidecar, read_sidecar, write_sidecar
from vqa_train.scoring import Scorer

pytest.importorskip("cryptography", reason="cryptography is not installed")

KEY = SecretKey(b"test key", bytes(range(32)))
PUBLIC = (KEY.public.text,)
FLIPS = 3

# What the file is -> how to find it below the registry or the cache, and what `verify` calls it.
FILES = {
    "text/1/model.json": "registry entry and sidecar",
    "text/1/model.json.minisig": "signature",
    "text/1/README.md": "card",
    "text/1/model.onnx": "head",
    "text/1/backbones/tiny@*.onnx": "backbone tiny@",
    "text/1/backbones/tiny-text@*.onnx": "backbone tiny-text@",
    "text/1/tokenizers/*.json": "tokenizer tiny-text@",
    "large/1/model.onnx": "head",
    "onnx/*.onnx": "backbone tiny@",
    "onnx/*.weights": "weights of backbone tiny@",
}


@pytest.fixture
def signed(tiny_registry: Any) -> Any:
    for name in ("text", "large"):
        sign_model(name, KEY, tiny_registry.root, comment=f"model {name}")
    return tiny_registry


def only(model: str, registry: Path, **options: Any) -> Verified:
    (found,) = verify_models([model], registry, **options)
    return found


def test_models_as_they_were_registered_are_right(signed: Any) -> None:
    found = verify_models(None, signed.root)
    assert [one.model for one in found] == ["large:1", "m:1", "m:2", "text:1"]
    assert all(one.ok for one in found)
    text = only("text", signed.root, require_signature=PUBLIC)
    assert text.ok
    assert {check.verdict for check in text.checks} == {"ok"}
    names = {check.file for check in text.checks}
    on_disk = {p.relative_to(signed.root).as_posix() for p in (signed.root / "text").rglob("*") if p.is_file()}
    assert names == {"registry.json", *on_disk}
    parts = [check.part for check in text.checks]
    assert {"graph and sidecar", "golden rows", "signature"} <= set(parts)
    assert sum(part.startswith("graph of backbone") for part in parts) == 2


@pytest.mark.parametrize("pattern", FILES)
def test_a_flipped_byte_is_refused_with_the_name_of_the_file(signed: Any, pattern: str) -> None:
    place = signed.cache if pattern.startswith("onnx/") else signed.root
    (path,) = place.glob(pattern)
    model = "large" if pattern.startswith("onnx/") else pattern.partition("/")[0]
    good = path.read_bytes()
    first = good.index(b"\n") if path.suffix == ".minisig" else 0  # nothing protects an untrusted comment
    draw = random.Random(pattern)
    for _ in range(FLIPS):
        at, bit = draw.randrange(first, len(good)), 1 << draw.randrange(8)
        path.write_bytes(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
        found = only(model, signed.root, require_signature=PUBLIC)
        failed = [check for check in found.checks if check.verdict == "failed"]
        assert not found.ok
        assert any(check.part.startswith(FILES[pattern]) for check in failed), (at, found.checks)
        assert any(path.name in check.message for check in failed), (at, found.problems)
        with pytest.raises(VqaError, match="sha256|signature"):
            Scorer(model, registry=signed.root, require_signature=PUBLIC)
    path.write_bytes(good)
    assert only(model, signed.root, require_signature=PUBLIC).ok


@pytest.mark.parametrize("pattern", sorted(FILES))
def test_a_missing_file_is_refused(signed: Any, pattern: str) -> None:
    place = signed.cache if pattern.startswith("onnx/") else signed.root
    (path,) = place.glob(pattern)
    path.unlink()
    model = "large" if pattern.startswith("onnx/") else pattern.partition("/")[0]
    found = only(model, signed.root, require_signature=PUBLIC)
    assert any(path.name in problem for problem in found.problems), found.problems


@pytest.mark.parametrize("value", ["sidecar_sha256", "onnx_sha256", "sidecar"])
def test_a_changed_entry_is_refused(signed: Any, value: str) -> None:
    file = signed.root / "registry.json"
    good = file.read_text()
    entry = getattr(ModelRegistry(signed.root).models()["text"].versions["1"], value)
    draw = random.Random(value)
    for _ in range(4):
        at = draw.randrange(len(entry))
        other = draw.choice([c for c in "0123456789abcdef" if c != entry[at]])
        file.write_text(good.replace(entry, entry[:at] + other + entry[at + 1 :]))
        assert file.read_text() != good
        found = only("text", signed.root)
        assert [check.part for check in found.checks] == ["registry entry and sidecar"]
        assert not found.ok
        with pytest.raises(VqaError):
            Scorer("text", registry=signed.root)


def republish(root: Path, change: Callable[[ModelSidecar], ModelSidecar]) -> None:
    """Change m:1 and make every hash above it fit, as somebody with write access could."""
    path = root / "m" / "1" / "model.json"
    write_sidecar(path, change(read_sidecar(path)))
    registry = ModelRegistry(root)
    entry = registry.models()["m"].versions["1"]
    changed: dict[str, Any] = {"sidecar_sha256": sha256_file(path), "onnx_sha256": read_sidecar(path).onnx.sha256}
    registry.put("m", "1", RegistryEntry(**{**entry.model_dump(), **changed}))


def test_a_chain_that_was_made_anew_fails_the_signature(signed: Any) -> None:
    sign_model("m:1", KEY, signed.root)
    republish(signed.root, lambda sidecar: sidecar.model_copy(update={"license": "CC0-1.0"}))
    assert only("m:1", signed.root).ok
    found = only("m:1", signed.root, require_signature=PUBLIC)
    assert [check.part for check in found.checks if check.verdict == "failed"] == ["signature"]
    with pytest.raises(ModelError, match=r"does not fit the bytes of 'model\.json'"):
        Scorer("m:1", registry=signed.root, require_signature=PUBLIC)


def test_a_head_beside_another_ones_sidecar_fails_its_golden_rows(signed: Any) -> None:
    def other_scores(sidecar: ModelSidecar) -> ModelSidecar:
        golden = sidecar.golden_rows
        rows = [[value + 0.01 for value in row] for row in golden.scores]
        return sidecar.model_copy(update={"golden_rows": golden.model_copy(update={"scores": rows})})

    republish(signed.root, other_scores)
    failed = [check for check in only("m:1", signed.root).checks if check.verdict == "failed"]
    assert [check.part for check in failed] == ["golden rows"]


def test_a_graph_with_other_inputs_than_its_sidecar_is_refused(signed: Any) -> None:
    head = signed.root / "text" / "1" / "model.onnx"
    data = head.read_bytes()
    (signed.root / "m" / "1" / "model.onnx").write_bytes(data)
    republish(
        signed.root,
        lambda s: s.model_copy(
            update={"onnx": s.onnx.model_copy(update={"sha256": sha256_file(head), "bytes": len(data)})}
        ),
    )
    found = {check.part: check for check in only("m:1", signed.root).checks}
    assert "its sidecar says inputs" in found["graph and sidecar"].message
    assert found["golden rows"].verdict == "not_checked"
    assert found["head"].verdict == "ok"


def test_a_backbone_of_other_features_is_refused(signed: Any) -> None:
    (text,) = (signed.root / "text/1/backbones").glob("tiny-text@*")
    (video,) = (signed.root / "m/1/backbones").iterdir()
    video.write_bytes(text.read_bytes())

    def swap(sidecar: ModelSidecar) -> ModelSidecar:
        fields = {"sha256": sha256_file(text), "bytes": text.stat().st_size}
        inputs = [
            item.model_copy(update={"backbone_onnx": item.backbone_onnx.model_copy(update=fields)})  # type: ignore[union-attr]
            for item in sidecar.inputs
        ]
        return sidecar.model_copy(update={"inputs": inputs})

    republish(signed.root, swap)
    found = only("m:1", signed.root)
    assert "computes features" in found.problems[0]


def test_the_signature_of_another_model_is_refused(signed: Any) -> None:
    stolen = (signed.root / "text/1/model.json.minisig").read_bytes()
    (signed.root / "m/1/model.json.minisig").write_bytes(stolen)
    assert not only("m:1", signed.root, require_signature=PUBLIC).ok


def test_a_policy_of_the_environment_holds(signed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "k.pub").write_text(KEY.public.to_file())
    monkeypatch.setenv("VQA_TRAIN_REQUIRE_SIGNATURE", f"{SecretKey.generate().public.text}, {tmp_path / 'k.pub'}")
    assert {one.model: one.ok for one in verify_models(None, signed.root)} == {
        "large:1": True, "m:1": False, "m:2": False, "text:1": True,
    }  # fmt: skip
    Scorer("text", registry=signed.root)
    with pytest.raises(ModelError, match="has no signature"):
        Scorer("m", registry=signed.root)
    monkeypatch.setenv("VQA_TRAIN_REQUIRE_SIGNATURE", " , ")
    with pytest.raises(VqaError, match="names no key"):
        verify_models(None, signed.root)


def test_files_that_nothing_vouches_for_are_named(signed: Any) -> None:
    (signed.root / "m/1/notes.txt").write_text("x")
    found = only("m:1", signed.root)
    assert found.ok
    assert [check.file for check in found.checks if check.part == "other file"] == ["m/1/notes.txt"]


def test_a_list_says_who_signed_and_what_is_broken(signed: Any) -> None:
    path = signed.root / "m/2/model.json"
    path.write_text(path.read_text() + " ")
    rows = {f"{row.name}:{row.version}": row for row in list_models(signed.root, require_signature=PUBLIC)}
    assert list(rows) == ["large:1", "m:1", "m:2", "text:1"]
    assert rows["text:1"].signature.key_id == KEY.public.key_id
    assert rows["text:1"].signature.verified is True
    assert rows["m:1"].signature.key_id is None
    assert rows["m:1"].signature.verified is False
    assert "has sha256" in str(rows["m:2"].problem)
    assert (rows["m:1"].champion_or_last, rows["m:2"].champion_or_last) == (False, True)
    backbone = next((signed.cache / "onnx").glob("*.onnx")).stat().st_size
    own = sum(p.stat().st_size for p in (signed.root / "large/1").rglob("*") if p.is_file())
    assert rows["large:1"].bytes == own + backbone
    assert rows["large:1"].registered == read_sidecar(signed.root / "large/1/model.json").run_provenance["started"]


def test_show_has_every_file_with_its_hash(signed: Any) -> None:
    value = show_model("text", signed.root, require_signature=PUBLIC).to_json()
    hashes = {f["file"]: f["sha256"] for f in value["files"] if f["kind"] != "signature"}
    assert hashes == {name: sha256_file(signed.root / name) for name in hashes}
    assert len(hashes) == 6
    assert value["signature"] == {"key_id": KEY.public.key_id, "verified": True, "comment": "model text"}
