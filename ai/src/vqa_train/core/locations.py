"""Names of files and folders as users give them: a local path, or a URL of an object store."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from vqa_train.core.errors import DependencyError, UsageError

if TYPE_CHECKING:
    from upath import UPath

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "adl": "az"}
# Seconds without a byte before a connection counts as lost.
_STALL_S = 30


def location(text: str | Path) -> Path:
    """The place that `text` names: a `Path`, or for a URL (`s3://bucket/folder`) a `upath.UPath`.

    A UPath is no Path, but offers what code that goes through `core.remote` and `store.filesystem` uses of one: `/`,
    `name`, `stem`, `suffix`, `parent`, `with_suffix`, `with_name`. `is_remote` tells the two apart.

    Raises:
        UsageError: an unknown kind of URL, or one that carries a password or a signature.
        DependencyError: the package for this kind of URL is not installed.
    """
    if isinstance(text, Path):
        return text
    match = _URL.fullmatch(str(text))
    if match is None:
        return Path(text)
    protocol, rest = match["protocol"], match["rest"]
    if protocol in ("file", "local"):
        return Path("/" + rest.lstrip("/"))
    _refuse_secrets(protocol, rest)
    return cast(Path, _open(protocol, str(text)))


def _refuse_secrets(protocol: str, rest: str) -> None:
    """What stands in argv is seen by every user of the machine and kept in provenance."""
    host = rest.partition("/")[0]
    if ":" in host.rpartition("@")[0] or ("?" in rest and protocol in ("http", "https")):
        raise UsageError(
            f"a {protocol}:// address must not carry a password or a signature",
            hint="give credentials in the environment or the cloud library's own configuration",
        )


def _open(protocol: str, text: str) -> UPath:
    import fsspec
    from upath import UPath

    try:
        found: UPath = UPath(text, **_options(protocol))
        if protocol not in ("http", "https"):
            # Loads the backend, so that a package that is missing shows here; connects to nothing.
            fsspec.get_filesystem_class(found.protocol)
        return found
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        packages = f"pip install 'vqa-train[{extra}]'" if extra else str(error)
        raise DependencyError(f"{protocol}:// needs a package that is not installed", hint=packages) from error
    except ValueError as error:
        raise UsageError(
            f"unknown kind of address {protocol}://", hint="local paths, s3://, gs://, az:// and what fsspec knows"
        ) from error


def _options(protocol: str) -> dict[str, Any]:
    """No cached listings: what other writers add must be seen. No retries within: `core.retry` makes them, once."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        options["config_kwargs"] = {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": 10,
            "read_timeout": _STALL_S,
        }
    return options


def is_place(value: object) -> TypeGuard[Path]:
    """Whether `value` is what `location` gives: a `Path` or a `UPath`."""
    if isinstance(value, Path):
        return True
    # Where nobody has made a UPath, its package is not loaded.
    upath = sys.modules.get("upath")
    return upath is not None and isinstance(value, upath.UPath)


def is_remote(path: Path | UPath) -> TypeGuard[UPath]:
    """Whether `path` came from a URL."""
    return not isinstance(path, Path)
