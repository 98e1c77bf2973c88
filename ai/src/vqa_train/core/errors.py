"""Exceptions that own their message, the reason codes of failed inputs, and the exit codes of the commands."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    GATE_FAILED = 3
    SOME_INPUTS_FAILED = 4


class Reason(StrEnum):
    """Why an input gave no feature (stored in failures/*.jsonl) or why a command stopped."""

    MISSING_FILE = "missing_file"
    UNREADABLE = "unreadable"
    EMPTY_FILE = "empty_file"
    PATH_ESCAPE = "path_escape"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    DECODE_ERROR = "decode_error"
    TRUNCATED = "truncated"
    NO_VIDEO_STREAM = "no_video_stream"
    TOO_SHORT = "too_short"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    CRASH = "crash"
    OUT_OF_MEMORY = "oom"
    NO_PROMPT = "no_prompt"
    NO_REFERENCE = "no_reference"
    BACKBONE_ERROR = "backbone_error"
    NON_FINITE = "non_finite"
    LABEL_MISMATCH = "label_mismatch"


_MAX_CHARACTERS = 2000


class VqaError(Exception):
    """An error that a user can act on: one line that names the input, what was expected and got, and a mend.

    Args:
        message: names the input, says what was expected and what was found.
        hint: how to mend it (a command or an edit); appended after a dash.
        reason: code for failure rows, where one applies.
    """

    exit_code: ExitCode = ExitCode.ERROR

    def __init__(self, message: str, *, hint: str | None = None, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason

    def __str__(self) -> str:
        # What a hostile file holds may stand in a message: it is cut, and the hint stays.
        message = self.message if len(self.message) <= _MAX_CHARACTERS else f"{self.message[:_MAX_CHARACTERS]} ..."
        text = f"{message} - {self.hint}" if self.hint else message
        return " ".join(text.split())

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would be lost when a worker process sends the error back.
        return _rebuild, (type(self), self.message, self.hint, self.reason)


def _rebuild(cls: type[VqaError], message: str, hint: str | None, reason: Reason | None) -> VqaError:
    return cls(message, hint=hint, reason=reason)


class UsageError(VqaError):
    """Arguments that contradict each other or name something that does not exist (exit code 2)."""

    exit_code = ExitCode.USAGE


class GateFailedError(VqaError):
    """A quality gate was run and failed (exit code 3)."""

    exit_code = ExitCode.GATE_FAILED


class ConfigError(VqaError):
    """A YAML or JSON file that does not follow its schema."""


class ManifestError(VqaError):
    """A dataset manifest that is malformed or disagrees with the files."""


class LabelError(VqaError):
    """A label table that cannot be read as its manifest says."""


class MediaError(VqaError):
    """A video that cannot be read; `reason` says why."""


class StoreError(VqaError):
    """A feature store that is damaged, missing or does not hold what was asked for."""


class WeightsError(VqaError):
    """Backbone weights that are missing, do not match their hash, or do not fit the network."""


class ModelError(VqaError):
    """An ONNX model, sidecar or registry entry that does not match what it claims."""


class RunError(VqaError):
    """A run folder that is missing, incomplete or would be overwritten."""


class DependencyError(VqaError):
    """An optional package that a command needs is not installed."""


class DeviceError(VqaError):
    """The device that computes has failed: no fault of any video, and nothing more can be computed on it."""
