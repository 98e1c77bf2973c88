"""Coverage-guided fuzzing of one parser with atheris (pip install 'vqa-train[fuzz]').

Usage: python tools/fuzz/fuzz.py TARGET [libFuzzer options, e.g. -max_total_time=180]
       python tools/fuzz/fuzz.py --list

It stops at the first input that raises anything but a VqaError, takes more than 2 GiB or more than 20 s, and keeps it.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["vqa_train", "yaml", "csv", "json"]):
    from mutate import mutate
    from targets import targets

    from vqa_train.core.errors import VqaError

    for each in targets().values():
        with tempfile.TemporaryDirectory() as warm, contextlib.suppress(VqaError):
            each.call(each.seeds[0], Path(warm))


def main() -> None:
    """Pick the target, write its seeds as the corpus, fuzz."""
    if sys.argv[1:2] == ["--list"] or len(sys.argv) < 2:
        print("\n".join(targets()))
        return
    target = targets()[sys.argv[1]]
    folder, corpus = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            target.call(data, folder)
        except VqaError:
            return

    def structured(data: bytes, max_size: int, seed: int) -> bytes:
        """Half of the mutations know the form of the file."""
        if seed % 2:
            try:
                return mutate(random.Random(seed), data, target.form)[:max_size]
            except (ValueError, TypeError, AttributeError, RecursionError):
                pass
        return bytes(atheris.Mutate(data, max_size))

    options = ["-rss_limit_mb=2048", "-timeout=20", "-max_len=65536", *sys.argv[2:], str(corpus)]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=structured)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
