"""Where the numbers come from: data, features, recipe, command, machine, and the hash of every file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from vqa_train.pipelines import runs
from vqa_train.pipelines.report.page import Section, Table, Text

_FILES = {
    runs.HEAD_FILE: "weights of the final model",
    runs.ROWS_FILE: "sample of input rows, for the parity check of export",
    runs.PREDICTIONS_FILE: "the final model on every row",
    runs.METRICS_FILE: "the final model on its own training and validation rows",
    runs.HISTORY_FILE: "learning curves",
    runs.SPLITS_FILE: "which rows train and which test",
    runs.FEATURES_FILE: "which rows of which shards were read",
    runs.HELD_OUT_FILE: "predictions of each fold's test rows",
    runs.PROTOCOL_FILE: "metrics of each fold and over all",
    runs.CALIBRATION_FILE: "prediction intervals",
}


def run_lineage(record: runs.RunRecord) -> Section:
    """The provenance of a run."""
    recipe = yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True, width=100)
    return Section(
        key="provenance",
        title="Provenance",
        intro="Everything that these numbers were made from. A hash that differs is another file.",
        tables=[
            _data(record),
            _inputs([item.model_dump() for item in record.inputs]),
            _members(record),
            Table(
                caption="Files of the run, checked when this page was made",
                columns=["file", "what", "sha256"],
                rows=[[name, _FILES.get(name, ""), digest] for name, digest in record.files.items()],
                folded=True,
            ),
            *provenance_tables(record.run_provenance),
        ],
        texts=[
            Text(heading="The recipe, with every default filled in", text=recipe),
            *provenance_texts(record.run_provenance),
        ],
    )


def provenance_tables(block: Mapping[str, Any]) -> list[Table]:
    """A run_provenance block: the run, what it read, the packages; then the blocks it descends from."""
    tables = []
    place: Mapping[str, Any] | None = block
    while place:
        name = str(place.get("entrypoint", "run"))
        tables.append(
            Table(
                caption=f"{name}: when, where and by which code",
                columns=["what", "value"],
                rows=_facts(place),
                folded=True,
            )
        )
        read = place.get("inputs") or {}
        if read:
            tables.append(
                Table(
                    caption=f"{name}: what it read",
                    columns=["input", "kind", "path", "sha256"],
                    rows=[
                        [key, str(value.get("kind", "")), str(value.get("path", "")), str(value.get("sha256", ""))]
                        for key, value in read.items()
                    ],
                    folded=True,
                )
            )
        parent = place.get("parent")
        place = parent if isinstance(parent, Mapping) else None
    return tables


def provenance_texts(block: Mapping[str, Any]) -> list[Text]:
    """The command line."""
    argv = block.get("argv") or []
    return [Text(heading="The command", text=shlex.join(str(part) for part in argv), wrap=True)] if argv else []


def moment(block: Mapping[str, Any]) -> str:
    """When a run started, as people write it: `2026-05-31 12:00 UTC`; empty where it is not known."""
    found = str(block.get("started", ""))
    return f"{found[:10]} {found[11:16]} UTC" if found.endswith("+00:00") else found


def code_warnings(block: Mapping[str, Any]) -> list[str]:
    """Code that no commit has."""
    git = block.get("git")
    if isinstance(git, Mapping) and git.get("dirty"):
        return ["the code had changes that are in no commit, so the commit alone does not reproduce this"]
    return []


def inputs_table(inputs: Sequence[Mapping[str, Any]]) -> Table:
    """The feature sets, of run.json or of a sidecar."""
    return _inputs(inputs)


def _facts(block: Mapping[str, Any]) -> list[list[str]]:
    git = block.get("git") or {}
    commit = str(git.get("commit", "not in a git checkout")) + (" (with changes)" if git.get("dirty") else "")
    seconds = block.get("duration_s")
    seeds = block.get("seeds") or {}
    rows = [
        ["run id", str(block.get("run_id", ""))],
        ["started", moment(block)],
        ["took", f"{float(seconds):.1f} s" if seconds is not None else ""],
        ["device", str(block.get("device", ""))],
        ["platform", f"{block.get('platform', '')}, {block.get('cpus', '?')} CPUs, Python {block.get('python', '')}"],
        ["git commit", commit],
        ["config sha256", str(block.get("config_sha256", ""))],
    ]
    if seeds:
        rows.append(["seeds", ", ".join(f"{name} {seed}" for name, seed in list(seeds.items())[:12])])
    rows += [[f"package {name}", str(version)] for name, version in (block.get("packages") or {}).items()]
    return [row for row in rows if row[1]]


def _data(record: runs.RunRecord) -> Table:
    return Table(
        caption="Data that it was fitted on",
        columns=["dataset", "version", "rows", "licence", "manifest sha256"],
        rows=[[d.name, d.version, str(d.rows), d.license, d.manifest_sha256] for d in record.datasets],
        numeric=frozenset({2}),
    )


def _inputs(inputs: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for item in inputs:
        spec = item["spec"]
        weights = (spec.get("weights") or {}).get("sha256") or "none"
        shape = item.get("shape") or [item["dim"]]
        whose = " of the reference" if item.get("of") else ""
        rows.append(
            [
                str(item["name"]), f"{spec.get('backbone', '')} / {item['output']}{whose}", " x ".join(map(str, shape)),
                str(item["fingerprint"]), str(weights), str(item["license"]),
            ]
        )  # fmt: skip
    return Table(
        caption="Features that it takes",
        columns=["input", "backbone / output", "shape", "fingerprint", "weights sha256", "licence"],
        rows=rows,
    )


def _members(record: runs.RunRecord) -> Table:
    return Table(
        caption="Heads of the final model, whose scores are averaged by weight",
        columns=["member", "kind", "weight", "heads"],
        rows=[
            [m.name, str((m.config.get("head") or {}).get("kind", "")), f"{m.weight:g}", str(len(m.seeds))]
            for m in record.members
        ],
        numeric=frozenset({2, 3}),
    )
