"""A backbone whose network takes batches of equally large views, on any device; a batch that does not fit is halved."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vqa_train.backbones.base import Compute, VideoBackbone
from vqa_train.backbones.colour import planes_to_rgb
from vqa_train.backbones.tuning import KERNELS, fastest_attention, fastest_batch
from vqa_train.core.errors import DeviceError, MediaError, Reason, UsageError
from vqa_train.core.types import Clip

Row = dict[str, NDArray[np.float32]]

# How torch begins the message of an error after which a GPU's context is lost.
_DEVICE_FAILURES = ("CUDA error", "CUDA driver error", "cuDNN error", "CUBLAS_STATUS")


@dataclass(frozen=True)
class Staged:
    """Views of one clip on the device; `ready` is the CUDA event after which they may be read."""

    views: tuple[Tensor, ...]
    ready: torch.cuda.Event | None = None


class BatchedBackbone(VideoBackbone):
    """Frames become views of one size per clip (`views`), and the network takes many clips' views at once (`encode`).

    On a GPU `stage` may be called from other threads than `run`: uploads and views then overlap with the network,
    each thread on a stream of its own.

    Attributes:
        default_batch: clips per forward where nothing else was asked for and nothing can be measured.
        flops_per_clip: floating-point operations of `encode` for one clip (a multiplication and an addition are two);
            0 where not known.
    """

    default_batch: int = 1
    flops_per_clip: float = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._compute = Compute()
        self._batch = self.default_batch
        self._attention: SDPBackend | None = None
        self._network: Callable[..., tuple[Tensor, ...]] = self.encode
        self._streams = threading.local()

    @abstractmethod
    def views(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The network's inputs for one prepared clip, without a batch dimension, on the device of `inputs`.

        Shapes do not depend on the clip. uint8 where the values are grey levels: normalisation belongs to `encode`.
        """

    @abstractmethod
    def encode(self, *views: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `spec` for a batch of views, float32, each with the batch dimension first."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `spec`, in order, for one prepared clip; float32 without a batch dimension."""
        return tuple(output[0] for output in self.encode(*(view[None] for view in self.views(*inputs))))

    @property
    def batch_size(self) -> int:
        """Clips per forward now; smaller after a batch did not fit into memory."""
        return self._batch

    def configure(self, compute: Compute) -> None:
        """Move to a device and choose how to compute; on a GPU attention kernel and batch are found by timing.

        Raises:
            UsageError: float32 of a backbone whose weights have been rounded to bfloat16 before.
        """
        if self._compute.precision == "bfloat16" and compute.precision != "bfloat16":
            raise UsageError(
                f"backbone {self.spec.backbone!r} has bfloat16 weights by now", hint="build it again for float32"
            )
        self._compute = compute
        self.to(device=compute.device)
        if compute.precision == "bfloat16":
            # Autocast would round the same weights anew in every forward; what it computes in float32 stays as it is.
            for module in self.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                    module.to(torch.bfloat16)
        self._batch = compute.batch or self.default_batch
        self._attention = None
        self._network = torch.compile(self.encode) if compute.compile else self.encode
        if torch.device(compute.device).type == "cuda":
            self._attention = fastest_attention(lambda kernel: self._trial(1, kernel))
            if not compute.batch:
                self._batch = fastest_batch(lambda size: self._trial(size, self._attention))

    def numerics(self) -> dict[str, str]:
        """How the features are computed now, for the numerics profile."""
        device = self._compute.device
        if torch.device(device).type == "cuda":
            device = f"cuda ({torch.cuda.get_device_name(device)})"
        found = {"device": device, "precision": self._compute.precision}
        if self._attention is not None:
            found["attention"] = self._attention.name.lower()
        return {**found, "compiled": "yes"} if self._compute.compile else found

    @torch.inference_mode()
    def stage(self, clip: Clip) -> Staged:
        """Prepare a clip, bring it to the device and cut its views.

        Raises:
            MediaError: the clip is not what the backbone takes.
            DeviceError: the device failed.
        """
        prepared = self._prepared(clip)
        device = torch.device(self._compute.device)
        with self._watched():
            if device.type != "cuda":
                return Staged(self._views(clip, [part.to(device) for part in prepared]))
            if not hasattr(self._streams, "own"):
                self._streams.own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream: torch.cuda.Stream = self._streams.own
            with torch.cuda.stream(stream):
                views = self._views(clip, [part.pin_memory().to(device, non_blocking=True) for part in prepared])
                return Staged(views, stream.record_event())

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell a device that failed, after which every clip would, from a clip that cannot be computed."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not any(sign in str(error) for sign in _DEVICE_FAILURES):
                raise
            first = str(error).strip().splitlines()[0]
            raise DeviceError(
                f"device {self._compute.device!r} failed while computing {self.spec.backbone!r}: {first}",
                hint="what was committed is kept; the same command goes on from there, in a new process",
            ) from error

    def _prepared(self, clip: Clip) -> tuple[Tensor, ...]:
        """The arguments of `forward`, with planes in the place of the frames where the clip has planes."""
        if clip.yuv is None:
            return self.prepare(clip)
        # `prepare` looks at number, size and type of the frames: a picture of that size that takes no memory will do.
        count, rows, width = clip.frames.shape
        shape = (count, rows * 2 // 3, width, 3)
        blank = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape, (0, 0, 0, 0))
        _, *others = self.prepare(replace(clip, frames=blank, yuv=None))
        return (torch.from_numpy(clip.frames if clip.frames.flags.writeable else clip.frames.copy()), *others)

    def _views(self, clip: Clip, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        frames, *others = parts
        return self.views(frames if clip.yuv is None else planes_to_rgb(frames, clip.yuv), *others)

    @torch.inference_mode()
    def run(self, staged: Sequence[Staged]) -> list[Row]:
        """Features of staged clips; in one forward as far as `batch_size` and memory allow.

        Raises:
            MediaError: OUT_OF_MEMORY, a single clip does not fit.
            DeviceError: the device failed.
        """
        rows: list[Row] = []
        waiting = list(staged)
        while waiting:
            now = waiting[: self._batch]
            try:
                with self._watched():
                    rows += self._forward(now)
            except torch.OutOfMemoryError as error:
                if len(now) == 1:
                    raise MediaError(
                        f"backbone {self.spec.backbone!r}: one clip does not fit into the memory of "
                        f"{self._compute.device!r}",
                        hint="use a device with more memory, or --precision bfloat16",
                        reason=Reason.OUT_OF_MEMORY,
                    ) from error
                self._batch = len(now) // 2
                continue
            waiting = waiting[len(now) :]
        return rows

    def extract(self, clips: Sequence[Clip]) -> list[Row]:
        """Features of each clip by output name; float32 of the shapes in `spec`."""
        rows: list[Row] = []
        for start in range(0, len(clips), self._batch):
            rows += self.run([self.stage(clip) for clip in clips[start : start + self._batch]])
        return rows

    def _forward(self, staged: Sequence[Staged]) -> list[Row]:
        for item in staged:
            if item.ready is not None:
                here = torch.cuda.current_stream(item.views[0].device)
                here.wait_event(item.ready)
                for view in item.views:
                    view.record_stream(here)
        batch = [torch.stack(parts) for parts in zip(*(item.views for item in staged), strict=True)]
        arrays = [output.float().cpu().numpy() for output in self._computed(batch, self._attention)]
        names = [output.name for output in self.spec.outputs]
        return [{n: a[i] for n, a in zip(names, arrays, strict=True)} for i in range(len(staged))]

    def _computed(self, batch: Sequence[Tensor], attention: SDPBackend | None) -> tuple[Tensor, ...]:
        compute = self._compute
        kind = torch.device(compute.device).type
        if kind == "cpu" and compute.threads:
            # Every thread of this process that runs OpenMP regions has a number of its own.
            torch.set_num_threads(compute.threads)
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=compute.precision == "bfloat16"))
            if attention is not None:
                # The others follow for what the chosen one cannot do, such as a single query.
                order = [attention, *(kernel for kernel in KERNELS if kernel is not attention)]
                stack.enter_context(sdpa_kernel(order, set_priority=True))
            return self._network(*batch)

    @torch.inference_mode()
    def _trial(self, size: int, attention: SDPBackend | None) -> None:
        """One forward of `size` clips on the device, waited for."""
        example = self.views(*(part.to(self._compute.device) for part in self.onnx_example()))
        self._computed([part.expand(size, *part.shape).contiguous() for part in example], attention)
        torch.cuda.synchronize(self._compute.device)
