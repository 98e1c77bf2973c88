"""The graph of a lineage as a tree for people: each node once, long lists of one kind counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from vqa_train.pipelines.lineage.graph import STATUSES, Edge, Lineage, Node, Status

WORDS: dict[Status, str] = {
    "verified": "verified",
    "differs": "DIFFERS",
    "not_found": "NOT FOUND",
    "not_looked_for": "not looked for",
}
_LISTED = 5
_PLURALS = {"video": "videos", "shard": "shards", "prompt": "prompts", "run": "runs", "run_file": "run files"}


@dataclass(frozen=True)
class Line:
    """One line of the tree.

    Attributes:
        depth: 0 for the model.
        text: what is there.
        status: of the node; None for a line that counts several, or repeats one.
    """

    depth: int
    text: str
    status: Status | None = None


def tree_lines(lineage: Lineage, *, full: bool = False) -> Iterator[Line]:
    """The model first, what it descends from below.

    Args:
        full: list every node; else more than five of one kind below one node are counted, and those that differ or were
            not found are listed.
    """
    below: dict[str, list[Edge]] = {}
    for edge in lineage.edges:
        below.setdefault(edge.source, []).append(edge)
    shown: set[str] = set()

    def walk(node: Node, relation: str, depth: int) -> Iterator[Line]:
        title = f"{relation} {_kind(node)} {node.name}{_short(node)}".strip()
        if node.id in shown:
            yield Line(depth, f"{title}: see above")
            return
        shown.add(node.id)
        yield Line(depth, f"{title}: {WORDS[node.status]}{f' - {node.detail}' if node.detail else ''}", node.status)
        for fact in _facts(node):
            yield Line(depth + 1, fact)
        for (name, kind), edges in groupby(
            below.get(node.id, ()), key=lambda edge: (edge.relation, lineage.nodes[edge.target].kind)
        ):
            children = [lineage.nodes[edge.target] for edge in edges]
            if full or len(children) <= _LISTED:
                for child in children:
                    yield from walk(child, name, depth + 1)
            else:
                yield from counted(children, name, kind, depth + 1)

    def counted(children: Sequence[Node], relation: str, kind: str, depth: int) -> Iterator[Line]:
        """How many there are of each status; a shard's runs would be lost with it, so they come below the count."""
        yield Line(depth, f"{relation} {len(children)} {_PLURALS.get(kind, kind)}: {_statuses(children)}")
        for split in _splits(children):
            yield Line(depth + 1, split)
        broken = [child for child in children if child.status in ("differs", "not_found")]
        for child in broken[:_LISTED]:
            yield from walk(child, relation, depth + 1)
        if len(broken) > _LISTED:
            yield Line(depth + 1, f"and {len(broken) - _LISTED} more (--full lists them)")
        writers = dict.fromkeys(
            edge.target for child in children for edge in below.get(child.id, ()) if edge.relation == "was written by"
        )
        for run in writers:
            if run not in shown:
                yield from walk(lineage.nodes[run], "were written by", depth + 1)

    yield from walk(lineage.nodes[lineage.root], "", 0)


def _kind(node: Node) -> str:
    return node.kind.replace("_", " ")


def _short(node: Node) -> str:
    """The beginning of its hash; a run's id stands in its name."""
    return f" [{node.id[:12]}]" if len(node.id) == 64 else ""


def _statuses(nodes: Sequence[Node]) -> str:
    found = Counter(node.status for node in nodes)
    return ", ".join(f"{found[status]} {WORDS[status]}" for status in STATUSES if found[status])


def _splits(nodes: Sequence[Node]) -> Iterator[str]:
    """What videos were used for."""
    rows = [row for node in nodes for row in node.facts.get("rows", [])]
    used = Counter(row["split"] or "without labels" for row in rows if "as" not in row)
    references = sum("as" in row for row in rows)
    if used:
        beside = f"; a reference of {references} rows" if references else ""
        yield "rows: " + ", ".join(f"{count} {name}" for name, count in sorted(used.items())) + beside


def _facts(node: Node) -> Iterator[str]:
    """The few facts that a reader of the tree looks for."""
    facts = node.facts
    if node.kind == "run":
        git = facts.get("git") or {}
        if git:
            yield f"git {git.get('commit', '')[:12]}{' with changes' if git.get('dirty') else ''}"
        packages = facts.get("packages") or {}
        if packages:
            yield "packages: " + ", ".join(f"{name} {version}" for name, version in packages.items())
        if facts.get("config_sha256"):
            yield f"config sha256 {facts['config_sha256'][:12]}, started {facts.get('started', '')}"
    if node.kind == "shard" and facts.get("profile"):
        profile = facts["profile"]
        yield f"{facts['rows']} rows, " + ", ".join(f"{name} {value}" for name, value in profile.items())
    if facts.get("license"):
        yield f"licence: {facts['license']}"
    if facts.get("merged_since"):
        yield f"{len(facts['merged_since'])} shards that the fit read were merged into others since"
    if facts.get("tags"):
        yield f"tags: {', '.join(facts['tags'])}"
    if node.kind in ("video", "prompt"):
        for row in facts.get("rows", [])[:3]:
            what = "reference of " if "as" in row else ""
            yield f"{what}{row['dataset']}/{row['id']}: {row['split'] or 'without labels'}"
