"""The blocks that travel between the stages of a Ray run: one row per video, a JSON header and its arrays as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vqa_train.core.types import Clip, YuvFormat

_ALIGN = 64
# Without the arrays, which are kept beside them.
_CLIP_FIELDS = ("fps", "num_frames", "duration_s", "width", "height", "codec", "decoder", "key", "view")

Header = dict[str, Any]
Arrays = list[NDArray[Any]]


def pack(task: int, header: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> pa.Table:
    """One row: the number of its task, the header, and the arrays one after the other."""
    kinds, pieces, place = [], [], 0
    for array in arrays:
        padding = -place % _ALIGN
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        kinds.append([array.dtype.str, list(array.shape), place + padding])
        pieces += [np.zeros(padding, np.uint8), data]
        place += padding + data.nbytes
    # A video's frames alone are the usual case, and are not copied.
    whole = [piece for piece in pieces if piece.size]
    body = whole[0] if len(whole) == 1 else np.concatenate(whole) if whole else np.empty(0, np.uint8)
    offsets = np.array([0, body.nbytes], np.int64)
    column = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(body)])
    text = json.dumps({**header, "arrays": kinds}, ensure_ascii=True)
    return pa.table({"task": pa.array([task], pa.int64()), "header": [text], "data": column})


def unpack(table: pa.Table) -> Iterator[tuple[int, Header, Arrays]]:
    """Task, header and arrays of each row; the arrays are views of the table's memory and cannot be written."""
    for task, text, data in zip(table["task"], table["header"], table["data"], strict=True):
        header = json.loads(text.as_py())
        body = data.as_buffer()
        arrays = []
        for kind, shape, place in header.pop("arrays"):
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(body, np.dtype(kind), count, place).reshape(shape))
        yield task.as_py(), header, arrays


def pack_clips(clips: Mapping[str, Sequence[Clip]]) -> tuple[Header, Arrays]:
    """Header and arrays of the clips of one video, by feature set; frames that several share are packed once."""
    arrays: Arrays = []
    places: dict[tuple[Any, ...], int] = {}

    def place(array: NDArray[Any]) -> int:
        same = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if same not in places:
            places[same] = len(arrays)
            arrays.append(array)
        return places[same]

    header = {
        name: [
            {
                **{field: getattr(clip, field) for field in _CLIP_FIELDS},
                "yuv": vars(clip.yuv) if clip.yuv else None,
                "places": [place(clip.frames), place(clip.times), place(clip.indices)],
            }
            for clip in views
        ]
        for name, views in clips.items()
    }
    return {"clips": header}, arrays


def unpack_clips(header: Header, arrays: Arrays) -> dict[str, list[Clip]]:
    """Inverse of `pack_clips`."""
    found: dict[str, list[Clip]] = {}
    for name, views in header["clips"].items():
        found[name] = []
        for view in views:
            frames, times, indices = (arrays[place] for place in view["places"])
            facts = {field: view[field] for field in _CLIP_FIELDS}
            yuv = YuvFormat(**view["yuv"]) if view["yuv"] else None
            found[name].append(Clip(frames=frames, times=times, indices=indices, yuv=yuv, **facts))
    return found
