"""Makes a ready-made scorer when it is first asked for by name, in a process of its own: that one needs torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vqa_train.core.errors import ModelError
from vqa_train.registry.cache import ready_models
from vqa_train.registry.registry import ModelRegistry

READY_MADE = ("dover", "dover++", "dover-mobile")

_COMMAND = "import sys; sys.argv[0] = 'vqa-train'; from vqa_train.cli.main import main; main()"


def ensure_ready(model: str, registry: Path, *, log: Callable[[str], None]) -> None:
    """Do nothing unless `model` is a ready-made scorer that neither the registry nor this machine's cache has.

    Raises:
        ModelError: it cannot be made; why stands on stderr.
    """
    if model not in READY_MADE:
        return
    if model in ModelRegistry(registry).models() or model in ModelRegistry(ready_models()).models():
        return
    log(f"making the ready-made scorer {model} from its weights; this happens once")
    arguments = ["export-backbone", model, "--ready"]
    made = subprocess.run([sys.executable, "-P", "-c", _COMMAND, *arguments], stdout=sys.stderr, check=False)
    if made.returncode:
        raise ModelError(
            f"the ready-made scorer {model!r} could not be made, for the reason above",
            hint=f"`vqa-train {' '.join(arguments)}` tries again, on any machine with torch and the weights",
        )
