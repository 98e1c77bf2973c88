"""What is tried again, what is not, and when it ends."""

from __future__ import annotations

import errno

import pytest

from vqa_train.core import retry
from vqa_train.core.retry import DamagedTransferError, retrying, transient


class ClientError(Exception):
    """Looks like botocore's."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}


class HttpError(Exception):
    """Looks like gcsfs's, whose code may be text."""

    def __init__(self, code: object) -> None:
        super().__init__(str(code))
        self.code = code


def translated(error: Exception, as_error: Exception) -> Exception:
    """As s3fs does."""
    as_error.__cause__ = error
    return as_error


@pytest.mark.parametrize(
    "error",
    [
        ClientError(500, "InternalError"),
        ClientError(503, "SlowDown"),
        ClientError(200, "InternalError"),
        ClientError(400, "RequestTimeout"),
        translated(ClientError(503, "ServiceUnavailable"), OSError(errno.EBUSY, "busy")),
        HttpError(502),
        HttpError("429"),
        ConnectionResetError(),
        TimeoutError(),
        DamagedTransferError("half"),
    ],
)
def test_these_pass(error: Exception) -> None:
    assert transient(error)


@pytest.mark.parametrize(
    "error",
    [
        ClientError(403, "AccessDenied"),
        ClientError(404, "NoSuchBucket"),
        ClientError(501, "NotImplemented"),
        translated(ClientError(403, "AccessDenied"), PermissionError("Access Denied")),
        FileNotFoundError("gone"),
        OSError(errno.ENOSPC, "No space left on device"),
        HttpError(403),
        HttpError("required"),
        ValueError("ours"),
    ],
)
def test_these_do_not(error: Exception) -> None:
    assert not transient(error)


def test_an_answer_that_was_dealt_with_before_does_not_count() -> None:
    """s3fs asks for the object, is told 404, and lists: the error of the listing has the 404 as its context."""
    try:
        try:
            raise ClientError(404, "NoSuchKey")
        except ClientError:
            raise ConnectionResetError from None
    except ConnectionResetError as error:
        error.__suppress_context__ = False
        assert error.__context__ is not None
        assert transient(error)


def test_an_error_that_follows_one_that_passed_is_its_own() -> None:
    error = ValueError("ours")
    error.__context__ = ConnectionResetError()
    assert not transient(error)


def fails(times: int, error: Exception) -> tuple[list[int], object]:
    made: list[int] = []

    def call() -> str:
        made.append(len(made))
        if len(made) <= times:
            raise error
        return "done"

    return made, call


def test_it_is_called_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waits.append)
    made, call = fails(6, ConnectionResetError())
    assert retrying(call, "reading x") == "done"  # type: ignore[arg-type]
    assert len(made) == 7 and len(waits) == 6
    assert all(wait <= 0.2 * 2**n for n, wait in enumerate(waits)), "full jitter: between nothing and a doubling bound"
    assert len(set(waits)) > 1


def test_what_does_not_pass_is_called_once() -> None:
    made, call = fails(9, PermissionError("Access Denied"))
    with pytest.raises(PermissionError):
        retrying(call, "reading x")  # type: ignore[arg-type]
    assert len(made) == 1


def test_it_ends_with_the_last_error_and_says_once_that_it_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(retry.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    made, call = fails(10_000, ConnectionResetError("reset by peer"))
    with pytest.raises(ConnectionResetError):
        retrying(call, "reading s3://b/k", patience=300)  # type: ignore[arg-type]
    assert 250 < clock[0] <= 300
    assert len(made) > 15
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("reading s3://b/k: ConnectionResetError: reset by peer; trying again for up to ")


def test_the_time_allowed_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert retry.patience_s() == 300
    monkeypatch.setenv("VQA_TRAIN_RETRY_SECONDS", "7.5")
    assert retry.patience_s() == 7.5
    monkeypatch.setenv("VQA_TRAIN_RETRY_SECONDS", "soon")
    assert retry.patience_s() == 300
