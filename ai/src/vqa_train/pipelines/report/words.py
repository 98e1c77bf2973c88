"""A run in words, for people who do not know its files: what it predicts, from what, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqa_train.pipelines import runs
from vqa_train.pipelines.report.lineage import moment


def run_subtitle(record: runs.RunRecord) -> str:
    """What it predicts, of which data, from which features, by which heads."""
    names = " + ".join(found.name for found in record.datasets)
    kinds = ", ".join(dict.fromkeys(str((m.config.get("head") or {}).get("kind", m.name)) for m in record.members))
    heads = sum(len(member.seeds) for member in record.members)
    averaged = f"an average of {heads} heads" if heads > 1 else "one head"
    features = ", ".join(dict.fromkeys(str(item.spec.get("backbone", item.name)) for item in record.inputs))
    return (
        f"Predicts the opinion scores of {names} ({', '.join(record.targets)}) from the features {features}: "
        f"{averaged} ({kinds})."
    )


def run_facts(record: runs.RunRecord) -> dict[str, str]:
    """Name -> value, for under the title; what is unknown is left out."""
    block = record.run_provenance
    commit = (block.get("git") or {}).get("commit")
    found = {
        "measured by": protocol_text(record.protocol),
        "scale": scale_text(record.mos_range, record.direction),
        "started": moment(block),
        "commit": str(commit)[:12] if commit else "",
        "run id": str(block.get("run_id", "")),
    }
    return {name: value for name, value in found.items() if value}


def scale_text(ranges: Mapping[str, tuple[float, float]], direction: str) -> str:
    """Targets with the ends of their scale."""
    ends = ", ".join(f"{target} {low:g} to {high:g}" for target, (low, high) in ranges.items())
    return f"{ends} ({'lower' if direction == 'lower_is_better' else 'higher'} is better)"


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """A protocol (docs/protocols.md) in words."""
    kind = str(protocol.get("kind", "splits"))
    repeats = int(protocol.get("repeats") or 1)
    source = protocol.get("source", "group")
    texts = {
        "splits": "the dataset's own split",
        "hash": f"one split by hash, {float(protocol.get('test') or 0):.0%} for testing",
        "kfold": f"{protocol.get('k')}-fold cross-validation" + (f", {repeats} times over" if repeats > 1 else ""),
        "repeated": f"{repeats} random splits, {float(protocol.get('test_fraction') or 0):.0%} held out in each",
        "leave_one_dataset_out": "each dataset in turn held out",
        "leave_one_group_out": f"each {source} in turn held out",
        "cross_dataset": "trained on each dataset, tested on each other one",
        "file": "splits read from a file",
    }
    text = texts.get(kind, kind)
    if kind in ("hash", "kfold", "repeated", "cross_dataset"):
        text += ", groups kept whole" if protocol.get("by", "group") == "group" else ", row by row"
    return text
