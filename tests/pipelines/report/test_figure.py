"""Pictures: text stays text, names cannot break out, colours follow the page, legends fit, nothing stays behind."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from vqa_train.pipelines.report import figure as draw

SVG = "{http://www.w3.org/2000/svg}"


def drawn(title: str = "t", name: str = "a point", key: str = "k") -> str:
    with draw.drawing() as (figure, axes):
        axes.plot([0, 1], [0, 1], color=draw.POINT, label=name)
        axes.set_xlabel(name)
        draw.legend_below(figure, axes, 2)
        return draw.to_svg(figure, key=key, title=title, describe="d")


def test_names_are_text_and_cannot_break_out() -> None:
    hostile = '</svg><script>x</script> & "quoted" <b> $x_1$'
    root = ET.fromstring(drawn(title=hostile, name=hostile))
    assert root.find(f"{SVG}title").text == hostile  # type: ignore[union-attr]
    assert [e.text for e in root.iter(f"{SVG}text")].count(hostile) == 2
    assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_ids_and_references_begin_with_the_key_so_that_pictures_do_not_share_them() -> None:
    root = ET.fromstring(drawn(key="mine"))
    ids = [value for e in root.iter() for name, value in e.attrib.items() if name == "id"]
    assert ids
    assert all(value.startswith("mine-") for value in ids)
    references = [v for e in root.iter() for n, v in e.attrib.items() if n.endswith("href")]
    assert references
    assert {value[1:] for value in references} <= set(ids)


def test_colours_are_the_pages_variables() -> None:
    svg = drawn()
    assert "var(--point)" in svg
    assert "var(--ink)" in svg
    assert not [colour for colour in draw._THEME if colour in svg]


def test_the_same_picture_is_the_same_bytes() -> None:
    assert drawn() == drawn()


def test_settings_of_matplotlib_are_left_as_they_were() -> None:
    before = dict(mpl.rcParams)
    drawn()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("columns", [1, 2, 6])
def test_a_legend_never_is_wider_than_its_picture(columns: int) -> None:
    with draw.drawing() as (figure, axes):
        for i in range(6):
            axes.plot([0, 1], [0, i], label=f"a rather long name {i}")
        draw.legend_below(figure, axes, columns)
        figure.draw_without_rendering()
        [legend] = figure.legends
        assert legend.get_window_extent().width <= figure.bbox.width


def test_short_keeps_both_ends_and_no_control_characters() -> None:
    assert draw.short("a" * 20 + "b" * 20, 11) == "aaaaa…bbbbb"
    assert draw.short("tab\there") == "tab here"
    assert draw.short("fits") == "fits"


def test_keys_of_other_names_differ_even_where_only_odd_letters_do() -> None:
    assert draw.key_of("a", 1) == "a-1"
    assert draw.key_of("a b") != draw.key_of("a/b")
    assert draw.key_of("é") != draw.key_of("è")
