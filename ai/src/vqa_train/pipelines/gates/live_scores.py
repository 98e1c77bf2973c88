"""Reads what vqa-score wrote (JSON, JSON lines or CSV) as arrays, with the model that each score is of."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import UsageError

_HINT = "give what `vqa-score --format json, jsonl or csv` wrote"


@dataclass(frozen=True)
class LiveScores:
    """Scores of videos.

    Attributes:
        scores: float64 (N, K), NaN for a video without; none where they are of another model.
        models: sha256 of the heads that gave them; "" where the file does not say.
    """

    scores: NDArray[np.float64]
    models: frozenset[str]


def read_live_scores(path: Path, targets: Sequence[str], sha256: str) -> LiveScores:
    """The scores in a file, columns in the order of `targets`; failed videos are rows of NaN.

    Args:
        path: of the file.
        targets: K names.
        sha256: of the model that the scores should be of; those of another are not read.

    Raises:
        UsageError: it cannot be read, is of none of the three forms, or lacks a target.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"scores {str(path)!r} cannot be read: {why}") from error
    if _is_csv(path, text):
        found = list(_csv_rows(path, text))
        models = {row.get("model_sha256") or "" for row in found}
        rows = _csv(path, found, targets) if models <= {sha256} else []
    else:
        documents = _documents(path, text)
        models = {_model_of(document) for document in documents}
        rows = _json(path, documents, targets) if models <= {sha256} else []
    if not rows and models <= {sha256}:
        raise UsageError(f"scores {str(path)!r} hold no video", hint=_HINT)
    return LiveScores(np.asarray(rows, dtype=np.float64).reshape(len(rows), len(targets)), frozenset(models))


def _is_csv(path: Path, text: str) -> bool:
    return path.suffix.lower() == ".csv" or not text.lstrip().startswith(("{", "["))


def _csv_rows(path: Path, text: str) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if "video" not in (reader.fieldnames or ()):
        raise UsageError(f"scores {str(path)!r} have no column 'video'", hint=_HINT)
    yield from reader


def _csv(path: Path, rows: Sequence[Mapping[str, str]], targets: Sequence[str]) -> list[list[float]]:
    lacking = [target for target in targets if rows and target not in rows[0]]
    if lacking:
        raise UsageError(f"scores {str(path)!r} have no column {lacking[0]!r}", hint=_HINT)
    return [[_number(path, row[target]) for target in targets] for row in rows]


def _model_of(document: Mapping[str, Any]) -> str:
    """sha256 of the head behind a document, or behind a line; "" where it does not say."""
    model = document.get("model")
    found = model.get("onnx_sha256") if isinstance(model, Mapping) else document.get("model_sha256")
    return str(found or "")


def _json(path: Path, documents: Sequence[Mapping[str, Any]], targets: Sequence[str]) -> list[list[float]]:
    rows: list[list[float]] = []
    for document in documents:
        if "results" in document:
            results, failures = document["results"], document.get("failures", [])
        else:
            results, failures = ([document], []) if "scores" in document else ([], [document])
        rows += _results(path, results, targets)
        rows += [[math.nan] * len(targets) for failure in failures if "video" in failure]
    return rows


def _documents(path: Path, text: str) -> list[Mapping[str, Any]]:
    """One document, or one a line."""
    try:
        found: Any = [json.loads(text)]
    except ValueError:
        try:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise UsageError(f"scores {str(path)!r} are neither JSON nor JSON lines: {error}", hint=_HINT) from error
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    if not all(isinstance(document, Mapping) for document in found):
        raise UsageError(f"scores {str(path)!r} hold something else than objects", hint=_HINT)
    return list(found)


def _results(path: Path, results: Iterable[Any], targets: Sequence[str]) -> list[list[float]]:
    rows = []
    for result in results:
        scores = result.get("scores") if isinstance(result, Mapping) else None
        if not isinstance(scores, Mapping) or any(target not in scores for target in targets):
            lacking = [t for t in targets if not isinstance(scores, Mapping) or t not in scores]
            raise UsageError(f"scores {str(path)!r} have a video without target {lacking[0]!r}", hint=_HINT)
        rows.append([_number(path, scores[target]) for target in targets])
    return rows


def _number(path: Path, value: Any) -> float:
    if value is None or value == "":
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"scores {str(path)!r} hold {value!r} where a score should be", hint=_HINT) from error
