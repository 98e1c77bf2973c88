"""The state of a fit that is under way, beside its run folder, and taking it up again after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vqa_train.core.config import load_json
from vqa_train.core.errors import RunError, VqaError
from vqa_train.core.files import atomic_write_json, display_path
from vqa_train.core.hashing import sha256_bytes, sha256_json
from vqa_train.pipelines.fit.crossfit import CrossFit

PARTIAL_SCHEMA = "vqa-train/partial-fit/1"
_RECORD = "fit.json"


def partial_folder(output: Path) -> Path:
    """`OUTPUT.partial`, beside the run folder."""
    output = output.absolute()
    return output.parent / f"{output.name}.partial"


@contextmanager
def partial_fit(output: Path, cross: CrossFit, *, resume: bool, warn: Callable[[str], None]) -> Iterator[Path]:
    """The folder where the trainer keeps its state; gone when the block ends well or cannot end well.

    An interruption leaves it if there is any state in it, for `resume`.

    Raises:
        RunError: with `resume`, the state is of another recipe or other rows.
    """
    folder, identity = partial_folder(output), _identity(cross)
    if folder.exists():
        if not (folder / _RECORD).is_file():
            raise RunError(f"{str(folder)!r} is in the way and not of a fit", hint="move it away")
        if not resume:
            warn(f"{display_path(folder)}: an interrupted fit is thrown away and begun anew (--resume goes on with it)")
            shutil.rmtree(folder)
        elif load_json(folder / _RECORD).get("identity") != identity:
            raise RunError(
                f"the interrupted fit in {str(folder)!r} had another recipe, other splits or other features",
                hint="give the same arguments as then, or leave out --resume to begin anew",
            )
    elif resume:
        warn(f"{display_path(folder)}: there is no interrupted fit, so this one begins at the first epoch")
    folder.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(folder / _RECORD, {"schema": PARTIAL_SCHEMA, "identity": identity})
    try:
        yield folder
    except VqaError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        if [path.name for path in folder.iterdir()] == [_RECORD]:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _identity(cross: CrossFit) -> str:
    """What decides the result: rows, labels, and every head's recipe and rows."""
    jobs = [
        [
            job.name,
            job.config.model_dump(mode="json"),
            sha256_bytes(job.train.tobytes() + job.validation.tobytes()),
            [sha256_bytes(value.numpy().tobytes()) for value in job.init.state_dict().values()] if job.init else None,
        ]
        for job in cross.jobs
    ]
    return sha256_json([cross.table.identity, sha256_bytes(cross.table.targets.tobytes()), jobs])
