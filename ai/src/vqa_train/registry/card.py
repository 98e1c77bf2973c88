"""The model card (README.md) of a registered model, rendered from its sidecar alone."""

from __future__ import annotations

from typing import Any

from vqa_train.registry.facts import MetricSummary
from vqa_train.registry.sidecar import SPREAD, ModelSidecar

_KINDS = {"nr": "no-reference (the video alone is looked at)", "fr": "full-reference (a pristine video is needed)"}


def render_card(sidecar: ModelSidecar) -> str:
    """Markdown: intended use, inputs, data, licences, metrics, limits, how to score."""
    sections = (
        _head(sidecar),
        _use(sidecar),
        _inputs(sidecar),
        _members(sidecar),
        _data(sidecar),
        _licenses(sidecar),
        _metrics(sidecar),
        _protocol(sidecar),
        _intervals(sidecar),
        _precision(sidecar),
        _limits(sidecar),
        _identity(sidecar),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(sidecar: ModelSidecar) -> str:
    targets = ", ".join(f"`{target}`" for target in sidecar.targets)
    kind = _KINDS[sidecar.kind] if sidecar.kind else "unregistered"
    title = f"# {sidecar.name}, version {sidecar.version}"
    return f"{title}\n\nA {kind} video-quality model. It predicts {targets}, {_words(sidecar.direction)}."


def _use(sidecar: ModelSidecar) -> str:
    prompt = ""
    if sidecar.takes_prompt:
        prompt = ' --prompt "TEXT"' if sidecar.needs_prompt else ' [--prompt "TEXT"]'
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
        [
            f"`{i.name}`",
            f"{i.backbone} / {i.output}{' of the reference' if i.of == 'reference' else ''}",
            "x".join(map(str, i.dims)),
            i.fingerprint[:12],
            _where(i.backbone_onnx),
        ]
        for i in sidecar.inputs
    ]
    table = _table(["input", "feature", "dim", "fingerprint", "backbone ONNX"], rows)
    optional = ", ".join(f"`{name}`" for name in sidecar.optional_inputs or ())
    absent = f" It was trained to do without any one of {optional}." if optional else ""
    return f"## Inputs\n\n{table}\n\nInput normalisation: {sidecar.input_normalization}.{absent}"


def _members(sidecar: ModelSidecar) -> str:
    if not sidecar.members:
        return ""
    rows = [[f"`{m.name}`", m.kind, m.output, str(m.models), f"{m.weight:.3g}"] for m in sidecar.members]
    models = sum(m.models for m in sidecar.members)
    spread = SPREAD in sidecar.output_names
    if models == 1:
        words = "One head, whose output states its own standard deviation, the spread." if spread else "One head."
    else:
        words = f"The score is the weighted mean of {models} heads."
        words += " Beside it stands their spread, the standard deviation of what they say." if spread else ""
    return f"## Members\n\n{words}\n\n" + _table(["member", "head", "output", "heads", "weight"], rows)


def _data(sidecar: ModelSidecar) -> str:
    if sidecar.dataset is None:
        return "## Data\n\nNot recorded."
    version = f", version {sidecar.dataset.version}" if sidecar.dataset.version else ""
    manifest = sidecar.dataset.manifest_sha256
    manifest_line = f" Manifest sha256 `{manifest}`." if manifest else ""
    text = f"## Data\n\nFitted on `{sidecar.dataset.name}`{version}.{manifest_line}"
    if not sidecar.datasets:
        return text
    others = ", ".join(f"`{found.name}`" for found in sidecar.datasets if found.name != sidecar.dataset.name)
    text += f" Fitted beside it on {others}; scores are on the scale of `{sidecar.dataset.name}`."
    rows = [
        [f"`{dataset}`", f"`{target}`", str(entry.get("kind", "")), _entry(entry, "slope"), _entry(entry, "offset")]
        for dataset, targets in (sidecar.scales or {}).items()
        for target, entry in targets.items()
    ]
    if not rows:
        return text
    table = _table(["dataset", "target", "map", "slope", "offset"], rows)
    return f"{text}\n\nHow each dataset's labels follow from the shared scale, in standard deviations:\n\n{table}"


def _licenses(sidecar: ModelSidecar) -> str:
    rows = [["this model", sidecar.license or "not stated"], *map(list, sorted(sidecar.inherited_licenses.items()))]
    return "## Licences\n\nThe model inherits the terms of what it descends from.\n\n" + _table(
        ["source", "licence"], rows
    )


def _metrics(sidecar: ModelSidecar) -> str:
    metrics = sidecar.metrics
    if not metrics:
        claim = (
            "what is known is how its recipe did, below"
            if sidecar.protocol
            else "nothing is claimed about its accuracy"
        )
        return f"## Metrics\n\nNone were given at registration: {claim}."
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


def _protocol(sidecar: ModelSidecar) -> str:
    found = sidecar.protocol
    if found is None:
        return ""
    names = list(dict.fromkeys(name for metrics in found.metrics.values() for name in metrics))
    rows = [[name, *(_summary(metrics.get(name)) for metrics in found.metrics.values())] for name in names]
    kind = found.protocol.get("kind", "its protocol")
    text = (
        f"## Results on held-out rows\n\nOf the recipe, by `{kind}`: median ± standard deviation over "
        f"{found.folds} folds. Each fold's heads never saw its test rows; this model was then fitted on all rows. "
        f"Splits sha256 `{found.splits_sha256}`.\n\n"
        + _table(["metric", *(f"`{target}`" for target in found.metrics)], rows)
    )
    return "\n\n".join([text, *(f"- {warning}" for warning in found.warnings)])


def _intervals(sidecar: ModelSidecar) -> str:
    found = sidecar.calibration
    if found is None:
        return ""
    rows = [
        [
            f"`{target}`",
            "none" if one.half_width is None else f"{one.half_width:.4g}{' x spread' if found.normalised else ''}",
            str(one.n),
            f"{one.coverage:.3f} of {one.coverage_n}"
            if one.half_width is not None and one.coverage is not None
            else "",
            one.note or "",
        ]
        for target, one in found.targets.items()
    ]
    method = {
        "split": "rows that were kept out of the model",
        "cross": "models that were fitted without each row",
    }[found.method]
    return (
        f"## Intervals\n\nAn interval is the score plus and minus its half width, and is to hold "
        f"{100 * found.level:g}% of new labels of videos like those it was fitted on (split-conformal, residuals of "
        f"{method}).\n\n" + _table(["target", "half width", "residuals", "held-out labels inside", "note"], rows)
    )


def _precision(sidecar: ModelSidecar) -> str:
    found = sidecar.quantization
    if found is None:
        return ""
    cost = [
        f"- `{target}`: SROCC {_number(one['srocc'][0])} to {_number(one['srocc'][1])}, RMSE "
        f"{_number(one['rmse'][0])} to {_number(one['rmse'][1])}, on {one['rows']} held-out rows"
        for target, one in (found.get("targets") or {}).items()
    ]
    text = (
        f"## Precision\n\nIts weights are int8 ({found.get('method')} quantisation of the graph with sha256 "
        f"`{str(found.get('of'))[:12]}`)."
    )
    return "\n\n".join([f"{text} What that changed, from floating point:", "\n".join(cost)]) if cost else text


def _limits(sidecar: ModelSidecar) -> str:
    lines = [
        "Scores of content or distortions unlike the data above are extrapolation.",
        "A score outside the range to expect is a sign of that.",
        "It predicts the labels of that dataset, whatever they mean there, not what any one viewer thinks.",
    ]
    if sidecar.optional_inputs:
        lines.append("Without one of its inputs a score is less sure, and it has no interval.")
    if not sidecar.metrics and sidecar.protocol is None:
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


def _summary(metric: MetricSummary | None) -> str:
    if metric is None:
        return ""
    return _number(metric.median) + ("" if metric.std is None else f" ± {metric.std:.3f}")


def _entry(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    return f"{value:.3f}" if isinstance(value, int | float) else ""


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
