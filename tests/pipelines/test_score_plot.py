"""The drawing of a curve: well-formed, in words for those who cannot see it, and in the right places."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from vqa_train.pipelines.score.plot import timeline_svg
from vqa_train.scoring import Score, Timeline

SVG = "{http://www.w3.org/2000/svg}"


def made(video: str = "a.mp4", **curves: tuple[float, ...]) -> Score:
    curves = curves or {"overall": (1.0, 5.0, 3.0)}
    span = dict.fromkeys(curves, (1.0, 5.0))
    return Score(
        video=video, prompt=None, scores={t: sum(c) / len(c) for t, c in curves.items()},
        spread=dict.fromkeys(curves), interval=dict.fromkeys(curves), level=None, missing=(),
        timeline=Timeline(times=(0.0, 1.0, 2.0), duration_s=2.5, steps=8, scores=curves), mos_range=span,
        expected_range=span, direction="higher_is_better", model="m", version="2", model_sha256="0" * 64,
        provider="cpu",
    )  # fmt: skip


def test_a_step_per_second_on_the_scale_of_the_labels() -> None:
    svg = ElementTree.fromstring(timeline_svg(made()))
    (path,) = svg.iter(f"{SVG}path")
    numbers = [float(number) for number in re.findall(r"[\d.]+", path.get("d", ""))]
    x0, y0, *rest = numbers
    heights, ends = rest[0::2], rest[1::2]
    ticks = {text.text: float(text.get("y", "0")) - 4.5 for text in svg.iter(f"{SVG}text") if text.get("x") == "55"}
    assert heights == pytest.approx([ticks["1"], ticks["5"], ticks["3"]], abs=0.11)
    assert y0 == heights[0]
    assert [(end - x0) / (ends[-1] - x0) for end in ends] == pytest.approx([1 / 2.5, 2 / 2.5, 1], abs=1e-3)


def test_it_says_in_words_what_it_shows() -> None:
    svg = ElementTree.fromstring(timeline_svg(made("x/<b & c>\x07.mp4")))
    assert svg.get("role") == "img"
    assert svg.findtext(f"{SVG}title") == "x/<b & c>?.mp4: m 2, second by second"
    words = svg.findtext(f"{SVG}desc") or ""
    assert "overall: 3.00 for the whole video, 1.00 to 5.00 over time, worst 1.00 at 0 s." in words
    texts = {text.text for text in svg.iter(f"{SVG}text")}
    assert {"time (s)", "score (1 to 5, higher is better)", "overall 3.00"} <= texts


def test_a_long_legend_goes_on_below() -> None:
    few = ElementTree.fromstring(timeline_svg(made()))
    many = ElementTree.fromstring(timeline_svg(made(**{f"quality of kind {i}": (1.0, 2.0, 3.0) for i in range(6)})))
    assert len(list(many.iter(f"{SVG}path"))) == 6
    assert int(many.get("height", "0")) > int(few.get("height", "0"))
    width = float(many.get("width", "0"))
    assert all(
        float(text.get("x", "0")) < width - 100 for text in many.iter(f"{SVG}text") if "kind" in (text.text or "")
    )


def test_scores_outside_the_labels_range_stay_inside_the_drawing() -> None:
    svg = ElementTree.fromstring(timeline_svg(made(overall=(0.2, 5.7, 3.0))))
    (path,) = svg.iter(f"{SVG}path")
    heights = [float(number) for number in re.findall(r"V([\d.]+)", path.get("d", ""))]
    (band,) = [rect for rect in svg.iter(f"{SVG}rect") if rect.get("x")]
    top = float(band.get("y", "0"))
    assert min(heights) < top < top + float(band.get("height", "0")) < max(heights)
    assert all(80 < height < float(svg.get("height", "0")) - 50 for height in heights)


def test_a_score_without_a_timeline_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="no timeline"):
        timeline_svg(replace(made(), timeline=None))
