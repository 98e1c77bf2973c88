"""What every picture of a report shares: colours that follow the page's theme, sizes, and figure -> inline SVG."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN, HEIGHT_IN = 4.5, 3.6
"""Of a picture, in inches of 72 units: as wide as a phone, so that its letters stay legible there."""

INK, MUTED, GRID = "#010101", "#020202", "#030303"
POINT, CURVE, BAND, GOOD = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
_THEME = {INK: "ink", MUTED: "muted", GRID: "grid", POINT: "point", CURVE: "curve", BAND: "band", GOOD: "good"}
SERIES = ("#0a0c01", "#0a0c02", "#0a0c03", "#0a0c04", "#0a0c05", "#0a0c06")
"""Colours for up to six named things; the page's style sheet has the colours themselves, from Okabe and Ito's set."""
_THEME |= {colour: f"series-{number}" for number, colour in enumerate(SERIES, 1)}

_NAME_LENGTH = 28
_LEGEND_SHARE = 0.92
_IDS = re.compile(r'(\bid="|url\(#|xlink:href="#)([^")]+)')
_FONT = re.compile(r"font: (?:[a-z]+ )*([\d.]+)px [^;\"]+")
_FAMILY = re.compile(r"font-family: [^;\"]+")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a page.

    Attributes:
        svg: inline SVG element.
        title: heading over it.
        caption: what it shows and what to look for.
        rests_on: which rows or values it is drawn from.
    """

    svg: str
    title: str
    caption: str
    rests_on: str


@contextmanager
def drawing(height: float = HEIGHT_IN) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one plot, in the page's manner; no pyplot, no state that stays behind.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(True)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        yield figure, axes


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings for the time of one figure.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        from vqa_train.core.errors import DependencyError

        raise DependencyError(
            f"the report needs the package {error.name!r}, which is not installed",
            hint="pip install 'vqa-train[report]'",
        ) from error
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "vqa-train",
        "text.parse_math": False,
        "axes.formatter.use_mathtext": False,
        "axes.unicode_minus": False,
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "axes.linewidth": 0.8,
        "lines.linewidth": 1.8,
        "path.simplify": True,
    }
    with mpl.rc_context(settings):
        yield


def picture(figure: Figure, *, key: str, title: str, describe: str, caption: str, rests_on: str) -> Picture:
    """The figure as a picture of the page.

    Args:
        figure: drawn inside `drawing`.
        key: letters, digits and hyphens; unique on the page.
        title: heading, and the picture's name for who cannot see it.
        describe: what the picture shows, in words, for who cannot see it.
        caption: what to look for.
        rests_on: rows and values behind it.
    """
    return Picture(
        svg=to_svg(figure, key=key, title=title, describe=describe), title=title, caption=caption, rests_on=rests_on
    )


def to_svg(figure: Figure, *, key: str, title: str, describe: str) -> str:
    """An `<svg role="img">` element: text as text, colours as CSS variables, ids that begin with `key`."""
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The letters are drawn by the reader's browser, not from matplotlib's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    head_end = text.index(">") + 1
    box = re.search(r'viewBox="([^"]+)"', text[:head_end])
    body = re.sub(r"<metadata>.*?</metadata>", "", text[head_end:], flags=re.DOTALL)
    body = _IDS.sub(lambda m: f"{m.group(1)}{key}-{m.group(2)}", body)
    body = _FONT.sub(lambda m: f"font-size: {m.group(1)}px", body)
    body = _FAMILY.sub("font-family: inherit", body)
    body = re.sub(r"\n\s*", "\n", body)
    for colour, name in _THEME.items():
        body = body.replace(colour, f"var(--{name})")
    label = f'<title id="{key}-title">{html.escape(title)}</title><desc id="{key}-desc">{html.escape(describe)}</desc>'
    return (
        f'<svg role="img" aria-labelledby="{key}-title {key}-desc" viewBox="{box.group(1) if box else ""}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{label}{body.strip()}'
    )


def short(name: str, length: int = _NAME_LENGTH) -> str:
    """A name that fits beside a plot; the middle of a long one is left out. Control characters become spaces."""
    clean = printable(name)
    if len(clean) <= length:
        return clean
    keep = (length - 1) // 2
    return f"{clean[:keep]}…{clean[-keep:]}"


def printable(text: str) -> str:
    """`text` without control characters, surrogates and other things that XML cannot hold."""
    return "".join(c if c.isprintable() else " " for c in text)


def key_of(*parts: str | int) -> str:
    """A key for `picture` from any names."""
    from vqa_train.core.hashing import sha256_bytes

    text = "-".join(str(part) for part in parts)
    clean = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
    return clean if clean == text else f"{clean}-{sha256_bytes(text.encode('utf-8', 'replace'))[:6]}"


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """A legend under the plot, where it hides no point, in so many columns or as many as there is room for."""
    handles, labels = axes.get_legend_handles_labels()
    for count in range(min(columns, len(handles)), 0, -1):
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=count)
        if count == 1 or legend.get_window_extent().width < _LEGEND_SHARE * figure.bbox.width:
            return
        legend.remove()


def label_below(figure: Figure, text: str) -> None:
    """The label of the x axis, in the middle of the picture: beside long names the plot itself is too narrow for it."""
    figure.supxlabel(text, fontsize=11)
