"""The model card (README.md) of a registered model, rendered from its sidecar alone."""

from __future__ import annotations

from typing import Any

from vqa_train.registry.sidecar import ModelSidecar

_KINDS = {"nr": "no-reference (the video alone is looked at)", "fr": "full-reference (a pristine video is needed)"}


def render_card(sidecar: ModelSidecar) -> str:
    """Markdown: intended use, inputs, data, licences, metrics, limits, how to score."""
    sections = (
        _head(sidecar),
        _use(sidecar),
        _inputs(sidecar),
        _data(sidecar),
        _licenses(sidecar),
        _metrics(sidecar.metrics),
        _limits(sidecar),
        _identity(sidecar),
    )
    return "\n\n".join(sections) + "\n"


def _head(sidecar: ModelSidecar) -> str:
    targets = ", ".join(f"`{target}`" for target in sidecar.targets)
    kind = _KINDS[sidecar.kind] if sidecar.kind else "unregistered"
    return f"# {sidecar.name}\n\nA {kind} video-quality model. It predicts {targets}, {_words(sidecar.direction)}."


def _use(sidecar: ModelSidecar) -> str:
    prompt = ' --prompt "TEXT"' if sidecar.takes_prompt else ""
    rows = [
        [f"`{target}`", _span(sidecar.mos_range[target]), _span(sidecar.expected_output_range[target])]
        for target in sidecar.targets
    ]
    return (
        "## Intended use\n\nScoring videos like those it was fitted on: to rank them or to watch a pipeline.\n\n"
        f"    vqa-score VIDEO --model {sidecar.name}{prompt}\n\n"
        + _table(["target", "scale of the labels", "scores to expect"], rows)
    )


def _inputs(sidecar: ModelSidecar) -> str:
    rows = [
        [f"`{i.name}`", f"{i.backbone} / {i.output}", str(i.dim), i.fingerprint[:12], _where(i.backbone_onnx)]
        for i in sidecar.inputs
    ]
    table = _table(["input", "feature", "dim", "fingerprint", "backbone ONNX"], rows)
    return f"## Inputs\n\n{table}\n\nInput normalisation: {sidecar.input_normalization}."


def _data(sidecar: ModelSidecar) -> str:
    if sidecar.dataset is None:
        return "## Data\n\nNot recorded."
    version = f", version {sidecar.dataset.version}" if sidecar.dataset.version else ""
    manifest = sidecar.dataset.manifest_sha256
    manifest_line = f" Manifest sha256 `{manifest}`." if manifest else ""
    return f"## Data\n\nFitted on `{sidecar.dataset.name}`{version}.{manifest_line}"


def _licenses(sidecar: ModelSidecar) -> str:
    rows = [["this model", sidecar.license or "not stated"], *map(list, sorted(sidecar.inherited_licenses.items()))]
    return "## Licences\n\nThe model inherits the terms of what it descends from.\n\n" + _table(
        ["source", "licence"], rows
    )


def _metrics(metrics: dict[str, Any] | None) -> str:
    if not metrics:
        return "## Metrics\n\nNone were given at registration: nothing is claimed about its accuracy."
    results = metrics.get("results", [])
    names = list(dict.fromkeys(name for result in results for name in result["metrics"]))
    rows = [
        [f"`{r['target']}`", r["dataset"], str(r["n"]), _number(r["coverage"])]
        + [_estimate(r["metrics"].get(name)) for name in names]
        for r in results
    ]
    notes = [f"- `{r['target']}` on {r['dataset']}: {note}" for r in results for note in r["notes"]]
    table = _table(["target", "dataset", "n", "coverage", *names], rows)
    split = f" on split `{metrics['split']}`" if "split" in metrics else ""
    text = f"## Metrics\n\nAs `vqa-train eval` reported them{split}, with 95% intervals where it gave any.\n\n{table}"
    return "\n\n".join([text, "\n".join(notes)]) if notes else text


def _limits(sidecar: ModelSidecar) -> str:
    lines = [
        "Scores of content or distortions unlike the data above are extrapolation.",
        "A score outside the range to expect is a sign of that.",
        "It predicts the labels of that dataset, whatever they mean there, not what any one viewer thinks.",
    ]
    if not sidecar.metrics:
        lines.append("It has not been evaluated.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _identity(sidecar: ModelSidecar) -> str:
    rows = [
        ["head ONNX sha256", f"`{sidecar.onnx.sha256}`"],
        ["opset", str(sidecar.onnx.opset)],
        ["training commit", f"`{sidecar.train_commit}`"],
        ["training config sha256", f"`{sidecar.train_config_hash}`"],
    ]
    return "## Identity\n\n" + _table(["what", "value"], rows)


def _estimate(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return ""
    low, high = estimate.get("low"), estimate.get("high")
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return _number(estimate["value"]) + interval


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _words(direction: str) -> str:
    return direction.replace("_", " ")


def _span(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g} to {bounds[1]:g}"


def _where(backbone: Any) -> str:
    if backbone is None:
        return "not exported"
    size = f"{backbone.bytes / 1e6:.1f} MB"
    return f"cache, sha256 `{backbone.sha256[:12]}`, {size}" if backbone.cached else f"`{backbone.file}`, {size}"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)])
