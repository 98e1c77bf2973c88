"""Buffers what an extraction gives for one feature set and commits it by count or age."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from vqa_train.core.errors import Reason
from vqa_train.core.types import Video
from vqa_train.pipelines.extract.config import ExtractConfig, SetReport
from vqa_train.store.rows import Failure, FeatureRow
from vqa_train.store.store import FeatureSet, FeatureStore

# Failures of the surroundings, not of the video's bytes: kept by path and looked at again in every run.
_BY_PATH = {
    Reason.MISSING_FILE,
    Reason.UNREADABLE,
    Reason.PATH_ESCAPE,
    Reason.CHECKSUM_MISMATCH,
    Reason.NO_PROMPT,
}


class SetWriter:
    """The rows and failures of one feature set on their way to the store.

    Attributes:
        set: where they go.
        report: counts so far.
        known: keys that had all their rows when the run began.
        failed_keys, failed_paths: reasons of standing failures by key, and by path where the key is not known.
    """

    def __init__(self, feature_set: FeatureSet, config: ExtractConfig, run_id: str) -> None:
        self.set = feature_set
        self.report = SetReport(name=feature_set.name)
        standing = feature_set.failures()
        self.known = feature_set.known_keys()
        self.failed_keys = {f.key: f.reason for f in standing if f.key is not None}
        self.failed_paths = {f.path: f.reason for f in standing if f.key is None}
        self._config = config
        self._run_id = run_id
        self._rows: list[FeatureRow] = []
        self._profile: Mapping[str, str] = {}
        self._done = 0
        self._failures: list[Failure] = []
        self._resolved: list[str] = []
        self._since = time.monotonic()

    def add(self, rows: Sequence[FeatureRow], profile: Mapping[str, str]) -> None:
        """Take the rows of one video or prompt, to be committed together."""
        self._rows.extend(rows)
        self._profile = profile
        self._done += 1
        self.flush_if_due()

    def fail(self, failure: Failure) -> None:
        """Take a failure; one that stands already, of the same path for the same reason, is not written twice."""
        self.report.failed[failure.reason] += 1
        if failure.key is not None or self.failed_paths.get(failure.path) != failure.reason:
            self._failures.append(failure)
        self.flush_if_due()

    def note_stored(self, failure: Reason | None = None) -> None:
        """Count a video whose rows, or whose failure, another process has committed."""
        if failure is None:
            self.report.done += 1
        else:
            self.report.failed[failure] += 1

    def resolve(self, path: str) -> None:
        """Note that a failure kept by path no longer stands."""
        if self.failed_paths.pop(path, None) is not None:
            self._resolved.append(path)

    def resolve_label(self, video_id: str) -> None:
        """Note that the label of `video_id` has its file."""
        if self.failed_paths.get(video_id) is Reason.LABEL_MISMATCH:
            self.resolve(video_id)

    def flush_if_due(self) -> None:
        """Commit when there are enough rows, or the oldest has waited long enough."""
        age = time.monotonic() - self._since
        if len(self._rows) + len(self._failures) >= self._config.shard_rows or age >= self._config.shard_seconds:
            self.flush()

    def flush(self) -> None:
        """Commit everything taken so far.

        What is being committed is let go of first: a flush that is interrupted and called again writes nothing twice.
        """
        rows, done, self._rows, self._done = self._rows, self._done, [], 0
        if rows:
            self.set.append(rows, profile=self._profile, run_id=self._run_id)
            self.report.done += done
        failures, self._failures = self._failures, []
        if failures:
            self.set.add_failures(failures, run_id=self._run_id)
        resolved, self._resolved = self._resolved, []
        if resolved:
            self.set.resolve_failures(resolved, run_id=self._run_id)
        self._since = time.monotonic()


def kept_by_path(reason: Reason) -> bool:
    """Whether a failure is kept by path, because it says nothing about the video's bytes."""
    return reason in _BY_PATH


def failure_of(video: Video, reason: Reason, message: str) -> Failure:
    """The failure row of a video; `reason` decides whether it is kept by key or by path."""
    # A failure of the surroundings says nothing about the bytes, so it is kept by path.
    key = None if kept_by_path(reason) else video.sha256
    return Failure(key=key, id=video.id, path=video.path, reason=reason, message=message)


def open_set(
    store: FeatureStore, backbone: Any, config: ExtractConfig, run_id: str, writers: list[SetWriter]
) -> SetWriter:
    """A writer for the feature set of a backbone or text encoder, made where it is not there; joins `writers`.

    Raises:
        StoreError: the store cannot be read or written.
    """
    writer = SetWriter(store.create_set(backbone.spec, license=backbone.license), config, run_id)
    writers.append(writer)
    return writer
