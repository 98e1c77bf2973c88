"""The graph of a model's lineage: nodes that are named by their hash, what was found out about each, and edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from vqa_train.core.files import display_path
from vqa_train.core.hashing import sha256_file

LINEAGE_SCHEMA = "vqa-train/lineage/1"
Status = Literal["verified", "differs", "not_found", "not_looked_for"]
STATUSES: tuple[Status, ...] = get_args(Status)
# Of two findings about one thing the graver one stands.
_GRAVITY: dict[Status, int] = {"not_looked_for": 0, "verified": 1, "not_found": 2, "differs": 3}


@dataclass
class Node:
    """One thing that a model descends from.

    Attributes:
        id: its sha256; the run id of a run, which has no hash.
        kind: `model`, `head`, `run`, `feature_set`, `shard`, `video`, `weights` and so on (docs/lineage.md).
        name: for people.
        status: `verified` (what is there was read and is what was recorded), `differs`, `not_found` (looked for and not
            there) or `not_looked_for`.
        detail: one line: what was compared with what, or why not.
        facts: more of it, as JSON values.
    """

    id: str
    kind: str
    name: str
    status: Status = "not_looked_for"
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return dict(vars(self))


@dataclass(frozen=True)
class Edge:
    """`source` descends from, holds or names `target`, as `relation` says."""

    source: str
    target: str
    relation: str


class Lineage:
    """Nodes by id, the edges between them in the order they were found, and the node of the model itself."""

    def __init__(self, root: Node) -> None:
        self.root = root.id
        self.nodes: dict[str, Node] = {root.id: root}
        self._edges: dict[Edge, None] = {}

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Each once."""
        return tuple(self._edges)

    def add(self, parent: str, relation: str, node: Node) -> Node:
        """Put `node` below `parent`; of a node that is there already the graver finding stands, and its facts join."""
        known = self.nodes.setdefault(node.id, node)
        if known is not node:
            if _GRAVITY[node.status] > _GRAVITY[known.status]:
                known.status, known.detail = node.status, node.detail
            known.facts.update(node.facts)
        self.link(parent, relation, node.id)
        return known

    def link(self, parent: str, relation: str, target: str) -> None:
        """An edge between two nodes; a node is never its own parent."""
        if parent != target:
            self._edges.setdefault(Edge(parent, target, relation))

    def of_kind(self, kind: str) -> list[Node]:
        """Nodes of one kind, in the order they were found."""
        return [node for node in self.nodes.values() if node.kind == kind]

    @property
    def counts(self) -> dict[Status, int]:
        """Nodes by status."""
        found = Counter(node.status for node in self.nodes.values())
        return {status: found[status] for status in STATUSES}

    @property
    def broken(self) -> list[Node]:
        """Nodes that differ or were not found."""
        return [node for node in self.nodes.values() if node.status in ("differs", "not_found")]

    def to_json(self) -> dict[str, Any]:
        """The document under its versioned schema."""
        return {
            "schema": LINEAGE_SCHEMA,
            "root": self.root,
            "counts": dict(self.counts),
            "nodes": [node.to_json() for node in self.nodes.values()],
            "edges": [{"from": edge.source, "to": edge.target, "relation": edge.relation} for edge in self._edges],
        }


def file_node(kind: str, name: str, sha256: str, path: Path | None, **facts: Any) -> Node:
    """A file that was recorded with its hash: hashed again where it is."""
    node = Node(id=sha256, kind=kind, name=name, facts=dict(facts))
    node.status, node.detail = compare_file(path, sha256)
    return node


def compare_file(path: Path | None, sha256: str) -> tuple[Status, str]:
    """What is found at `path` of a file that had `sha256`."""
    if path is None:
        return "not_looked_for", "nobody recorded where it was"
    shown = display_path(path)
    try:
        found = sha256_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return "not_found", f"there is nothing at {shown}"
    except OSError as error:
        return "not_found", f"{shown} cannot be read: {error.strerror or error}"
    if found != sha256:
        return "differs", f"{shown} has sha256 {found[:12]}, recorded was {sha256[:12]}"
    return "verified", f"the bytes at {shown} have this sha256"


def recorded_path(entry: Mapping[str, Any] | None) -> Path | None:
    """Where a provenance block says that a file was; None where it does not, or where it is behind a URL."""
    text = str((entry or {}).get("path", ""))
    return Path(text).expanduser() if text and "://" not in text else None
