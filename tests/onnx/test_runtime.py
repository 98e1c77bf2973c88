"""An ONNX file is verified before it is loaded, and takes only what its graph says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.onnx.export import export_module
from vqa_train.onnx.runtime import OnnxModel


@pytest.fixture
def linear() -> nn.Linear:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6.0).reshape(2, 3))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    return layer


@pytest.fixture
def path(linear: nn.Linear, tmp_path: Path) -> Path:
    export_module(
        linear, torch.zeros(1, 3), tmp_path / "m.onnx", input_names=["x"], output_names=["scores"],
        dynamic_axes={"x": {0: "batch"}, "scores": {0: "batch"}}, metadata={"key": "value", "json": {"b": 1, "a": [2]}},
    )  # fmt: skip
    return tmp_path / "m.onnx"


def test_it_computes_what_the_module_computes(path: Path) -> None:
    rows = np.array([[1, 2, 3], [0, 0, 1]], dtype=np.float32)
    got = OnnxModel(path, expected_sha256=sha256_file(path), threads=1).run({"x": rows})["scores"]
    np.testing.assert_allclose(got, [[8.5, 25.5], [2.5, 4.5]])  # x W^T + b by hand


def test_it_says_what_the_graph_is(path: Path) -> None:
    model = OnnxModel(path)
    assert model.inputs["x"].shape == ("batch", 3)
    assert model.inputs["x"].dtype is np.float32
    assert model.outputs["scores"].shape == ("batch", 2)
    assert model.metadata == {"key": "value", "json": '{"a":[2],"b":1}'}
    assert (model.opset, model.sha256) == (17, sha256_file(path))


def test_one_flipped_byte_is_refused_before_loading(path: Path) -> None:
    expected = sha256_file(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"{sha256_file(path)[:12]}, expected {expected[:12]}"):
        OnnxModel(path, expected_sha256=expected)


def test_external_data_is_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "external.onnx"
    onnx.save_model(onnx.load(path), other, save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(ModelError, match="tensors outside the file"):
        OnnxModel(other, expected_sha256=sha256_file(other))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"takes inputs \['x'\], got \[\]"),
        ({"y": np.zeros((1, 3), np.float32)}, r"takes inputs \['x'\], got \['y'\]"),
        ({"x": np.zeros((1, 4), np.float32)}, r"float32 \['batch', 3\], got float32 \[1, 4\]"),
        ({"x": np.zeros(3, np.float32)}, r"got float32 \[3\]"),
        ({"x": np.zeros((1, 3))}, "got float64"),
    ],
)
def test_other_inputs_than_the_graphs_are_refused(path: Path, inputs: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OnnxModel(path).run(inputs)


def test_a_provider_that_is_not_installed_is_an_error(path: Path) -> None:
    missing = "CUDAExecutionProvider"
    if missing in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ModelError, match=f"'{missing}' is not installed"):
        OnnxModel(path, providers=(missing, "CPUExecutionProvider"))


def test_a_provider_that_cannot_start_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # onnxruntime only logs this: the session then quietly runs without the provider.
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: [])
    with pytest.raises(ModelError, match="could not be started"):
        OnnxModel(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08" + b"\x00" * 20])
def test_what_is_no_onnx_file_is_a_model_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        OnnxModel(path)


def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx' does not exist"):
        OnnxModel(tmp_path / "none.onnx")


def test_negative_threads_are_a_usage_error(path: Path) -> None:
    with pytest.raises(UsageError, match="threads"):
        OnnxModel(path, threads=-1)


def test_it_runs_where_torch_and_onnx_cannot_be_imported(path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'transformers', 'scipy', 'sklearn'): sys.modules[name] = None\n"
        "from pathlib import Path; import numpy as np; from vqa_train.onnx.runtime import OnnxModel\n"
        f"print(OnnxModel(Path({str(path)!r})).run({{'x': np.ones((1, 3), np.float32)}})['scores'][0, 1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) == 11.5
