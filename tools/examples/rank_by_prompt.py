"""Rank a folder of generated clips by prompt: per prompt the best clip first, and which ranks are too close to call.

    pip install vqa-train            # no torch
    python rank_by_prompt.py MODEL clips/                         # a_red_fox__seed3.mp4 was made from "a red fox"
    python rank_by_prompt.py MODEL clips/ --prompts prompts.csv   # columns video, prompt; paths relative to clips/

MODEL takes prompts: a name in the registry (NAME, NAME:VERSION, NAME@ALIAS), a model's folder or a bundle. A clip is marked with
`~` when its interval overlaps that of the clip ranked above it: the model does not tell the two apart. A model without
intervals marks nothing, and that is said.

Exit codes: 0 done, 4 done but some clips have no score, 1 error, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vqa_train.core.errors import UsageError, VqaError
from vqa_train.scoring import Score, ScoreFailure, Scorer, ScoreRequest

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif"}


@dataclass(frozen=True)
class Ranked:
    """One clip of a prompt; rank 1 is the best. `close`: not told apart from the rank above."""

    prompt: str
    rank: int
    video: str
    score: float
    interval: tuple[float, float] | None
    close: bool


def prompt_of(video: Path) -> str:
    """The words of a file name before `__` (the rest tells apart the clips of one prompt)."""
    return video.stem.partition("__")[0].replace("_", " ").strip()


def requests_in(folder: Path, prompts: Path | None) -> list[ScoreRequest]:
    """Clips with their prompts, from the table or from their names."""
    if prompts is None:
        videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        return [ScoreRequest(video=video, prompt=prompt_of(video)) for video in videos]
    with prompts.open(newline="", encoding="utf-8-sig") as handle:
        table = csv.DictReader(handle)
        if not {"video", "prompt"} <= set(table.fieldnames or ()):
            raise UsageError(f"{str(prompts)!r} has the columns {table.fieldnames}, expected video and prompt")
        return [ScoreRequest(video=folder / row["video"], prompt=row["prompt"]) for row in table]


def rank(scores: Iterable[Score], target: str) -> dict[str, list[Ranked]]:
    """Prompt -> its clips, best first; equal scores by name."""
    by_prompt: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_prompt[score.prompt or ""].append(score)
    ranking = {}
    for prompt, clips in sorted(by_prompt.items()):
        sign = -1 if clips[0].direction == "higher_is_better" else 1
        clips.sort(key=lambda clip: (sign * clip.scores[target], clip.video))
        rows: list[Ranked] = []
        for clip in clips:
            interval = clip.interval[target]
            above = rows[-1].interval if rows else None
            close = interval is not None and above is not None and interval[0] <= above[1] and above[0] <= interval[1]
            rows.append(Ranked(prompt, len(rows) + 1, clip.video, clip.scores[target], interval, close))
        ranking[prompt] = rows
    return ranking


def show(ranking: Mapping[str, list[Ranked]], level: float | None) -> None:
    """Print one block per prompt."""
    for prompt, rows in ranking.items():
        print(f"\n{prompt}")
        for row in rows:
            around = "" if row.interval is None else "  [{:.2f}, {:.2f}]".format(*row.interval)
            print(f"  {row.rank:>3} {'~' if row.close else ' '} {row.score:.2f}{around}  {Path(row.video).name}")
    if level is None:
        print("\nThis model has no intervals, so nothing says which ranks are too close to call.")
    else:
        print(f"\n[ ] holds {level:.0%} of people's scores; ~ too close to call against the clip above")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clips", type=Path, help="folder")
    parser.add_argument("--prompts", type=Path, help="CSV with the columns video and prompt")
    parser.add_argument("--registry", type=Path, default=Path("model"), help="folder of registry.json (default: model)")
    parser.add_argument("--target", help="which score (default: overall, or the first)")
    options = parser.parse_args()
    try:
        requests = requests_in(options.clips, options.prompts)
        if not requests:
            parser.error(f"no clips in {options.clips}")
        with Scorer(options.model, registry=options.registry, isolated=True) as scorer:
            targets = scorer.sidecar.targets
            target = options.target or ("overall" if "overall" in targets else targets[0])
            if target not in targets:
                parser.error(f"--target must be one of {', '.join(targets)}")
            if not scorer.takes_prompt:
                parser.error(f"{options.model} takes no prompts: it would rank by looks alone")
            results = list(scorer.score_many(requests))
    except (OSError, VqaError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    scored = [result for result in results if isinstance(result, Score)]
    failed = [result for result in results if isinstance(result, ScoreFailure)]
    ranking = rank(scored, target)
    show(ranking, scored[0].level if scored else None)
    for failure in failed:
        print(f"no score: {failure.video}: {failure.reason.value}: {failure.message}", file=sys.stderr)
    if not scored:
        return 1
    return 4 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
