"""Options that several commands share, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqa_train.core.locations import location

InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=SET[:OUTPUT][@reference]",
        help="Features, instead of the recipe's; again for more. @reference: those of each video's reference.",
    ),
]
DatasetsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME|YAML", help="Dataset, instead of the recipe's; again for further ones."),
]
StoreOption = Annotated[
    Path,
    typer.Option("--features", metavar="STORE", parser=location, help="Feature store: a folder or a URL (s3://...)."),
]
StoreOutputOption = Annotated[
    Path,
    typer.Option("--output", metavar="STORE", parser=location, help="Feature store: a folder or a URL (s3://...)."),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", parser=location, help="Folder or URL that the manifest's paths start from."),
]
ManifestsOption = Annotated[Path | None, typer.Option(help="Folder of manifests; by default ./manifests.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads; they do not change the result.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME, NAME:VERSION or NAME@ALIAS, or an exported X.onnx with X.json.")
]
RegistryOption = Annotated[Path, typer.Option(metavar="DIR", help="Folder that holds registry.json.")]
RegisteredArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME, NAME:VERSION, NAME@ALIAS, a model's folder or a .tar.zst bundle.")
]
SignatureOption = Annotated[
    list[str] | None,
    typer.Option(
        "--require-signature",
        metavar="KEY",
        help="Public key (file or text) that must have signed the model; again for further ones, any of which will do. "
        "(default: those of VQA_TRAIN_REQUIRE_SIGNATURE)",
    ),
]
