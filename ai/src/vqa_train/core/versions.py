"""Format versions, NAME/MAJOR[.MINOR]: an older minor opens, anything newer is refused with what to install."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from vqa_train import __version__

_SCHEMA = re.compile(r"(?P<name>[^\s]{1,100})/(?P<major>[0-9]{1,6})(?:\.(?P<minor>[0-9]{1,6}))?")
UPGRADE = "it was written by a newer version: pip install --upgrade vqa-train"
SCHEMA_ERROR = "schema_version"


def _split(schema: str) -> tuple[str, int, int] | None:
    match = _SCHEMA.fullmatch(schema)
    return (match["name"], int(match["major"]), int(match["minor"] or 0)) if match is not None else None


def opens(found: object, known: str) -> bool:
    """Whether a reader of the version `known` may read a file of the version `found`: same name and major, no newer
    minor."""
    if found == known:
        return True
    theirs, ours = _split(found) if isinstance(found, str) else None, _split(known)
    return theirs is not None and ours is not None and theirs[:2] == ours[:2] and theirs[2] <= ours[2]


def refusal(found: object, known: str) -> tuple[str, str]:
    """Message and hint for a file of version `found` that a reader of `known` does not open."""
    message = f"has schema {found!r:.120}, vqa-train {__version__} reads {known!r}"
    theirs, ours = _split(found) if isinstance(found, str) else None, _split(known)
    if theirs is None or ours is None or theirs[0] != ours[0]:
        return message, "is it a file of another kind?"
    if theirs[1:] > ours[1:]:
        return message, UPGRADE
    return message, f"it was written by an older version: pip install 'vqa-train<{__version__}' reads it"


def version(known: str) -> BeforeValidator:
    """A validator for a model's field `schema`: accepts `known` and its older minor versions."""

    def check(found: Any) -> Any:
        if not opens(found, known):
            message, hint = refusal(found, known)
            raise PydanticCustomError(SCHEMA_ERROR, "{message} - {hint}", {"message": message, "hint": hint})
        return found

    return BeforeValidator(check)
