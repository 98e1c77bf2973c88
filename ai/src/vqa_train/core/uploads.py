"""Multipart uploads that died before they were completed: they cost storage, and no listing of objects shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vqa_train.core import remote

if TYPE_CHECKING:
    from upath import UPath


@dataclass(frozen=True)
class Upload:
    """An upload that was begun and neither completed nor aborted.

    Attributes:
        path: the object that it would have become.
        id: the server's name of it.
        age_s: seconds since it was begun, by the server's time and this machine's.
    """

    path: Path
    id: str
    age_s: float


def unfinished(root: UPath) -> list[Upload]:
    """Uploads to objects below `root`; none where the protocol is not S3 (Google and Azure drop theirs in a week).

    Raises:
        OSError: forbidden, not answering.
    """
    fs = remote.filesystem_of(root)
    if not hasattr(fs, "call_s3"):
        return []
    bucket, prefix, _ = fs.split_path(root.path.rstrip("/") + "/")
    found: list[Upload] = []
    marker: dict[str, str] = {}
    while True:
        answer = _page(root, {"Bucket": bucket, "Prefix": prefix, **marker})
        for upload in answer.get("Uploads", ()):
            begun = remote.moment(upload["Initiated"]) or datetime.now(UTC)
            path = cast(Path, root / upload["Key"][len(prefix) :])
            found.append(Upload(path, upload["UploadId"], (datetime.now(UTC) - begun).total_seconds()))
        if not answer.get("IsTruncated"):
            return found
        marker = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}


def _page(root: UPath, request: dict[str, str]) -> dict[str, Any]:
    return remote.call(root, lambda fs, _: fs.call_s3("list_multipart_uploads", **request), "listing uploads of")


def abort(upload: UPath, upload_id: str) -> None:
    """Have the server forget the parts; an upload that is gone already is fine.

    Raises:
        OSError: forbidden, not answering.
    """
    try:
        remote.call(upload, lambda fs, _: fs.abort_mpu(*fs.split_path(upload.path)[:2], upload_id), "aborting")
    except FileNotFoundError:
        return
