"""What every command shares: exit codes from errors, tables on stdout, JSON with --json, --debug for tracebacks."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vqa_train.core.errors import ExitCode, VqaError

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C or SIGTERM: what was done is kept, and the same command goes on."""

_EXTRAS = {
    "pyarrow": "store", "polars": "store", "torch": "train", "onnx": "train", "scipy": "train", "sklearn": "train",
    "safetensors": "train", "transformers": "backbones", "sentence_transformers": "backbones",
}  # fmt: skip

JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="PATH", help="Write the result as JSON to PATH, or to stdout with '-'."),
]


def emit_json(value: dict[str, Any], destination: str | None) -> None:
    """Write `value` to a file, to stdout for "-", or nowhere for None. NaN must have become null before."""
    if destination is None:
        return
    if destination == "-":
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    from vqa_train.core.files import atomic_write_json

    atomic_write_json(Path(destination), value)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout: boxed and coloured on a terminal, plain and unwrapped columns in a pipe."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_justify="left")
        for column in columns:
            table.add_column(escape(column), overflow="fold")
        for row in cells:
            table.add_row(*(escape(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    print_line(title)
    for line in [list(columns), *cells]:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_line(text: str = "") -> None:
    """One line of result on stdout."""
    sys.stdout.write(text + "\n")


def log(text: str) -> None:
    """One line of progress or warning on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; NaN and None are shown as such."""
    return "nan" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def run(app: typer.Typer) -> None:
    """Run `app`; a VqaError becomes one line on stderr and its exit code. `--debug` anywhere gives the traceback."""
    debug = "--debug" in sys.argv or bool(os.environ.get("VQA_TRAIN_DEBUG"))
    sys.argv = [sys.argv[0], *(argument for argument in sys.argv[1:] if argument != "--debug")]
    try:
        app()
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.ERROR)
    except VqaError as error:
        if debug:
            raise
        log(f"error: {error}")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(str(error.name).partition(".")[0])
        if debug or extra is None:
            raise
        log(f"error: this needs the package {error.name!r}, which is not installed - pip install 'vqa-train[{extra}]'")
        sys.exit(ExitCode.ERROR)
    except OSError as error:
        if debug:
            raise
        name = f": {error.filename!r}" if error.filename is not None else ""
        log(f"error: {error.strerror or error}{name}")
        sys.exit(ExitCode.ERROR)
