"""The page: its parts as plain values, and the template that makes one self-contained HTML file of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from vqa_train import __version__
from vqa_train.core.errors import DependencyError
from vqa_train.pipelines.report.clips import Clip
from vqa_train.pipelines.report.figure import Picture

_HASH = re.compile(r"[0-9a-f]{32,}")


@dataclass(frozen=True, kw_only=True)
class Card:
    """A headline number: its name, the value, what it is of, and what the name means."""

    name: str
    value: str
    detail: str
    meaning: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; columns of `numeric` are set to the right. `caption` says what it is and what it rests on."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Text:
    """Preformatted text behind a heading that opens it (the recipe, the command); `wrap` breaks long lines."""

    heading: str
    text: str
    wrap: bool = False


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """The worst videos of one target."""

    heading: str
    clips: Sequence[Clip]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page.

    Attributes:
        key: its anchor.
        title: heading.
        intro: one or two sentences on what the part answers.
        notes: what is missing here and why.
    """

    key: str
    title: str
    intro: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    clips: Sequence[ClipRow] = ()
    texts: Sequence[Text] = ()
    notes: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        """Nothing to show, not even a note."""
        return not (self.tables or self.pictures or self.clips or self.texts or self.notes)


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole report.

    Attributes:
        title: name of the run or model.
        kind: "Run" or "Model".
        subtitle: what it is, in a sentence.
        facts: name -> value, short, under the title.
        cards: headline numbers, with `cards_note` on what they rest on.
        warnings: what a reader must know before believing a number.
        sections: those that are empty are left out.
    """

    title: str
    kind: str
    subtitle: str
    facts: dict[str, str]
    cards: Sequence[Card]
    cards_note: str
    warnings: Sequence[str]
    sections: Sequence[Section] = field(default_factory=tuple)


def render(page: Page) -> str:
    """One HTML document without any reference to another file.

    Raises:
        DependencyError: Jinja2 is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"the report needs the package {error.name!r}, which is not installed",
            hint="pip install 'vqa-train[report]'",
        ) from error
    folder = resources.files("vqa_train.pipelines.report") / "templates"
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
    )
    # Pictures are made by this package, with every name in them escaped (figure.to_svg); all else is escaped here.
    environment.filters["drawn"] = lambda picture: Markup(picture.svg)  # noqa: S704
    environment.tests["hash"] = lambda cell: _HASH.fullmatch(cell) is not None
    style = Markup((folder / "page.css").read_text(encoding="utf-8"))  # noqa: S704
    shown = [section for section in page.sections if not section.empty]
    return environment.get_template("page.html").render(page=page, sections=shown, style=style, version=__version__)
