"""Every parser of vqa-train as a fuzz target: seeds that it accepts, and a call that takes bytes.

A target may return, or raise VqaError; anything else is a defect. Used by tests/fuzz (hypothesis) and by fuzz.py (atheris).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.store import layout
from vqa_train.store.seal import sealed

ROOT = Path(__file__).resolve().parents[2]
SPEC = FeatureSpec(
    backbone="nss",
    definition=1,
    modality="video",
    outputs=(OutputSpec(name="pooled", shape=(3,), names=("a", "b", "c")), OutputSpec(name="tokens", shape=(2, 2))),
    sampling=Sampling(mode="uniform", n=2, views=1),
)
H = "a" * 64


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: of the target.
        seeds: files that it accepts.
        call: parses bytes, with a folder to put them in where the parser wants a file.
        form: "json", "sealed", "yaml" or "bytes": what a mutation may take the seeds for.
    """

    name: str
    seeds: tuple[bytes, ...]
    call: Callable[[bytes, Path], object]
    form: str = "bytes"


def _file(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()


# --- the store


def _commit() -> bytes:
    sums = {"n": 1, "sum": [0.5, 1, 2], "sum_of_squares": [1.0, 1, 4]}
    return sealed(
        {
            "schema": layout.COMMIT_SCHEMA, "shard": "s", "fingerprint": SPEC.fingerprint, "sha256": H, "bytes": 9,
            "rows": 1, "profile": {"device": "cpu"}, "run_id": "r", "created": "2026-01-01T00:00:00.000000+00:00",
            "keys": [H], "views": [0], "digests": ["b" * 16], "statistics": {"pooled": sums},
        }
    )  # fmt: skip


def _snapshot() -> bytes:
    shard = {"shard": "s", "sha256": H, "bytes": 9, "rows": 1, "commit_sha256": H}
    return sealed(
        {
            "schema": layout.SNAPSHOT_SCHEMA, "parent": None, "created": "2026", "fingerprint": SPEC.fingerprint,
            "spec_sha256": H, "rows": 1, "bytes": 9, "shards": [shard], "failures": [{"file": "f.jsonl", "sha256": H}],
            "removed": ["x"],
        }
    )  # fmt: skip


def _failures() -> bytes:
    line = {
        "schema": layout.FAILURE_SCHEMA, "key": None, "id": "x", "path": "a/b.mp4", "reason": "timeout",
        "message": "slow", "run_id": "r", "created": "2026",
    }  # fmt: skip
    return _json(line) + b"\n" + _json({**line, "reason": None}) + b"\n"


def _read_commit(data: bytes, folder: Path) -> object:
    from vqa_train.store.commits import read_commit

    return read_commit(_file(folder, "s.json", data), SPEC.fingerprint)


def _read_snapshot(data: bytes, folder: Path) -> object:
    from vqa_train.store.snapshot import read_snapshot

    return read_snapshot(_file(folder, f"{sha256_bytes(data)}.json", data))


def _read_failures(data: bytes, folder: Path) -> object:
    from vqa_train.store.failures import file_name, standing

    _file(folder / "failures", file_name(data), data)
    try:
        return standing(folder, set())
    finally:
        (folder / "failures" / file_name(data)).unlink()


def _read_spec(data: bytes, folder: Path) -> object:
    from vqa_train.store.feature_set import read_spec

    return read_spec(_file(folder / SPEC.set_name, layout.SPEC_FILE, data).parent)


def _read_store(data: bytes, folder: Path) -> object:
    from vqa_train.store.store import check_store

    return check_store(_file(folder / "store", layout.STORE_FILE, data).parent)


def _read_tag(data: bytes, folder: Path) -> object:
    from vqa_train.store.tags import read_tag

    _file(folder / layout.TAGS, "t.json", data)
    return read_tag(folder, "t")


def _read_log(data: bytes, folder: Path) -> object:
    from vqa_train.store.quarantine import quarantined

    _file(folder / layout.QUARANTINE, "x.log", data)
    return list(quarantined(folder))


# --- datasets

MANIFEST = """\
schema: vqa-train/dataset/1
name: d
license: CC0-1.0
mos: {min: 1, max: 5}
targets: [q, {name: r, mos: {min: 0, max: 100, direction: lower_is_better}}]
columns: {id: id, path: file, prompt: text, group: g, targets: {q: MOS}, std: {q: sd}, attributes: [kind]}
labels:
  - {path: labels.csv, split: train, sha256: AAAA, bytes: 9}
  - {path: more.csv, labelled: false, sha256: AAAA, bytes: 9}
splits: {by: hash, fractions: {train: 0.8, test: 0.2}, salt: s}
files: {table: d.files.csv, sha256: AAAA, rows: 2, bytes_total: 9}
""".replace("AAAA", H)
LABELS = b'id,file,text,g,MOS,sd,kind,r\nv1,a.mp4,"a, b",g1,4.5,0.2,x,50\nv2,b/c.mp4,,g2,,,y,1e1\n'
FILES = f"path,sha256,bytes\na.mp4,{H},4\nb/c.mp4,{'b' * 64},5\n".encode()


def _read_manifest(data: bytes, folder: Path) -> object:
    from vqa_train.datasets.manifest import read_manifest

    return read_manifest(_file(folder, "d.yaml", data))


@cache
def _manifest() -> Any:
    import yaml

    from vqa_train.core.config import parse
    from vqa_train.datasets.manifest import DatasetManifest

    return parse(DatasetManifest, yaml.safe_load(MANIFEST), "seed")


def _read_labels(data: bytes, folder: Path) -> object:
    from vqa_train.datasets.adapters.csv import CsvAdapter
    from vqa_train.datasets.files_table import FileEntry
    from vqa_train.datasets.label_rows import LabelRows
    from vqa_train.datasets.labels import join_labels

    rows = LabelRows(_manifest(), CsvAdapter(), _manifest().labels[0], data)
    return join_labels(_manifest(), [rows], [FileEntry("a.mp4", H, 4), FileEntry("b/c.mp4", "b" * 64, 5)])


def _read_files(data: bytes, folder: Path) -> object:
    from vqa_train.datasets.files_table import read_files_table
    from vqa_train.datasets.manifest import FilesRef

    path = _file(folder, "d.files.csv", data)
    ref = FilesRef(table=path.name, sha256=sha256_bytes(data), rows=2, bytes_total=9)
    return read_files_table(ref, folder)


@cache
def _splits() -> bytes:
    rows = [{"dataset": "d", "id": str(n), "video_sha256": f"{n:064x}"} for n in range(4)]
    folds = [{"name": "one", "train": [0, 1], "test": [2], "validation": [3], "left_out": 0}]
    return _json({"schema": "vqa-train/splits/1", "protocol": {"kind": "kfold"}, "rows": rows, "folds": folds})


def _read_splits(data: bytes, folder: Path) -> object:
    from vqa_train.datasets.protocols.file import read_plan

    return read_plan(_file(folder, "splits.json", data))


# --- recipes, search spaces, models, weights


def _read_recipe(data: bytes, folder: Path) -> object:
    from vqa_train.pipelines.fit.config import load_fit_config

    return load_fit_config(_file(folder, "r.yaml", data))


SPACE = b"""\
schema: vqa-train/space/1
params:
  lr: {kind: float, low: 1.0e-4, high: 0.01, log: true}
  head.hidden: {kind: categorical, choices: [[64], [128, 64], []]}
  weight_decay: float:0:0.5
"""


@cache
def _members() -> Any:
    from vqa_train.heads.config import TrainConfig
    from vqa_train.pipelines.fit.config import MemberConfig

    return [MemberConfig(name="head", train=TrainConfig())]


def _read_space(data: bytes, folder: Path) -> object:
    from vqa_train.pipelines.tune.space import read_space

    return read_space(_file(folder, "s.yaml", data), [], _members())


def _sidecar() -> bytes:
    backbone = {"file": "b.onnx", "sha256": H, "bytes": 9, "cached": False, "inputs": {"frames": [2, "h"]}}
    value = {
        "schema_version": "vqa-train/model/1", "name": "m", "registered": True, "kind": "nr", "dataset": {"name": "d"},
        "train_commit": "0123abc", "license": "MIT",
        "onnx": {"file": "m.onnx", "sha256": H, "bytes": 10, "opset": 17},
        "inputs": [
            {
                "name": "nss", "modality": "video", "backbone": "nss", "fingerprint": SPEC.fingerprint,
                "output": "pooled", "dim": 3, "spec": SPEC.to_json(), "license": "MIT", "backbone_onnx": backbone,
            }
        ],
        "targets": ["overall"], "input_normalization": "inside", "expected_output_range": {"overall": [1.5, 4.5]},
        "direction": "higher_is_better", "mos_range": {"overall": [1, 5]}, "train_config_hash": H,
        "inherited_licenses": {"d": "CC0-1.0"}, "descends_from_random_weights": False, "parity": {},
        "golden_rows": {"inputs": {"nss": [[0.1, 0.2, 0.3]]}, "scores": [[3.0]]}, "run_provenance": {},
    }  # fmt: skip
    return _json(value)


def _read_sidecar(data: bytes, folder: Path) -> object:
    from vqa_train.registry.card import render_card
    from vqa_train.registry.sidecar import read_sidecar

    sidecar = read_sidecar(_file(folder, "m.json", data))
    return [item.feature_spec() for item in sidecar.inputs], render_card(sidecar)


def _read_registry(data: bytes, folder: Path) -> object:
    from vqa_train.registry.registry import ModelRegistry

    registry = ModelRegistry(_file(folder / "model", "registry.json", data).parent)
    return [registry.find(name) for name in registry.models()]


def _registry() -> bytes:
    entry = {"sidecar": "m/1/model.json", "sidecar_sha256": H, "onnx_sha256": H, "number": 1}
    move = {"alias": "champion", "version": "1", "previous": None, "at": "2026-01-01T00:00:00+00:00", "by": "alias"}
    found = {"versions": {"1": entry}, "aliases": {"champion": "1"}, "moves": [{**move, "evidence": None}]}
    return _json({"schema": "vqa-train/registry/2", "models": {"m": found}})


def _read_weights(data: bytes, folder: Path) -> object:
    from vqa_train.weights.manifest import read_manifest

    return read_manifest(_file(folder, "weights.yaml", data))


def _read_pins(data: bytes, folder: Path) -> object:
    from vqa_train.weights.pins import LOCK_FILE, Pins

    return Pins(_file(folder / "weights", LOCK_FILE, data).parent).of("m")


def _pins() -> bytes:
    pin = {"sha256": H, "bytes": 9, "source": "x", "when": "2026-01-01T00:00:00Z"}
    return _json({"schema": "vqa-train/weights-lock/1", "weights": {"m": {"f": pin}}})


def _onnx(*, external: bool) -> bytes:
    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    pair = field(1, b"location") + field(2, b"w.bin")
    tensor = field(8, b"w") + field(13, pair) + bytes([14 << 3, 1])
    opset = field(1, b"") + bytes([2 << 3, 17])
    metadata = field(1, b"k") + field(2, b"v")
    graph = field(7, field(5, tensor)) if external else field(7, field(5, field(8, b"w")))
    return bytes([1 << 3, 8]) + graph + field(8, opset) + field(14, metadata)


def _read_onnx(data: bytes, folder: Path) -> object:
    from vqa_train.onnx.runtime import _external_files, _facts

    path = _file(folder, "m.onnx", data)
    return _external_files(path, _facts(path, data))


# --- features of others


def read_features(data: bytes, folder: Path, name: str) -> object:
    """Open a feature file and read every column as text, as number and as features."""
    from vqa_train.core.errors import VqaError
    from vqa_train.datasets.external.open import open_feature_file

    file = open_feature_file(_file(folder, name, data))
    read = []
    for column in file.names[:6]:
        for call in (
            lambda c=column: file.columns([c], []),
            lambda c=column: file.columns([], [c]),
            lambda c=column: [block.values.shape for block in file.blocks([c])],
        ):
            try:
                read.append(call())
            except VqaError:
                continue
    return read


def _features(name: str) -> Callable[[bytes, Path], object]:
    return lambda data, folder: read_features(data, folder, name)


@cache
def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "features": rng.normal(size=(6, 4)).astype(np.float32),
        "video_id": np.array([f"v{n}" for n in range(6)]),
        "mos": np.linspace(1, 5, 6),
    }


@cache
def _npz() -> tuple[bytes, ...]:
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **_arrays())
    np.savez_compressed(packed, **_arrays())
    return plain.getvalue(), packed.getvalue()


@cache
def _parquet() -> tuple[bytes, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = pa.array(_arrays()["features"].reshape(-1))
    columns = {
        "video_id": pa.array(list(_arrays()["video_id"])),
        **{name: pa.array([f"{name}{n}" for n in range(6)]) for name in ("id", "file", "text", "g", "kind")},
        **{name: pa.array([1.5] * 6) for name in ("MOS", "sd", "r")},
        "mos": pa.array(_arrays()["mos"]),
        "fixed": pa.FixedSizeListArray.from_arrays(values, 4),
        "free": pa.array([[1.0, 2.0]] * 6),
    }
    files = []
    for compression in ("none", "zstd"):
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, compression=compression)
        files.append(sink.getvalue())
    return tuple(files)


@cache
def _mat() -> tuple[bytes, ...]:
    from scipy.io import savemat

    files = []
    for compress in (False, True):
        sink = io.BytesIO()
        savemat(
            sink,
            {**_arrays(), "video_id": np.array(list(_arrays()["video_id"]), dtype=object)},
            do_compression=compress,
        )
        files.append(sink.getvalue())
    return tuple(files)


CSV = b'video_id,mos,f_0,f_1\nv0,1.5,0.1,2\nv1,2.5,nan,3e4\n"v,2",,inf,-1\n'


def _message(data: bytes, folder: Path) -> object:
    from vqa_train.core.errors import VqaError
    from vqa_train.video import pool

    try:
        return pool._parsed(data)
    except ValueError as error:
        # What the pool takes as the word of a broken worker.
        raise VqaError(str(error)) from error


@cache
def targets() -> dict[str, Target]:
    """Every target by name."""
    spec = {"schema": layout.SET_SCHEMA, "fingerprint": SPEC.fingerprint, "license": "MIT", "spec": SPEC.to_json()}
    tag = {"schema": layout.TAG_SCHEMA, "name": "t", "snapshot": H, "created": "2026"}
    log = {
        "schema": layout.QUARANTINE_SCHEMA, "files": {"a.x": "shards/x"}, "unreadable": [], "why": "w", "keys": [H],
        "created": "2026",
    }  # fmt: skip
    recipes = tuple(path.read_bytes() for path in sorted((ROOT / "ai" / "configs").glob("*.yaml")))
    weights = (ROOT / "manifests" / "weights.yaml").read_bytes()
    done = {"event": "done", "at": 1.0, "name": "x-1", "shape": [1, 2, 2, 3], "sha256": H, "times": [0.0]}
    listed = [
        Target("commit", (_commit(),), _read_commit, "sealed"),
        Target("snapshot", (_snapshot(),), _read_snapshot, "sealed"),
        Target("feature set", (sealed(spec),), _read_spec, "sealed"),
        Target("store", (sealed({"schema": layout.STORE_SCHEMA}),), _read_store, "sealed"),
        Target("tag", (sealed(tag),), _read_tag, "sealed"),
        Target("quarantine log", (sealed(log),), _read_log, "sealed"),
        Target("failures", (_failures(),), _read_failures, "lines"),
        Target("dataset manifest", (MANIFEST.encode(),), _read_manifest, "yaml"),
        Target("labels", (LABELS, *_parquet()), _read_labels),
        Target("files table", (FILES,), _read_files),
        Target("splits", (_splits(),), _read_splits, "json"),
        Target("recipe", recipes, _read_recipe, "yaml"),
        Target("search space", (SPACE,), _read_space, "yaml"),
        Target("sidecar", (_sidecar(),), _read_sidecar, "json"),
        Target("registry", (_registry(),), _read_registry, "json"),
        Target("weights manifest", (weights,), _read_weights, "yaml"),
        Target("weights lock", (_pins(),), _read_pins, "json"),
        Target("onnx", (_onnx(external=False), _onnx(external=True)), _read_onnx),
        Target("features csv", (CSV,), _features("f.csv")),
        Target("features npz", _npz(), _features("f.npz")),
        Target("features parquet", _parquet(), _features("f.parquet")),
        Target("features mat", _mat(), _features("f.mat")),
        Target(
            "worker message",
            (_json(done), _json({"event": "failed", "reason": "timeout", "message": "m"})),
            _message,
            "json",
        ),
    ]
    return {target.name: target for target in listed}
