"""vqa-train check parity|drift|compat|ops: mounts one file per gate."""

from __future__ import annotations

import typer

from vqa_train.cli import check_compat, check_drift, check_ops, check_parity

app = typer.Typer(no_args_is_help=True)
app.command("parity")(check_parity.check_parity)
app.command("ops")(check_ops.check_ops)
app.command("drift")(check_drift.check_drift)
app.command("compat")(check_compat.check_compat)
