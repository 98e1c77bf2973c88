"""Remembers what the backbones said of the references that were seen last: many videos may share one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Lock

from vqa_train.core.errors import MediaError
from vqa_train.pipelines.score.decode import state_of
from vqa_train.pipelines.score.features import Seen

_KEPT = 32


class References:
    """Features of references by path and state of the file; threads that ask for the same one look at it once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seen: OrderedDict[tuple[str, str | None, bool], Future[Seen]] = OrderedDict()

    def get(self, place: Path, timeline: bool, look: Callable[[], Seen]) -> Seen:
        """What was seen of the reference at `place`, by `look` where it is new.

        Raises:
            VqaError: what `look` raised, naming the reference; it is tried again the next time.
        """
        key = (str(place), state_of(place), timeline)
        with self._lock:
            mine = key not in self._seen
            future = self._seen.setdefault(key, Future())
            self._seen.move_to_end(key)
            while len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
        if mine:
            try:
                future.set_result(look())
            except BaseException as error:
                with self._lock:
                    self._seen.pop(key, None)
                future.set_exception(error)
        try:
            return future.result()
        except MediaError as error:
            raise MediaError(f"reference: {error.message}", hint=error.hint, reason=error.reason) from error
