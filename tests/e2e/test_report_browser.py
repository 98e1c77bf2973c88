"""Reports in a real browser, at the width of a desktop and of a phone: quiet, alone, and nothing cut off."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location("chromium", Path(__file__).with_name("chromium.py"))
assert _spec is not None and _spec.loader is not None
browser_module = importlib.util.module_from_spec(_spec)
sys.modules["chromium"] = browser_module
_spec.loader.exec_module(browser_module)

DESKTOP, PHONE, SMALL_PHONE = 1280, 390, 320
HOSTILE = (
    "</title><script>throw new Error('ran')</script>",
    "a_name_that_has_no_place_to_break_it_in_two_" * 4,
    '"><img src=https://example.com/x.png>',
    "雨の中の狐 🦊 & <b>bold</b>",
)
RECIPE = """\
schema: vqa-train/fit/1
features:
  video: {set: fake}
  a_second_feature_set_with_a_long_name: {set: other}
seeds: 2
train:
  epochs: 30
  patience: 30
  validation: {fraction: 0.2, by: group}
  head: {hidden: [8], dropout: 0.2}
protocol: {kind: kfold, k: 3, repeats: 3}
calibration: {method: cross}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = browser_module.find_chromium()
    if executable is None:
        pytest.skip("no browser: none of chromium, google-chrome is on the PATH")
    with browser_module.chromium(executable) as found:
        yield found


@pytest.fixture
def pages(tmp_path: Path, write_video: Callable[..., Path]) -> dict[str, Path]:
    """Reports of a run and of its model: 60 records with names that break pages, six of them real videos."""
    from vqa_train.pipelines.export.run import export_run
    from vqa_train.pipelines.fit.run import fit, load_fit_config
    from vqa_train.pipelines.report.build import write_report
    from vqa_train.pipelines.report.config import ReportConfig

    manifest = _dataset(tmp_path / "set", write_video)
    store = _features(manifest, tmp_path / "store")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    fit(load_fit_config(recipe), features=store, output=tmp_path / "run", dataset=str(manifest))
    model = export_run(tmp_path / "run", tmp_path / "model.onnx").path
    found = {}
    for name, source in (("run", tmp_path / "run"), ("model", model)):
        found[name] = tmp_path / f"{name}.html"
        write_report(
            ReportConfig(
                source=str(source), output=found[name], features=store, datasets=(str(manifest),), worst=12,
                rows="all" if name == "model" else None,
            )
        )  # fmt: skip
    found["bare"] = tmp_path / "bare.html"
    write_report(ReportConfig(source=str(model), output=found["bare"]))
    return found


def _dataset(root: Path, write_video: Callable[..., Path]) -> Path:
    from vqa_train.datasets.draft import ScanConfig
    from vqa_train.datasets.scan import scan

    root.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        name = f"v{i:02d}.mp4"
        if i % 10 == 0:
            write_video(root / name, frames=4, size=(96, 170) if i % 20 else (170, 96), seed=i)
        else:
            (root / name).write_bytes(b"no video %d" % i)
        rows.append(
            {
                "file": name,
                "id": f"{i} {HOSTILE[i % 4]}",
                "scene": f"{i // 4} {HOSTILE[i // 4 % 4]}",
                "prompt": HOSTILE[(i + 1) % 4],
                # The real videos have the most surprising opinions, so that they are among the worst.
                "overall": 95.0 if i % 10 == 0 else round(float(rng.uniform(20, 80)), 2),
                "a_target_with_a_rather_long_name": round(float(rng.uniform(0, 100)), 2),
            }
        )
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    output = root.with_suffix(".yaml")
    targets = {name: name for name in ("overall", "a_target_with_a_rather_long_name")}
    columns = {"id": "id", "path": "file", "group": "scene", "prompt": "prompt"}
    scan(
        ScanConfig(
            root=root, output=output, name="set", license="CC0-1.0", labels=(("labels.csv", None),), columns=columns,
            targets=targets, mos_min=0, mos_max=100,
        )
    )  # fmt: skip
    return output


def _features(manifest: Path, folder: Path) -> Path:
    from vqa_train.core.types import FeatureSpec, OutputSpec
    from vqa_train.datasets.load import load_dataset
    from vqa_train.store.store import FeatureRow, FeatureStore

    store = FeatureStore(folder)
    rng = np.random.default_rng(1)
    videos = load_dataset(str(manifest)).videos
    for backbone, width in (("fake", 12), ("other", 30)):
        outputs = (OutputSpec(name="pooled", shape=(width,)),)
        spec = FeatureSpec(
            backbone=backbone, definition=1, modality="video", outputs=outputs, preprocessing={"imported": {}}
        )
        rows = []
        for video in videos:
            values = rng.normal(size=width).astype(np.float32)
            values[0] += video.labels["overall"] / 20 if video.labels["overall"] < 90 else 0
            rows.append(FeatureRow(key=video.sha256, outputs={"pooled": values}, facts={}))
        store.create_set(spec, license="MIT").append(rows, profile={"device": "cpu"}, run_id="made-by-test")
    return folder


def test_pages_are_quiet_alone_and_fit_every_width(browser: Any, pages: dict[str, Path]) -> None:
    for name, page in pages.items():
        for width in (DESKTOP, PHONE, SMALL_PHONE):
            for opened in (False, True):
                visit = browser.visit(page, width, dark=opened, open_details=opened)
                where = f"{name} at {width} px, details {'open' if opened else 'closed'}"
                assert visit.messages == [], where
                assert visit.requests == [], where
                assert visit.client_width == visit.scroll_width == width, where
                assert visit.overflowing == [], where
                assert visit.cut == [], where
                assert visit.overlapping == [], where


def test_a_reader_finds_every_part_on_the_page(browser: Any, pages: dict[str, Path]) -> None:
    browser.visit(pages["run"], DESKTOP)
    sections = browser.evaluate(
        "[...document.querySelectorAll('main section:not(.warnings) h2')].map(e => e.textContent)"
    )
    assert sections == [
        "Predicted against MOS", "Results", "Residuals", "Calibration", "Learning curves", "Worst clips",
        "Feature importance", "What came in", "Provenance",
    ]  # fmt: skip
    links = browser.evaluate(
        "[...document.querySelectorAll('nav a')].map(e => document.querySelector(e.hash) !== null)"
    )
    assert links == [True] * len(sections)
    assert browser.evaluate("document.documentElement.lang") == "en"
    # Every picture has a heading, words for who cannot see it, and says what it rests on.
    pictures = browser.evaluate(
        "[...document.querySelectorAll('.pictures figure')].map(f => [f.querySelector('h3').textContent,"
        " f.querySelector('svg desc').textContent, f.querySelector('.rests').textContent].every(t => t.length > 9))"
    )
    assert pictures == [True] * len(pictures)
    assert len(pictures) > 12
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    # Names are text and nothing else; the pictures of real videos are there and decode.
    assert browser.evaluate("document.querySelectorAll('script, b > b, main img:not(.clip img)').length") == 0
    assert browser.evaluate("document.body.textContent.includes(\"</title><script>throw new Error('ran')\")")
    frames = browser.evaluate("[...document.querySelectorAll('.clip img')].map(e => [e.naturalWidth, e.naturalHeight])")
    assert len(frames) >= 6
    assert {tuple(size) for size in frames} == {(170, 96), (96, 170)}


def test_text_can_be_read_in_light_and_dark(browser: Any, pages: dict[str, Path]) -> None:
    for dark in (False, True):
        browser.visit(pages["run"], PHONE, dark=dark)
        colours = browser.evaluate(_COLOURS)
        assert len(colours) > 10
        for what, text, under in colours:
            assert contrast(text, under) >= 4.5, (what, dark, text, under)


_COLOURS = """
['.lead', '.card .value', '.card .meaning', '.intro', 'figcaption', '.rests', '.caption', 'td', 'summary', 'nav a',
 '.note', '.over', '.under', '.clip b', '.clip q', '.noimage', 'footer', 'svg text'].flatMap(name => {
  const e = document.querySelector(name);
  if (!e) return [];
  let under = e;
  while (getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
  const style = getComputedStyle(e), rgb = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
  return [[name, rgb(e.matches('svg text') ? style.fill : style.color), rgb(getComputedStyle(under).backgroundColor)]];
})
"""


def contrast(one: list[float], other: list[float]) -> float:
    """Contrast ratio of two sRGB colours, 1 to 21 (WCAG 2.2)."""

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_checks_see_what_they_look_for(browser: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><link rel=icon href='data:,'>"
        "<p style='width: 500px'>wide</p><img src='https://example.invalid/x.png' width=10 height=10>"
        "<svg viewBox='0 0 20 20' width=20><title>picture</title><text x=10 y=10>cut off</text>"
        "<text x=9 y=10>too near</text></svg>"
        "<script>console.error('said'); throw new Error('thrown')</script>",
        encoding="utf-8",
    )
    visit = browser.visit(bad, PHONE)
    assert any("said" in message for message in visit.messages)
    assert len(visit.messages) >= 2
    assert visit.requests == ["https://example.invalid/x.png"]
    assert visit.scroll_width > PHONE
    assert any("wide" in element for element in visit.overflowing)
    assert visit.cut == ["picture: cut off", "picture: too near"]
    assert visit.overlapping == ["picture: cut off | too near"]
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([119, 119, 119], [255, 255, 255]) == pytest.approx(4.48, abs=0.01)
