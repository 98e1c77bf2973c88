"""Inputs made ahead: in order, of the right window, and not overwritten while they are in use."""

import time

import numpy as np
import torch

from vqa_train.heads.base import standardise
from vqa_train.heads.batch import Batches
from vqa_train.heads.inputs import InputBuffers, ahead


def batches(source: torch.Tensor, places: torch.Tensor) -> Batches:
    """Steps (S, M, b) of rows of `source`."""
    steps, models, size = places.shape
    empty = torch.zeros(steps, models, size, 1)
    return Batches(
        source=source,
        standardised=False,
        places=places.view(steps, -1),
        target=empty,
        weight=empty,
        dataset=None,
        rows=torch.full((steps, models), float(size)),
    )


def test_every_input_of_a_window_is_made_before_the_next_window_is_asked_for():
    source = torch.zeros(4, 1)
    places = torch.arange(4).view(4, 1, 1)

    def windows():
        # As a reader does: the next window goes where the last one was.
        for window in range(3):
            source[:, 0] = torch.arange(4) + 10 * window
            yield batches(source, places)

    def make(batch: Batches, step: int) -> torch.Tensor:
        time.sleep(0.01)
        return batch.source[batch.places[step]].clone()

    found = [float(x) for _, _, x in ahead(windows(), make)]
    assert found == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert list(ahead(iter(()), make)) == []


def test_inputs_stay_as_they_are_while_the_next_are_made():
    rng = np.random.default_rng(0)
    source = torch.from_numpy(rng.normal(5, 3, size=(500, 7)).astype(np.float16))
    source[3, 2] = torch.nan
    mean, std = torch.full((2, 7), 5.0), torch.full((2, 7), 3.0)
    std[1] = 2.0
    buffers = InputBuffers(mean.unsqueeze(1), std.unsqueeze(1), 1.5, finite=False)
    places = torch.from_numpy(rng.integers(0, 500, size=(20, 2, 9)))
    count = 0
    for batch, step, x in ahead(iter([batches(source, places)]), buffers.make):
        # Time enough for the thread to run ahead as far as it may.
        time.sleep(0.002)
        raw = source[batch.places[step]].float().view(2, 9, 7)
        assert torch.equal(x, standardise(raw, mean, std, torch.ones(2, 7), 1.5))
        count += 1
    assert count == 20
