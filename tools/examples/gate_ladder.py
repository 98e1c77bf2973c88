"""Gate a transcode ladder: refuse renditions that look too bad, or too much worse than the rung above.

    pip install vqa-train            # no torch
    python gate_ladder.py MODEL 1080p.mp4 720p.mp4 480p.mp4 --least 3.0 --margin 0.8
    python gate_ladder.py MODEL ladder/*.mp4 --source master.mov        # a full-reference model

MODEL is a name in the registry (NAME, NAME:VERSION, NAME@ALIAS), a model's folder or a bundle. Rungs are sorted by bit rate. A
rung is refused when the pessimistic end of its interval (its score, where the model has no intervals) is beyond --least, when its
score is more than --margin worse than that of the next higher rung that has one, or when it cannot be scored.

Exit codes: 0 all rungs pass, 3 at least one is refused, 1 error, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from vqa_train.core.errors import VqaError
from vqa_train.scoring import Score, ScoreFailure, Scorer, ScoreRequest


@dataclass(frozen=True)
class Rung:
    """One rendition: its score, the pessimistic end of what it may be, and why it is refused (None: it passes)."""

    video: str
    size: str
    kbps: float
    score: float | None
    pessimistic: float | None
    refused: str | None


def probe(video: Path) -> tuple[float, str]:
    """Bit rate in kbit/s and WIDTHxHEIGHT; a file that cannot be opened sorts last and is refused when it is scored."""
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            return (container.bit_rate or 0) / 1000, f"{stream.width}x{stream.height}"
    except (av.FFmpegError, OSError, IndexError):
        return 0.0, "?"


def judge(result: Score | ScoreFailure, above: float | None, target: str, least: float, margin: float) -> Rung:
    """A rung, against the limits and the score of the rung above (None for the highest)."""
    kbps, size = probe(Path(result.video))
    if isinstance(result, ScoreFailure):
        return Rung(result.video, size, kbps, None, None, f"{result.reason.value}: {result.message}")
    score, interval = result.scores[target], result.interval[target]
    higher = result.direction == "higher_is_better"
    pessimistic = score if interval is None else interval[0 if higher else 1]
    sign = 1 if higher else -1
    refused = None
    if sign * pessimistic < sign * least:
        refused = f"{pessimistic:.2f} is beyond {least:g}"
    elif above is not None and sign * (above - score) > margin:
        refused = f"{sign * (above - score):.2f} worse than the rung above"
    return Rung(result.video, size, kbps, score, pessimistic, refused)


def gate(
    scorer: Scorer, videos: Sequence[Path], *, source: Path | None, target: str, least: float, margin: float
) -> list[Rung]:
    """The rungs, highest bit rate first."""
    ordered = sorted(videos, key=probe, reverse=True)
    requests = [ScoreRequest(video=video, reference=source) for video in ordered]
    rungs: list[Rung] = []
    above = None
    for result in scorer.score_many(requests):
        rungs.append(judge(result, above, target, least, margin))
        above = rungs[-1].score if rungs[-1].score is not None else above
    return rungs


def table(rungs: Sequence[Rung]) -> str:
    """Lines to print."""
    number = "{:.2f}".format
    rows = [("rendition", "size", "kbit/s", "score", "at worst", "verdict")]
    for r in rungs:
        scores = ("-", "-") if r.score is None or r.pessimistic is None else (number(r.score), number(r.pessimistic))
        verdict = "pass" if r.refused is None else f"REFUSED: {r.refused}"
        rows.append((Path(r.video).name, r.size, f"{r.kbps:.0f}", *scores, verdict))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[5]]) for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("renditions", type=Path, nargs="+")
    parser.add_argument("--source", type=Path, help="the pristine video, for a full-reference model")
    parser.add_argument("--registry", type=Path, default=Path("model"), help="folder of registry.json (default: model)")
    parser.add_argument("--target", help="which score (default: overall, or the only one)")
    parser.add_argument("--least", type=float, required=True, help="the worst score that may be shipped")
    parser.add_argument(
        "--margin", type=float, default=float("inf"), help="how much worse than the rung above (default: any)"
    )
    options = parser.parse_args()
    try:
        with Scorer(options.model, registry=options.registry) as scorer:
            targets = scorer.sidecar.targets
            target = options.target or ("overall" if "overall" in targets else targets[0])
            if target not in targets or (options.target is None and target != "overall" and len(targets) > 1):
                parser.error(f"--target must be one of {', '.join(targets)}")
            if scorer.takes_reference and options.source is None:
                parser.error(f"{options.model} is full-reference: give the pristine video with --source")
            if not scorer.takes_reference and options.source is not None:
                parser.error(f"{options.model} is no-reference: it takes no --source")
            rungs = gate(
                scorer, options.renditions,
                source=options.source, target=target, least=options.least, margin=options.margin,
            )  # fmt: skip
            low, high = scorer.sidecar.mos_range[target]
            direction = scorer.sidecar.direction.replace("_", " ")
            print(
                f"{scorer.sidecar.name}:{scorer.sidecar.version} {target} ({low:g} to {high:g}, {direction})\n{table(rungs)}"
            )
    except VqaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    refused = [rung for rung in rungs if rung.refused is not None]
    print(f"{len(rungs) - len(refused)} of {len(rungs)} renditions pass")
    return 3 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
