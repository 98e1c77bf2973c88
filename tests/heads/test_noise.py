"""Dropout's random bits: right share, no correlation between steps, streams, heads or rows; fixed by seed and step."""

import numpy as np
import pytest
import torch

from vqa_train.heads.noise import STREAMS, Noise

SEEDS = [11, 2**62 + 5, 12]


def at(step: int, seeds=SEEDS) -> Noise:
    noise = Noise(seeds)
    noise.plan(np.full((1, len(seeds)), step))
    return noise


def uniforms(step: int, stream: int, count: int = 4096) -> np.ndarray:
    return at(step).uniform(stream, len(SEEDS), count).double().numpy()


@pytest.mark.parametrize("drop", [0.0, 0.2, 0.5, 0.9, torch.tensor([0.0, 0.2, 0.9])])
def test_the_share_asked_for_is_dropped_and_the_mean_kept(drop):
    kept = at(3).keep(0, (3, 500, 80), drop)
    for model in range(3):
        p = float(drop[model]) if isinstance(drop, torch.Tensor) else drop
        mask = kept[model]
        # 40,000 draws: five standard deviations of a share.
        assert (mask == 0).double().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / 40_000) ** 0.5 + 1e-9)
        assert mask.max().item() == pytest.approx(1 / (1 - p))
        assert set(mask.unique().tolist()) <= {0.0, mask.max().item()}


def test_one_probability_for_all_and_the_same_one_per_head_give_the_same_mask():
    one, each = at(3).keep(1, (3, 20, 9), 0.3), at(3).keep(1, (3, 20, 9), torch.full((3,), 0.3))
    assert torch.equal(one > 0, each > 0)
    torch.testing.assert_close(one, each, rtol=1e-6, atol=0)


def test_draws_are_uniform():
    for step in (0, 1, 10**6):
        values = uniforms(step, 2, 64_000)
        assert values.min() >= 0
        assert values.max() < 1
        counts = np.histogram(values, bins=64, range=(0, 1))[0]
        expected = values.size / 64
        # Chi-square with 63 degrees of freedom: p = 1e-4 at 113.
        assert ((counts - expected) ** 2 / expected).sum() < 113


def test_the_lowest_bits_are_uniform_too():
    values = (uniforms(7, 0, 64_000) * 65536).astype(np.int64)
    counts = np.bincount((values & 63).ravel(), minlength=64)
    expected = values.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 113


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return abs(float(np.corrcoef(a.ravel(), b.ravel())[0, 1])) * a.size**0.5


def test_steps_streams_heads_and_neighbours_are_independent():
    base = uniforms(5, 0)
    others = [uniforms(6, 0), uniforms(5, 1), uniforms(4, STREAMS - 1), uniforms(6, STREAMS - 1), uniforms(5, 2)]
    # In units of the deviation of an independent sample's correlation: 4.5 is p = 7e-6.
    assert max(correlation(base, other) for other in others) < 4.5
    assert max(correlation(base[i], base[j]) for i, j in ((0, 1), (0, 2), (1, 2))) < 4.5
    for lag in (1, 2, 3, 32, 64, 2048):
        assert correlation(base[:, lag:], base[:, :-lag]) < 4.5


def test_pairs_of_draws_of_successive_steps_fill_the_square():
    one, two = uniforms(8, 0, 64_000), uniforms(9, 0, 64_000)
    counts = np.histogram2d(one.ravel(), two.ravel(), bins=8, range=[[0, 1], [0, 1]])[0]
    expected = one.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 113


def test_no_two_of_many_steps_streams_and_heads_share_their_bits():
    noise = Noise(SEEDS)
    noise.plan(np.arange(200)[:, None].repeat(3, axis=1))
    seen = set()
    for step in range(200):
        noise.at(step)
        for stream in (0, 1, STREAMS - 2, STREAMS - 1):
            seen |= {tuple(row) for row in noise.uniform(stream, 3, 8).tolist()}
    assert len(seen) == 200 * 4 * 3


def test_a_rows_mask_depends_neither_on_the_rows_after_it_nor_on_the_heads_beside_it():
    few, many = at(3).keep(0, (3, 5, 7), 0.4), at(3).keep(0, (3, 9, 7), 0.4)
    assert torch.equal(few, many[:, :5])
    alone = at(3, SEEDS[1:2]).keep(0, (1, 5, 7), 0.4)
    assert torch.equal(alone[0], few[1])


def test_each_head_stands_at_its_own_step_of_the_plan():
    noise = Noise(SEEDS)
    noise.plan(np.array([[4, 5, 6], [0, 5, 9]]))
    noise.at(1)
    got = noise.keep(0, (3, 4, 4), 0.5)
    for head, step in enumerate((0, 5, 9)):
        assert torch.equal(got[head], at(step).keep(0, (3, 4, 4), 0.5)[head])


def test_masks_are_those_of_the_seed_and_leave_torchs_state_alone():
    before = torch.get_rng_state()
    masks = [at(3).keep(0, (3, 4, 8), 0.5) for _ in range(2)]
    assert torch.equal(*masks)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(masks[0], at(3, [1, 2, 3]).keep(0, (3, 4, 8), 0.5))


def test_the_bits_are_these():
    # Worked out with Python's integers: SplitMix64 of the seed, step and stream, then MurmurHash3's finaliser.
    def key(number: int) -> int:
        state = (7 + 0x9E3779B97F4A7C15 * (3 * 64 + number)) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return (state ^ (state >> 31)) >> 32

    expected = []
    for word in range(4):
        bits = word * 0x9E3779B1 % 2**32 ^ key(2 * 5 + 1)
        bits = (bits ^ (bits >> 16)) * 0x85EBCA6B % 2**32 ^ key(2 * 5 + 2)
        bits = (bits ^ (bits >> 13)) * 0xC2B2AE35 % 2**32
        bits ^= bits >> 16
        expected += [((half + 2**15) % 2**16) / 2**16 for half in (bits & 0xFFFF, bits >> 16)]
    assert at(3, [7]).uniform(5, 1, 8)[0].tolist() == expected


@pytest.mark.parametrize("stream", [-1, STREAMS])
def test_a_stream_that_does_not_exist_is_an_error(stream):
    with pytest.raises(ValueError, match=f"stream {stream}"):
        Noise(SEEDS).uniform(stream, 3, 4)
