"""Draws a score curve as SVG text, without any drawing package."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vqa_train.pipelines.score.types import Score, Timeline

_WIDTH, _PLOT = 860, 252
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 72, 56
_LEGEND_ROW = 20
_INK, _MUTED, _GRID, _BAND = "#1b1f24", "#57606a", "#d8dee4", "#f3f6f9"
# Okabe and Ito's colours, told apart by people with any colour vision; lines differ in their dashes too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#000000")
_DASHES = ("", "9 4", "2 4", "12 4 2 4", "5 2", "1 3", "14 6")
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_LEGEND_PX = 7.4


def timeline_svg(score: Score) -> str:
    """The curve of every target over time, the score of the whole video as a thin line, on the scale of the labels.

    Args:
        score: with a timeline.

    Raises:
        ValueError: it has none.
    """
    if score.timeline is None:
        raise ValueError("the score has no timeline")
    plot = _Plot(score, score.timeline)
    title = f"{score.video}: {score.model} {score.version}, second by second"
    heading = f'font-size="16" font-weight="600" fill="{_INK}">{_escape(_short(score.video))}'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {plot.height}" '
        f'width="{_WIDTH}" height="{plot.height}" role="img" aria-labelledby="title desc" '
        f'font-family="{_FONT}" font-size="13">',
        f'<title id="title">{_escape(title)}</title>',
        f'<desc id="desc">{_escape(_in_words(score, score.timeline))}</desc>',
        f'<rect width="{_WIDTH}" height="{plot.height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="28" {heading}</text>',
        f'<text x="{_LEFT}" y="47" fill="{_MUTED}">{_escape(_subtitle(score))}</text>',
        *plot.legend(),
        *plot.axes(),
        *plot.curves(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Sample:
    """Where in the legend a target's line and name are."""

    text: str
    x: float
    row: int


def _samples(score: Score) -> list[_Sample]:
    found, x, row = [], float(_LEFT), 0
    for target, value in score.scores.items():
        text = f"{target} {value:.2f}"
        width = 37 + _LEGEND_PX * len(text)
        if x > _LEFT and x + width > _WIDTH - _RIGHT:
            x, row = float(_LEFT), row + 1
        found.append(_Sample(text, x, row))
        x += width + 24
    return found


class _Plot:
    def __init__(self, score: Score, timeline: Timeline) -> None:
        self._score, self._timeline = score, timeline
        self._samples = _samples(score)
        self._top = _TOP + _LEGEND_ROW * (self._samples[-1].row + 1)
        self._bottom = self._top + _PLOT
        self.height = self._bottom + _BOTTOM
        values = [value for curve in timeline.scores.values() for value in curve] + list(score.scores.values())
        low = min(values + [low for low, _ in score.mos_range.values()])
        high = max(values + [high for _, high in score.mos_range.values()])
        self._ticks = _ticks(low, high, 6)
        step = self._ticks[1] - self._ticks[0]
        self._low = low if low >= self._ticks[0] - 1e-9 else low - 0.04 * (high - low)
        self._high = max(high, self._ticks[-1]) if high - self._ticks[-1] < step else high
        self._seconds = max(timeline.duration_s, 1e-3)

    def _x(self, second: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * second / self._seconds

    def _y(self, value: float) -> float:
        return self._top + _PLOT * (self._high - value) / (self._high - self._low)

    def legend(self) -> list[str]:
        """One sample of each target's line, its name and the score of the whole video."""
        parts = []
        for i, sample in enumerate(self._samples):
            x, y = sample.x, 68 + _LEGEND_ROW * sample.row
            parts.append(f'<line x1="{x:.1f}" y1="{y}" x2="{x + 30:.1f}" y2="{y}" {_stroke(i)} stroke-width="2.5"/>')
            parts.append(f'<text x="{x + 37:.1f}" y="{y + 4.5}" fill="{_INK}">{_escape(sample.text)}</text>')
        return parts

    def axes(self) -> list[str]:
        """The labels' range as a band, gridlines, ticks, and what the axes mean with their units."""
        right, bottom = _WIDTH - _RIGHT, self._bottom
        low, high = min(r[0] for r in self._score.mos_range.values()), max(r[1] for r in self._score.mos_range.values())
        parts = [
            f'<rect x="{_LEFT}" y="{self._y(high):.1f}" width="{right - _LEFT}" '
            f'height="{self._y(low) - self._y(high):.1f}" fill="{_BAND}"/>'
        ]
        for value in self._ticks:
            y = self._y(value)
            parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{_GRID}"/>')
            parts.append(f'<text x="{_LEFT - 9}" y="{y + 4.5:.1f}" text-anchor="end" fill="{_MUTED}">{value:g}</text>')
        for second in _ticks(0, self._seconds, 10):
            x = self._x(second)
            parts.append(f'<line x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}" stroke="{_MUTED}"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle" fill="{_MUTED}">{second:g}</text>')
        middle, centre = (self._top + bottom) / 2, (_LEFT + right) / 2
        parts += [
            f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="{_MUTED}"/>',
            f'<text x="{centre}" y="{self.height - 12}" text-anchor="middle" fill="{_INK}">time (s)</text>',
            f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle" fill="{_INK}">'
            f"{_escape(_axis(self._score))}</text>",
        ]
        return parts

    def curves(self) -> list[str]:
        """A step per second, since a second has one score; thin and straight, the score of the whole video."""
        parts = []
        for i, (target, values) in enumerate(self._timeline.scores.items()):
            y = self._y(self._score.scores[target])
            parts.append(
                f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" {_stroke(i)} '
                'stroke-width="1" stroke-opacity="0.45"/>'
            )
            parts.append(
                f'<path d="{self._steps(values)}" fill="none" {_stroke(i)} stroke-width="2.5" '
                f'stroke-linejoin="round"><title>{_escape(target)}</title></path>'
            )
        return parts

    def _steps(self, values: Sequence[float]) -> str:
        ends = [*self._timeline.times[1:], self._timeline.duration_s]
        points = [f"M{self._x(0):.1f} {self._y(values[0]):.1f}"]
        for value, end in zip(values, ends, strict=True):
            points.append(f"V{self._y(value):.1f}H{self._x(end):.1f}")
        return "".join(points)


def _escape(text: str) -> str:
    """`text` as XML; what no XML may hold, as a file's name might, becomes a question mark."""
    return html.escape("".join(c if c.isprintable() or c == " " else "?" for c in text), quote=False)


def _stroke(i: int) -> str:
    dashes = _DASHES[i % len(_DASHES)]
    return f'stroke="{_COLOURS[i % len(_COLOURS)]}"' + (f' stroke-dasharray="{dashes}"' if dashes else "")


def _ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers from `low` to `high`, at least two."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span))
    steps = [power * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
    for step in steps:
        first = math.ceil(low / step - 1e-9)
        ticks = [round((first + i) * step, 10) for i in range(math.floor(high / step + 1e-9) - first + 1)]
        if 2 <= len(ticks) <= most:
            return ticks
    return [low, high]


def _axis(score: Score) -> str:
    ranges = _ranges(score.mos_range)
    best = "higher" if score.direction == "higher_is_better" else "lower"
    return f"score ({ranges}, {best} is better)" if len(ranges) < 24 else f"score ({best} is better)"


def _ranges(mos_range: Mapping[str, tuple[float, float]]) -> str:
    texts = list(dict.fromkeys("{:g} to {:g}".format(*bounds) for bounds in mos_range.values()))
    return ", ".join(texts)


def _subtitle(score: Score) -> str:
    timeline = score.timeline
    steps = 0 if timeline is None else timeline.steps
    return f"{score.model} {score.version} · {steps} steps · thin lines: the whole video · band: range of the labels"


def _short(text: str, most: int = 72) -> str:
    return text if len(text) <= most else f"… {text[-most:]}"


def _in_words(score: Score, timeline: Timeline) -> str:
    parts = [f"{timeline.duration_s:.1f} seconds."]
    for target, value in score.scores.items():
        at, worst = timeline.worst(target, score.direction)
        curve = timeline.scores[target]
        parts.append(
            f"{target}: {value:.2f} for the whole video, {min(curve):.2f} to {max(curve):.2f} over time, "
            f"worst {worst:.2f} at {at:g} s."
        )
    return " ".join(parts)
