"""Asks the Hugging Face hub, or the mirror that HF_ENDPOINT names, where an entry's files are and what they must be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vqa_train.core.errors import DependencyError, WeightsError
from vqa_train.core.provenance import redact
from vqa_train.weights.download import TRANSIENT, RemoteFile, Retries
from vqa_train.weights.manifest import WeightsEntry, WeightsFile

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

_SHA256 = re.compile(r"[0-9a-f]{64}")


def hub_files(entry: WeightsEntry, files: list[WeightsFile], retries: Retries) -> Iterator[RemoteFile]:
    """Where each of `files` can be fetched, all at the commit that the entry's revision means now.

    huggingface_hub knows the endpoint, the token and whether the hub may be asked at all (HF_HUB_OFFLINE). The bytes
    are fetched by `download`, because its own downloads do not go on after an interruption.

    Raises:
        WeightsError: offline, unreachable, or no such repository, revision or file.
        DependencyError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"weights {entry.name!r} need the package {error.name!r}, which is not installed",
            hint="pip install 'vqa-train[backbones]'",
        ) from error
    repo, revision = str(entry.source.repo), entry.source.revision
    for file in files:
        what = f"{file.path} of {repo} at {revision}"
        facts = _facts(hf_hub_url(repo, file.path, revision=revision), what, entry.name, retries)
        revision = facts.commit_hash or revision
        etag = facts.etag or ""
        yield RemoteFile(
            url=hf_hub_url(repo, file.path, revision=revision),
            source=f"hf://{repo}@{revision}/{file.path}",
            # Of a large file the hub gives the sha256 itself, of a small one git's hash.
            sha256=file.sha256 or (etag if _SHA256.fullmatch(etag) else None),
            bytes=file.bytes or facts.size,
            headers={k: v for k, v in build_hf_headers().items() if k.lower() == "authorization"},
        )


def _facts(url: str, what: str, name: str, retries: Retries) -> HfFileMetadata:
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    failures = 0
    while True:
        try:
            return get_hf_file_metadata(url)
        except OfflineModeIsEnabled as error:
            raise WeightsError(
                f"weights {name!r} cannot be pulled: HF_HUB_OFFLINE is set",
                hint=f"unset it, or `vqa-train weights add {name} PATH`",
            ) from error
        except Exception as error:  # whichever HTTP library this version of huggingface_hub uses has its own
            failures += 1
            final = isinstance(error, HfHubHTTPError) and error.response.status_code not in TRANSIENT
            if final or failures >= retries.tries:
                text = redact(" ".join(str(error).split()))[:200] or type(error).__name__
                raise WeightsError(
                    f"{what} could not be found: {text}",
                    hint=f"without a network `vqa-train weights add {name} PATH`",
                ) from error
            retries.pause(failures)
