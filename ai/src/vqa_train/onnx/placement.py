"""Which execution provider runs which nodes of a graph: a provider that ran nothing was not tested."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError


def nodes_by_provider(path: Path, provider: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Full name of a provider -> how many nodes it ran of one run with `provider` preferred, after graph optimisations.

    Args:
        path: a file that `OnnxModel` verified and that starts behind the provider.
        provider: full name, such as "CUDAExecutionProvider".
        inputs: of one run.

    Raises:
        ModelError: onnxruntime cannot load or run it.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "nodes")
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=[provider])
            session.run(None, dict(inputs))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:  # onnxruntime raises classes of its own that share no public base
            raise ModelError(f"onnxruntime failed on {path.name!r}: {str(error)[:300]}") from error
    ran = [event["args"] for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {})]
    return dict(sorted(Counter(str(arguments["provider"]) for arguments in ran).items()))
