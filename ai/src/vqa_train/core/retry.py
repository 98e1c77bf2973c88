"""Calls to a remote store again after an error that passes, with exponential backoff, full jitter and an end."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_VARIABLE = "VQA_TRAIN_RETRY_SECONDS"
DEFAULT_PATIENCE_S = 300.0
_FIRST_S = 0.2
_LONGEST_S = 20.0
# Waiting that is worth a line on stderr.
_LONG_S = 10.0

_STATUS = frozenset({408, 425, 429})
_CODES = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout"})
# By name: the packages that define them are only there where their kind of URL is used.
_NAMES = frozenset(
    {
        "botocore.exceptions.HTTPClientError",
        "botocore.exceptions.ConnectionError",
        "botocore.parsers.ResponseParserError",
        "aiohttp.client_exceptions.ClientConnectionError",
        "aiohttp.client_exceptions.ClientPayloadError",
        "fsspec.exceptions.FSTimeoutError",
        "http.client.IncompleteRead",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
        "requests.exceptions.ChunkedEncodingError",
        "azure.core.exceptions.ServiceRequestError",
        "azure.core.exceptions.ServiceResponseError",
        "azure.core.exceptions.IncompleteReadError",
    }
)


class DamagedTransferError(OSError):
    """Bytes arrived that are not those that were asked for; asking again may bring them."""


def patience_s() -> float:
    """Seconds for which a call is made again: $VQA_TRAIN_RETRY_SECONDS, else five minutes."""
    try:
        return max(0.0, float(os.environ[PATIENCE_VARIABLE]))
    except (KeyError, ValueError):
        return DEFAULT_PATIENCE_S


def retrying(call: Callable[[], T], what: str, *, patience: float | None = None) -> T:
    """`call()`, made again while it fails with an error that passes, for at most `patience` seconds.

    The wait before try n is drawn evenly between 0 and min(20, 0.2 * 2**n) seconds. It is drawn at random, as many
    processes that were turned away together must not come back together; no result depends on it.

    Args:
        call: must do the same when it is made twice (a read, a write of a whole object).
        what: names the call in the line on stderr that a long wait brings.
        patience: None for `patience_s`.

    Raises:
        Exception: what `call` raised: at once where it does not pass, else the last one.
    """
    end = time.monotonic() + (patience if patience is not None else patience_s())
    said = False
    began = time.monotonic()
    for wait in _waits():
        try:
            return call()
        except Exception as error:
            if not transient(error) or time.monotonic() + wait > end:
                raise
            if not said and time.monotonic() + wait - began > _LONG_S:
                said = True
                problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                sys.stderr.write(f"{what}: {problem}; trying again for up to {end - time.monotonic():.0f} s\n")
            time.sleep(wait)
    raise AssertionError("the waits have no end")


def _waits() -> Iterator[float]:
    longest = _FIRST_S
    while True:
        yield random.uniform(0.0, longest)  # noqa: S311  # spreads load; nothing secret, no result depends on it
        longest = min(_LONGEST_S, 2 * longest)


def transient(error: BaseException) -> bool:
    """Whether `error` may be gone when the same call is made again: the server is busy or the connection was lost.

    What the server said counts before how it was wrapped: a status of 500 and above, 408, 425 or 429, or a code that
    asks to slow down. Anything else that it said (403, 404, 400) does not pass.
    """
    link: BaseException | None = error
    while link is not None:
        status, code = _status(link)
        if code in _CODES:
            return True
        if status is not None:
            return (status >= 500 and status != 501) or status in _STATUS
        if _is_connection(link):
            return True
        # Not __context__: that may be an answer that was dealt with before this call was made.
        link = link.__cause__
    return False


def _status(error: BaseException) -> tuple[int | None, str | None]:
    """HTTP status and error code that the libraries of S3, Google and Azure keep in their exceptions."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = response.get("Error", {}).get("Code")
        # A batch answer of 200 may hold an error that has no status of its own.
        if code in ("InternalError", "ServiceUnavailable"):
            status = 503
        return _number(status if status != 200 else None), code
    for name in ("status", "status_code", "code"):
        status = _number(getattr(error, name, None))
        if status is not None:
            return status, None
    return None, None


def _number(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if 100 <= number < 600 else None


def _is_connection(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | DamagedTransferError):
        return True
    return any(f"{kind.__module__}.{kind.__qualname__}" in _NAMES for kind in type(error).__mro__)
