"""The rows that the fit used: a node for each video, reference and prompt, with what it was used for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vqa_train.core.errors import VqaError
from vqa_train.core.files import confined
from vqa_train.core.progress import progress
from vqa_train.pipelines.lineage.data import Datasets
from vqa_train.pipelines.lineage.graph import Lineage, Node, compare_file
from vqa_train.pipelines.lineage.run import TracedRun

_UNREAD = "its file was not read (--content reads it)"


def trace_videos(lineage: Lineage, run: TracedRun, datasets: Datasets) -> None:
    """A node below the dataset's for each key of the run's rows; `rows` in its facts says what it was used for."""
    if run.predictions is None:
        return
    for row in run.predictions.iter_rows(named=True):
        parent = datasets.nodes.get(row["dataset"], run.node)
        used = {"dataset": row["dataset"], "id": row["id"], "split": row["split"]}
        listed = datasets.files.get(row["dataset"])
        _add(lineage, parent, row["video_sha256"], used, listed)
        if row.get("reference_sha256"):
            _add(lineage, parent, row["reference_sha256"], {**used, "as": "reference"}, listed)
        if row.get("prompt_sha256"):
            _add_prompt(lineage, parent, row["prompt_sha256"], used)


def _add_prompt(lineage: Lineage, parent: str, sha256: str, used: Mapping[str, str | None]) -> None:
    node = lineage.nodes.get(sha256)
    if node is None:
        node = Node(id=sha256, kind="prompt", name=f"prompt of {used['id']}", detail="its text was not read")
        node.facts["rows"] = []
    lineage.add(parent, "has", node).facts["rows"].append(dict(used))


def _add(
    lineage: Lineage, parent: str, sha256: str, used: Mapping[str, str | None], listed: Mapping[str, object] | None
) -> None:
    node = lineage.nodes.get(sha256)
    if node is None:
        entry = listed.get(sha256) if listed is not None else None
        path = getattr(entry, "path", None)
        node = Node(id=sha256, kind="video", name=path or str(used["id"]), detail=_UNREAD)
        node.facts |= {"path": path, "rows": []}
        if listed is not None and entry is None:
            node.status, node.detail = "differs", "the file list of its dataset has no file with this sha256"
    lineage.add(parent, "has", node).facts["rows"].append(dict(used))


def check_files(lineage: Lineage, datasets: Datasets) -> None:
    """Hash the file of every video whose place is known."""
    videos = [node for node in lineage.of_kind("video") if node.facts.get("path")]
    with progress("reading videos", len(videos)) as advance:
        for node in videos:
            names = {str(row["dataset"]) for row in node.facts["rows"]}
            roots = [datasets.roots[name] for name in sorted(names) if name in datasets.roots]
            if roots and node.status != "differs":
                status, detail = compare_file(_inside(roots[0], node.facts["path"]), node.id)
                if not (status == "verified" and node.status == "not_found"):
                    node.status, node.detail = status, detail
            advance()


def _inside(root: Path, path: str) -> Path | None:
    try:
        return confined(root, path)
    except VqaError:
        return None
