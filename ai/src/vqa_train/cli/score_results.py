"""The results of vqa-score as they come: what is printed, written and drawn, and the exit code in the end."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vqa_train.cli import common
from vqa_train.core.errors import ExitCode
from vqa_train.core.files import atomic_write_bytes
from vqa_train.pipelines.score.report import Judged, Result, csv_rows, judge, line, report
from vqa_train.pipelines.score.threshold import Threshold
from vqa_train.pipelines.score.types import Score
from vqa_train.registry.sidecar import SPREAD, ModelSidecar


@dataclass(frozen=True)
class Form:
    """How results are wanted.

    Attributes:
        name: table, json, jsonl or csv.
        output: file for the result; None for stdout.
        plot: file or folder for drawings of timelines; None for none.
        timeline: whether scores have timelines.
    """

    name: str
    output: Path | None = None
    plot: Path | None = None
    timeline: bool = False

    @property
    def streamed(self) -> bool:
        """Whether each result goes out as it comes and is not kept."""
        return self.name == "jsonl" and self.output is None


class Results:
    """Takes results one by one.

    Attributes:
        inputs, scored, failed, tripped: how many there were of each so far.
    """

    def __init__(self, sidecar: ModelSidecar, form: Form, thresholds: Sequence[Threshold]) -> None:
        self._sidecar, self._form, self._thresholds = sidecar, form, thresholds
        self._kept: list[Judged] = []
        self._drawn: Counter[str] = Counter()
        self._missing: Counter[tuple[str, ...]] = Counter()
        self._unlike = 0
        self.inputs = self.scored = self.failed = self.tripped = 0

    def take(self, result: Result) -> None:
        """Count a result, say what is wrong with it, draw it, and print it where the form is a stream.

        Raises:
            OSError: a drawing cannot be written.
        """
        found = judge(result, self._thresholds)
        self.inputs += 1
        if isinstance(result, Score):
            self.scored += 1
            self._unlike += bool(result.outside_expected)
            self._missing.update([result.missing] if result.missing else [])
            if self._form.plot is not None:
                self._draw(result, self._form.plot)
        else:
            self.failed += 1
            common.log(f"error: {result.video}: {result.reason}: {result.message}")
        self.tripped += bool(found.tripped)
        for words in found.tripped.values():
            common.log(f"threshold: {result.video}: {words}")
        if self._form.streamed:
            common.print_line(json.dumps(line(found, self._sidecar), allow_nan=False))
            sys.stdout.flush()
        else:
            self._kept.append(found)

    def _draw(self, score: Score, place: Path) -> None:
        if place.suffix.lower() != ".svg":
            name = score.video.rstrip("/").replace("\\", "/").rpartition("/")[2]
            self._drawn[name] += 1
            # Videos of one name in several folders have drawings of their own.
            place /= f"{name}.svg" if self._drawn[name] == 1 else f"{name}.{self._drawn[name]}.svg"
        from vqa_train.pipelines.score.plot import timeline_svg

        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(place, timeline_svg(score).encode("utf-8"))

    def emit(self) -> None:
        """Print or write the results.

        Raises:
            OSError: the file cannot be written.
        """
        if self._form.streamed:
            return
        if self._form.name == "table" and self._form.output is None:
            self._print_table()
            return
        text = self._text()
        if self._form.output is None:
            sys.stdout.write(text)
        else:
            atomic_write_bytes(self._form.output, text.encode("utf-8", "surrogateescape"))

    def _text(self) -> str:
        if self._form.name == "json":
            value = report(self._sidecar, self._kept, self._thresholds)
            return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if self._form.name == "jsonl":
            return "".join(json.dumps(line(found, self._sidecar), allow_nan=False) + "\n" for found in self._kept)
        # A table in a file would be read by a program next; CSV is what it can read.
        header, rows = csv_rows(self._sidecar, self._kept, timeline=self._form.timeline)
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        return buffer.getvalue()

    def conclude(self) -> None:
        """Say on stderr what a reader of the scores must know."""
        if self._missing:
            inputs = ", ".join(dict.fromkeys(name for names in self._missing for name in names))
            count = self._missing.total()
            common.log(f"note: {count} of {self.inputs} videos are scored without {inputs}, which counts as usual")
        if self._unlike:
            common.log(f"note: {self._unlike} of {self.inputs} videos score outside the range to expect: extrapolation")
        if self._thresholds:
            texts = ", ".join(threshold.text for threshold in self._thresholds)
            common.log(f"{self.tripped} of {self.inputs} videos trip {texts}")

    @property
    def exit_code(self) -> ExitCode | None:
        """A threshold that tripped counts more than a video that failed."""
        if self.tripped:
            return ExitCode.GATE_FAILED
        if self.failed:
            return ExitCode.SOME_INPUTS_FAILED if self.scored else ExitCode.ERROR
        return None

    def _print_table(self) -> None:
        sidecar, targets = self._sidecar, self._sidecar.targets
        columns = ["video", *targets]
        columns += [f"worst {target}" for target in targets] if self._form.timeline else []
        columns += ["tripped"] if self._thresholds else []
        columns += ["failure"] if self.failed else []
        rows = []
        for found in self._kept:
            r = found.result
            cells = [r.video]
            if isinstance(r, Score):
                cells += [_cell(r, target) for target in targets]
                cells += [_worst(r, target) for target in targets] if self._form.timeline else []
                cells += [" ".join(found.tripped)] if self._thresholds else []
            else:
                cells += ["-"] * (len(columns) - 2) + [r.reason.value]
            rows.append([*cells, *[""] * (len(columns) - len(cells))])
        common.print_table(f"{sidecar.name} ({_legend(sidecar)})", columns, rows)


def _legend(sidecar: ModelSidecar) -> str:
    ranges = {t: "{:g} to {:g}".format(*sidecar.mos_range[t]) for t in sidecar.targets}
    shared = len(set(ranges.values())) == 1
    scale = next(iter(ranges.values())) if shared else ", ".join(f"{t} {r}" for t, r in ranges.items())
    text = f"range {scale}, {sidecar.direction.replace('_', ' ')}"
    if SPREAD in sidecar.output_names:
        text += ", ±: spread of the heads"
    if sidecar.calibration is not None and sidecar.calibration.bounded:
        text += f", [ ]: interval for {100 * sidecar.calibration.level:g}% of labels"
    return text


def _cell(score: Score, target: str) -> str:
    """`3.412 ±0.081 [2.91, 3.92]`: score, spread and interval, as far as there are any."""
    spread, interval = score.spread[target], score.interval[target]
    around = "" if spread is None else f" ±{spread:.3f}"
    return f"{score.scores[target]:.3f}{around}" + ("" if interval is None else " [{:.3f}, {:.3f}]".format(*interval))


def _worst(score: Score, target: str) -> str:
    """`2.914 at 12 s`."""
    if score.timeline is None:
        return ""
    at, worst = score.timeline.worst(target, score.direction)
    return f"{worst:.3f} at {at:g} s"
