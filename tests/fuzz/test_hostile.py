"""Files made to harm: each is refused with an error that says so, before it costs memory, time or others' files."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from vqa_train.core.config import load_json, load_yaml
from vqa_train.core.errors import ConfigError, LabelError, ModelError, Reason, StoreError, VqaError
from vqa_train.core.files import confined
from vqa_train.core.provenance import redact_argv
from vqa_train.datasets.adapters.table import read_table
from vqa_train.datasets.external.base import FeatureFileError
from vqa_train.datasets.external.open import open_feature_file
from vqa_train.datasets.load import load_dataset
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.registry.registry import ModelRegistry
from vqa_train.store.seal import sealed
from vqa_train.store.store import FeatureStore

MIB = 1 << 20


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "a\x00b", "link/secret", "deep/../link/secret", "loop/x"]
)
def test_paths_that_leave_their_root_are_refused(tmp_path, path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "deep", outside):
        folder.mkdir(parents=True)
    (outside / "secret").write_text("x")
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises((VqaError, OSError)) as refused:
        confined(root, path)
    if isinstance(refused.value, VqaError):
        assert refused.value.reason is Reason.PATH_ESCAPE


@pytest.mark.parametrize("field", ["labels", "files"])
@pytest.mark.parametrize("path", ["../secret.csv", "/etc/passwd", "link.csv"])
def test_a_manifest_whose_tables_lie_elsewhere_is_refused(tmp_path, field, path):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "secret.csv").write_text("id,mos\na,1\n")
    for folder in (data, tmp_path):
        (folder / "link.csv").symlink_to("/etc/hostname")
    manifest = {
        "schema": "vqa-train/dataset/1", "name": "d", "license": "x", "root": "data", "mos": {"min": 1, "max": 5},
        "targets": ["mos"], "columns": {"id": "id"},
        "labels": [{"path": "labels.csv", "sha256": "a" * 64, "bytes": 1}],
        "files": {"table": "d.files.csv", "sha256": "b" * 64, "rows": 0, "bytes_total": 0},
    }  # fmt: skip
    if field == "labels":
        manifest["labels"][0]["path"] = path
    else:
        manifest["files"]["table"] = path
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(VqaError) as refused:
        load_dataset(str(tmp_path / "d.yaml"))
    text = str(refused.value)
    assert "leaves its root" in text or "d.files.csv" in text or "String should match pattern" in text


def test_a_registry_whose_sidecar_lies_elsewhere_is_refused(tmp_path):
    for place in ("../m.json", "/etc/passwd"):
        entry = {"sidecar": place, "sidecar_sha256": "a" * 64, "onnx_sha256": "b" * 64}
        for schema, found in (("1", entry), ("2", {"versions": {"1": entry}})):
            content = {"schema": f"vqa-train/registry/{schema}", "models": {"m": found}}
            (tmp_path / "registry.json").write_text(json.dumps(content))
            with pytest.raises(VqaError, match="leaves its root"):
                ModelRegistry(tmp_path).find("m")


def test_a_version_that_is_a_path_is_refused(tmp_path):
    entry = {"sidecar": "m/model.json", "sidecar_sha256": "a" * 64, "onnx_sha256": "b" * 64}
    for version in ("..", "../x", "a/b", "/etc", ""):
        content = {"schema": "vqa-train/registry/2", "models": {"m": {"versions": {version: entry}}}}
        (tmp_path / "registry.json").write_text(json.dumps(content))
        with pytest.raises(VqaError, match="String should match pattern"):
            ModelRegistry(tmp_path).models()


def test_a_feature_set_that_is_a_link_is_not_opened(tmp_path, spec):
    outside = FeatureStore(tmp_path / "outside").create_set(spec, license="MIT")
    FeatureStore(tmp_path / "store").create()
    (tmp_path / "store" / spec.set_name).symlink_to(outside.folder)
    assert FeatureStore.open(tmp_path / "store").sets() == []


@pytest.fixture
def spec():
    from vqa_train.core.types import FeatureSpec, OutputSpec

    return FeatureSpec(backbone="x", definition=1, modality="text", outputs=(OutputSpec(name="pooled", shape=(2,)),))


@pytest.mark.parametrize("backbone", ["../../x", "/x", "a/b", "..", ""])
def test_a_spec_cannot_name_a_folder_elsewhere(tmp_path, spec, backbone):
    from dataclasses import replace

    with pytest.raises(StoreError, match="cannot name a folder"):
        FeatureStore(tmp_path / "store").create_set(replace(spec, backbone=backbone), license="MIT")
    assert not (tmp_path / "x").exists()


# --- documents


def write(tmp_path: Path, name: str, data: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x]\n" + "".join(f"k{n}: *a\n" for n in range(200)), "aliases"),
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a'"),
        ("[" * 20_000 + "]" * 20_000, "nested more than 100 deep"),
        ("- " * 5000 + "x", "nested more than 100 deep"),
        ("".join(" " * n + f"k{n}:\n" for n in range(300)), "nested more than 100 deep"),
        ("a: " + "9" * 5000, "digits"),
        ("a: 2020-13-45", "month must be"),
        ("a: !!python/object/apply:os.system [id]", "python/object"),
        ("a: !!binary 'a'", "base64"),
        ("<<: 3", "merging"),
        ("? {a: 1}\n: x", "unhashable"),
    ],
)
def test_yaml_made_to_harm_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_yaml(write(tmp_path, "x.yaml", text))


def test_yaml_of_ordinary_depth_is_read(tmp_path):
    value = "[" * 40 + "]" * 40
    assert load_yaml(write(tmp_path, "x.yaml", value)) == json.loads(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "duplicate key 'c'"),
        ("[" * 200_000, "recursion"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_json_made_to_harm_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_json(write(tmp_path, "x.json", text))


def test_a_huge_document_is_refused_by_its_size(tmp_path):
    path = tmp_path / "x.yaml"
    with path.open("wb") as handle:
        handle.truncate(300 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="is over 256 MiB"):
            load_yaml(path)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [10**400, 2**63, -1, "1", 1.5, True, None])
def test_counts_of_a_commit_are_numbers_that_can_be_counts(tmp_path, value):
    from vqa_train.store.records import SnapshotRecord, StoreRecord
    from vqa_train.store.seal import parse_sealed

    record = {
        "schema": "vqa-train/store-snapshot/1", "parent": None, "created": "x", "fingerprint": "a" * 64,
        "spec_sha256": "a" * 64, "rows": value, "bytes": 0, "shards": [], "failures": [], "removed": [],
    }  # fmt: skip
    if value in (2**63, 10**400) and not isinstance(value, bool):
        parse_sealed(SnapshotRecord, sealed(record), "x")  # Python's numbers have no end; nothing is allocated by it
    elif value not in ("1", True):
        with pytest.raises(StoreError, match="x: rows"):
            parse_sealed(SnapshotRecord, sealed(record), "x")
    assert StoreRecord


# --- feature files: the product unpacks no archives but npz, whose members are read in memory and never written out


def npz(tmp_path: Path, **members: bytes) -> Path:
    path = tmp_path / "f.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": descr, "fortran_order": False, "shape": shape})
    return sink.getvalue()


def test_an_npz_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path):
    path = npz(tmp_path, features=header((300 * MIB // 16, 4)) + bytes(300 * MIB))
    assert path.stat().st_size < MIB
    file = open_feature_file(path)
    tracemalloc.start()
    try:
        for read in (lambda: list(file.blocks(["features"])), lambda: file.columns([], ["features"])):
            with pytest.raises(FeatureFileError, match="unpacks from .* to .*uncompressed") as refused:
                read()
            assert refused.value.reason is Reason.TOO_LARGE
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(10**12,), (10**9, 10**9), (2**40, 4), (2**62, 4)])
def test_an_npz_whose_header_claims_more_than_there_is_is_refused(tmp_path, shape):
    file = open_feature_file(npz(tmp_path, features=header(shape) + b"1234"))
    for read in (lambda: list(file.blocks(["features"])), lambda: file.columns([], ["features"])):
        with pytest.raises(FeatureFileError, match="claims .* bytes, the archive has"):
            read()


def test_an_npz_whose_members_climb_writes_nothing_anywhere(tmp_path):
    good = header((2, 2)) + np.zeros((2, 2), np.float32).tobytes()
    path = npz(tmp_path / ".", **{"../../escaped": good, "/absolute": good})
    before = set(tmp_path.parent.rglob("*"))
    file = open_feature_file(path)
    assert file.names == ("../../escaped", "/absolute")
    assert [block.values.shape for block in file.blocks(["../../escaped"])] == [(2, 2)]
    assert set(tmp_path.parent.rglob("*")) == before


def test_an_npz_with_a_password_or_an_unknown_compression_is_refused(tmp_path):
    good = header((2, 2)) + np.zeros((2, 2), np.float32).tobytes()
    path = npz(tmp_path, features=good)
    plain = path.read_bytes()
    for offset, value in ((6, 1), (8, 99)):
        data = bytearray(plain)
        local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
        struct.pack_into("<H", data, local + offset, value)
        struct.pack_into("<H", data, central + offset + 2, value)
        path.write_bytes(bytes(data))
        with pytest.raises(FeatureFileError, match="cannot be read"):
            list(open_feature_file(path).blocks(["features"]))


def test_parquet_whose_metadata_claims_more_rows_than_there_are_is_refused(tmp_path):
    """The footer is Thrift: rows of the file and of its row group are varints, here 100 made 8 million."""
    path = tmp_path / "f.parquet"
    table = pa.table({"video_id": [f"v{n}" for n in range(100)], "mos": np.arange(100.0)})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    data = path.read_bytes()
    size = struct.unpack("<I", data[-8:-4])[0]
    footer = data[-8 - size : -8]
    honest, lie = b"\xc8\x01", b"\x80\xc8\xd0\x07"  # zigzag varints of 100 and of 8,000,000
    forged = footer.replace(honest, lie)
    assert forged != footer
    path.write_bytes(data[: -8 - size] + forged + struct.pack("<I", len(forged)) + b"PAR1")
    tracemalloc.start()
    try:
        with pytest.raises(FeatureFileError, match="claims 8000000 rows, its columns hold 100"):
            open_feature_file(path).columns(["video_id"], ["mos"])
        with pytest.raises(LabelError, match="claims 8000000 rows, its columns hold 100"):
            read_table("labels.parquet", path.read_bytes(), {"video_id", "mos"})
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def test_a_shard_whose_metadata_lies_is_refused_by_its_hash_first(tmp_path, spec):
    from vqa_train.store.rows import FeatureRow

    features = FeatureStore(tmp_path / "store").create_set(spec, license="MIT")
    row = FeatureRow(key="a" * 64, outputs={"pooled": np.ones(2, np.float32)})
    features.append([row], profile={}, run_id="r")
    (shard,) = (features.folder / "shards").glob("*.parquet")
    data = shard.read_bytes()
    shard.write_bytes(data[:-12] + b"\xff" * 4 + data[-8:])
    with pytest.raises(StoreError, match="is damaged: sha256"):
        FeatureStore.open(tmp_path / "store").find("x").read()


# --- ONNX


@pytest.mark.parametrize("place", ["/etc/passwd", "../w.bin", "w.bin", "sub/w.bin", ""])
def test_onnx_whose_weights_lie_elsewhere_is_refused(tmp_path, place):
    import onnx
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", place
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "w.bin").write_bytes(bytes(8))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="outside the file"):
        OnnxModel(path)
    # With a hash that names it, only a file beside it will do.
    if place != "w.bin":
        helper.set_model_props(model, {"vqa_train.external": json.dumps({place: {"sha256": "a" * 64}})})
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="expected a file beside it|outside the file"):
            OnnxModel(path)


# --- secrets


@pytest.mark.parametrize(
    ("argv", "secret"),
    [
        (["x", "--env", "HF_TOKEN=s3cr3t"], "s3cr3t"),
        (["x", "--token", "s3cr3t"], "s3cr3t"),
        (["x", "--api-key=s3cr3t"], "s3cr3t"),
        (["x", "--hf-token=hf_abcdefgh12345678"], "hf_abcdefgh12345678"),
        (["x", "hf_abcdefgh12345678"], "hf_abcdefgh12345678"),
        (["x", "https://user:s3cr3t@host/x"], "s3cr3t"),
        (["x", "--password", "s3cr3t", "--output", "o"], "s3cr3t"),
        (["x", "s3://AKIAABCDEFGHIJKLMNOP:s3cr3t@bucket/x"], "s3cr3t"),
        (["x", "https://host/x?X-Amz-Signature=0123abcd&token=s3cr3t"], "s3cr3t"),
        (["x", "https://host/x?X-Amz-Signature=0123abcd"], "0123abcd"),
        (["x", "AWS_SECRET_ACCESS_KEY=s3cr3t"], "s3cr3t"),
    ],
)
def test_secrets_in_arguments_stay_out_of_provenance(argv, secret):
    redacted = redact_argv(argv)
    assert secret not in " ".join(redacted)
    assert len(redacted) == len(argv)
    assert redacted[-1] == "o" or "***" in redacted[-1]


@pytest.mark.parametrize("argument", ["tokens=vjepa2:tokens", "--input", "design=a", "--param", "lr=float:0:1", "a=b"])
def test_ordinary_arguments_stay_as_they_are(argument):
    assert redact_argv(["x", argument]) == ["x", argument]
