"""What a model's sidecar says of itself: what goes in and out, how it was checked, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqa_train.pipelines.report.lineage import inputs_table, provenance_tables, provenance_texts
from vqa_train.pipelines.report.page import Section, Table
from vqa_train.registry.sidecar import ModelSidecar


def contract_section(sidecar: ModelSidecar) -> Section:
    """What goes in and out of the graph, and how it was checked."""
    tables = [inputs_table([item.model_dump(mode="json") for item in sidecar.inputs])]
    if sidecar.members:
        tables.append(
            Table(
                caption="Heads, whose scores are averaged by weight",
                columns=["member", "kind", "output", "heads", "weight"],
                rows=[[m.name, m.kind, m.output, str(m.models), f"{m.weight:.3g}"] for m in sidecar.members],
                numeric=frozenset({3, 4}),
            )
        )
    tables.append(
        Table(
            caption="Check of the graph against the trained head, when it was exported",
            columns=["what", "value"],
            rows=_flat(sidecar.parity),
            folded=True,
        )
    )
    licences = [[source, licence] for source, licence in sidecar.inherited_licenses.items()]
    if licences:
        tables.append(Table(caption="Licences that it inherits", columns=["source", "licence"], rows=licences))
    return Section(
        key="contract",
        title="Inputs, outputs and checks",
        intro=f"The graph gives {', '.join(sidecar.output_names)} for {', '.join(sidecar.targets)}. "
        f"{len(sidecar.golden_rows.scores)} golden rows with known scores travel with it and are replayed when it is "
        "registered.",
        tables=tables,
    )


def model_lineage(sidecar: ModelSidecar) -> Section:
    """Data, hashes and the runs that it descends from."""
    data = sidecar.datasets or ([sidecar.dataset] if sidecar.dataset else [])
    return Section(
        key="provenance",
        title="Provenance",
        intro="Everything that this model was made from, back to the fit.",
        tables=[
            Table(
                caption="Data that it was fitted on",
                columns=["dataset", "version", "manifest sha256"],
                rows=[[d.name, d.version or "", d.manifest_sha256 or ""] for d in data],
            ),
            Table(
                caption="Hashes",
                columns=["what", "sha256"],
                rows=[["head ONNX", sidecar.onnx.sha256], ["training config", sidecar.train_config_hash]],
            ),
            *provenance_tables(sidecar.run_provenance),
        ],
        texts=provenance_texts(sidecar.run_provenance),
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Leaves of a JSON object, by dotted name."""
    rows: list[list[str]] = []
    for key, found in value.items():
        name = f"{prefix}{key}"
        if isinstance(found, Mapping):
            rows += _flat(found, f"{name}.")
        elif isinstance(found, list) and len(found) > 12:
            rows.append([name, f"{len(found)} values"])
        else:
            rows.append([name, f"{found:.4g}" if isinstance(found, float) else str(found)])
    return rows
