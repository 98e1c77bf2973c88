"""vqa-train models keygen|sign: keys in minisign's formats, and signatures over sidecars."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vqa_train.cli.common import JsonOption, emit_json, print_line
from vqa_train.cli.options import RegisteredArgument, RegistryOption

PASSWORD_VARIABLE = "VQA_TRAIN_SIGNING_PASSWORD"  # noqa: S105  # a variable's name


def keygen(
    output: Annotated[Path, typer.Argument(metavar="NAME", help="Writes NAME.key (secret) and NAME.pub.")],
    no_password: Annotated[bool, typer.Option("--no-password", help="Do not encrypt the secret key.")] = False,
    json: JsonOption = None,
) -> None:
    """Make a pair of keys that sign models, which the minisign tool reads too.

    The password is asked for, or taken from VQA_TRAIN_SIGNING_PASSWORD.
    """
    from vqa_train.core.files import atomic_write_bytes
    from vqa_train.registry.minisign_keys import SecretKey, refuse_file, write_secret

    secret_file, public_file = output.with_name(output.name + ".key"), output.with_name(output.name + ".pub")
    for path in (secret_file, public_file):
        refuse_file(path)
    secret = SecretKey.generate()
    password = None if no_password else _password(confirm=True)
    write_secret(secret_file, secret.to_file(password))
    atomic_write_bytes(public_file, secret.public.to_file().encode("ascii"))
    public = secret.public
    emit_json(
        {
            "schema": "vqa-train/models-keygen/1",
            "key_id": public.key_id,
            "public_key": public.text,
            "public_file": str(public_file),
            "secret_file": str(secret_file),
            "encrypted": not no_password,
        },
        json,
    )
    if json != "-":
        print_line(f"key {public.key_id}: {secret_file} (keep it secret), {public_file}")
        print_line(f"verify with: --require-signature {public.text}")


def sign(
    model: RegisteredArgument,
    key: Annotated[Path, typer.Option(metavar="FILE", help="Secret key, of `models keygen` or minisign.")],
    comment: Annotated[
        str | None, typer.Option(help="Trusted comment, one line. (default: the model and the time)")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a signature that is there.")] = False,
    registry: RegistryOption = Path("model"),
    json: JsonOption = None,
) -> None:
    """Sign the sidecar of a model, which names the hash of everything else in it.

    The password is asked for, or taken from VQA_TRAIN_SIGNING_PASSWORD.
    """
    from vqa_train.pipelines.models.change import sign_model
    from vqa_train.registry.minisign_keys import SecretKey

    secret = SecretKey.read(key, _password)
    signed = sign_model(model, secret, registry, comment=comment, overwrite=overwrite)
    emit_json(signed.to_json(), json)
    if json != "-":
        print_line(f"{signed.model} is signed by {signed.key_id}: {signed.comment}")


def _password(*, confirm: bool = False) -> str:
    found = os.environ.get(PASSWORD_VARIABLE)
    if found:
        return found
    import sys

    from vqa_train.core.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(
            "the secret key has a password, and there is no terminal to ask for it",
            hint=f"set {PASSWORD_VARIABLE}, or make a key with --no-password",
        )
    asked: str = typer.prompt("Password of the secret key", hide_input=True, confirmation_prompt=confirm, err=True)
    return asked
