import random

import numpy as np
import pytest
import torch

from tinymim.data.sampler import Draw, EpochSampler, InTurn
from tinymim.seeds import seeded, stream


def drawn(sampler: EpochSampler, epoch: int) -> list[Draw]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_epoch_sampler__order_is_a_function_of_seed_and_epoch():
    order = drawn(EpochSampler(50, seed=3), epoch=7)
    late = EpochSampler(50, seed=3)
    for epoch in range(7):
        drawn(late, epoch)
    torch.rand(5), np.random.rand(5), random.random()
    assert drawn(late, 7) == order
    indices = [draw.index for draw in order]
    assert indices != [draw.index for draw in drawn(late, 8)]
    assert indices != [draw.index for draw in drawn(EpochSampler(50, seed=4), 7)]
    assert indices != list(range(50))


def test_epoch_sampler__each_draw_carries_its_epoch():
    assert {draw.epoch for draw in drawn(EpochSampler(10, seed=0), epoch=4)} == {4}


def test_epoch_sampler__every_sample_once():
    assert sorted(draw.index for draw in EpochSampler(50, seed=0)) == list(range(50))


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_epoch_sampler__ranks_share_one_order_in_turn(world):
    order = drawn(EpochSampler(50, seed=1), epoch=2)
    ranks = [drawn(EpochSampler(50, 1, rank, world), epoch=2) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {50 // world}
    assert len(EpochSampler(50, 1, 0, world)) == 50 // world
    woven = [draw for together in zip(*ranks, strict=True) for draw in together]
    assert woven == order[: 50 // world * world]


@pytest.mark.parametrize(("world", "batch", "accumulated"), [(1, 12, 1), (2, 6, 1), (3, 2, 2), (1, 4, 3), (6, 1, 2)])
def test_epoch_sampler__steps_hold_the_same_samples_however_they_are_shared(world, batch, accumulated):
    step = [draw.index for draw in EpochSampler(50, seed=1)][:48]
    ranks = [list(EpochSampler(50, 1, rank, world, batch, accumulated)) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {48 // world}
    starts = range(0, 48 // world, batch)
    assert [draw.index for start in starts for rank in ranks for draw in rank[start : start + batch]] == step


def test_epoch_sampler__begins_in_the_middle_of_one_epoch_alone():
    sampler = EpochSampler(50, seed=1, batch_size=4)
    before = drawn(sampler, 3)
    sampler.begin(3, 5)
    assert list(sampler) == before[20:]
    assert len(sampler) == 48
    assert len(drawn(sampler, 4)) == 48


@pytest.mark.parametrize(("length", "world"), [(3, 2), (5, 2), (2, 1)])
def test_epoch_sampler__a_set_smaller_than_a_batch_is_one(length, world):
    assert [len(EpochSampler(length, 0, rank, world, 16, 4)) for rank in range(world)] == [length // world] * world


@pytest.mark.parametrize(("length", "world"), [(10, 1), (10, 3), (2, 4)])
def test_in_turn__each_sample_once_over_all_ranks(length, world):
    samplers = [InTurn(length, rank, world) for rank in range(world)]
    assert sorted(draw.index for sampler in samplers for draw in sampler) == list(range(length))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]


def test_in_turn__keeps_the_order():
    assert list(InTurn(3)) == [Draw(0, 0), Draw(0, 1), Draw(0, 2)]


def test_stream__differs_with_each_part_of_its_key():
    values = {key: stream(*key).random() for key in [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3), (3, 2, 1)]}
    assert len(set(values.values())) == len(values)
    assert stream(1, 2, 3).random() == values[1, 2, 3]


def everything() -> tuple[float, float, float]:
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_seeded__all_generators_follow_the_key():
    with seeded(1, 2, 3):
        first = everything()
    everything()
    with seeded(1, 2, 3):
        assert everything() == first
    with seeded(1, 2, 4):
        other = everything()
    assert all(a != b for a, b in zip(first, other, strict=True))


def interrupted() -> None:
    with seeded(5):
        everything()
        raise KeyError


def test_seeded__what_comes_after_is_as_if_it_had_not_been():
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = everything()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    with seeded(5):
        everything()
    assert everything() == expected
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    with pytest.raises(KeyError):
        interrupted()
    assert everything() == expected
