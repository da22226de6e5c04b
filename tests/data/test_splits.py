import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from petseg_lightning.data.splits import PADDING, EpochSampler, stratified_folds, stratified_holdout

GROUPS = [name for name, size in {"a": 13, "b": 16, "c": 11, "d": 50, "e": 3, "f": 1}.items() for _ in range(size)]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.29, 0.5, 0.9])
@pytest.mark.parametrize("groups", [GROUPS, GROUPS[::-1], ["x"] * 100, list("abcdefghij")], ids=len)
def test_a_holdout_has_its_size_and_every_group_its_share(groups, fraction):
    held_out = stratified_holdout(groups, fraction, seed=0)
    assert len(held_out) == round(fraction * len(groups))
    assert held_out == sorted(set(held_out))
    assert set(held_out) <= set(range(len(groups)))
    taken = Counter(groups[i] for i in held_out)
    for group, size in Counter(groups).items():
        assert abs(taken[group] - fraction * size) < 1


def test_the_largest_remainders_give_one_more():
    groups = ["a"] * 13 + ["b"] * 16 + ["c"] * 11  # shares of a tenth: 1.3, 1.6, 1.1
    assert Counter(groups[i] for i in stratified_holdout(groups, 0.1, 3)) == {"a": 1, "b": 2, "c": 1}


def test_a_holdout_is_a_function_of_its_arguments():
    first = stratified_holdout(GROUPS, 0.3, 7)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    assert stratified_holdout(GROUPS, 0.3, 7) == first
    assert stratified_holdout(GROUPS, 0.3, 8) != first


def test_a_holdout_never_changes():
    assert stratified_holdout(GROUPS, 0.1, 0) == [10, 17, 18, 35, 45, 47, 71, 77, 81]


def test_every_member_of_a_group_can_be_held_out():
    chosen = {i for seed in range(60) for i in stratified_holdout(["a"] * 6 + ["b"] * 4, 0.5, seed)}
    assert chosen == set(range(10))


@pytest.mark.parametrize("num_folds", [2, 5, 94])
def test_folds_and_the_groups_in_them_differ_by_one_at_most(num_folds):
    folds = stratified_folds(GROUPS, num_folds, seed=0)
    sizes = np.bincount(folds, minlength=num_folds)
    assert sizes.sum() == len(GROUPS)
    assert np.ptp(sizes) <= 1
    for group in set(GROUPS):
        assert np.ptp(np.bincount(folds[np.array(GROUPS) == group], minlength=num_folds)) <= 1


def test_folds_are_a_random_function_of_their_arguments():
    first = stratified_folds(GROUPS, 5, 7)
    assert np.array_equal(stratified_folds(GROUPS, 5, 7), first)
    assert not np.array_equal(stratified_folds(GROUPS, 5, 8), first)
    assert len(stratified_folds([], 5, 7)) == 0
    assert {stratified_folds(GROUPS, 5, seed)[0] for seed in range(60)} == set(range(5))


def indices(sampler: EpochSampler) -> list[int]:
    return [index for _, index in sampler]


def test_every_epoch_is_a_permutation_of_its_own():
    sampler = EpochSampler(50, shuffle=True, seed=3)
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        assert {e for e, _ in sampler} == {epoch}
        epochs.append(indices(sampler))
        assert sorted(epochs[-1]) == list(range(50))
    assert len(set(map(tuple, [*epochs, range(50)]))) == 5
    resumed = EpochSampler(50, shuffle=True, seed=3)
    resumed.set_epoch(2)
    assert indices(resumed) == epochs[2]
    assert indices(EpochSampler(50, shuffle=True, seed=4)) != epochs[0]


def test_evaluation_is_in_order_whatever_the_epoch():
    sampler = EpochSampler(5, shuffle=False, seed=1)
    sampler.set_epoch(3)
    assert list(sampler) == [(3, i) for i in range(5)]


@pytest.mark.parametrize(("num_samples", "world_size"), [(12, 3), (11, 2), (10, 4), (2, 5), (1, 3)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_an_epoch(num_samples, world_size, shuffle):
    ranks = []
    for rank in range(world_size):
        sampler = EpochSampler(num_samples, shuffle=shuffle, seed=1, rank=rank, world_size=world_size)
        sampler.set_epoch(2)
        ranks.append(indices(sampler))
        assert len(sampler) == len(ranks[-1]) == -(-num_samples // world_size)
    whole = EpochSampler(num_samples, shuffle=shuffle, seed=1)
    whole.set_epoch(2)
    dealt = [index for turn in zip(*ranks, strict=True) for index in turn]
    assert dealt[:num_samples] == indices(whole)
    padding = dealt[num_samples:]
    if shuffle:
        assert padding == [dealt[i % num_samples] for i in range(len(padding))]
    else:
        assert padding == [PADDING] * len(padding)


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_order_of_a_million_takes_little_memory(shuffle):
    sampler = EpochSampler(1_000_000, shuffle=shuffle)
    tracemalloc.start()
    try:
        next(iter(sampler))
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20  # int64 alone is 8 MB, as a list it is 40 MB
    finally:
        tracemalloc.stop()
