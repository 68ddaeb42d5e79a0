"""Batches by bucket: every clip every epoch, none more often than another, the same for any number of processes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenes.errors import InputError
from trainer.data.buckets import BucketSampler

shapes = st.lists(st.sampled_from([(1, 32, 32), (5, 32, 32), (9, 32, 48)]), min_size=1, max_size=25)
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**63 - 1)


@given(shapes, sizes, seeds, st.integers(0, 60))
def test_a_batch_is_full_and_of_one_shape(clips: list[tuple[int, int, int]], size: int, seed: int, number: int) -> None:
    batch = BucketSampler(clips, size, seed).batch(number)
    assert len(batch) == size and len({clips[place] for place in batch}) == 1


@given(shapes, sizes, seeds)
def test_every_clip_is_seen_in_every_epoch_and_none_more_often(clips: list[tuple[int, int, int]], size: int, seed: int) -> None:
    sampler = BucketSampler(clips, size, seed)
    seen: Counter[int] = Counter()
    for epoch in range(4):
        for number in range(sampler.batches_before(epoch), sampler.batches_before(epoch + 1)):
            assert sampler.epoch_of(number) == epoch
            seen.update(sampler.batch(number))
        for bucket in sampler.buckets.values():
            counts = [seen[place] for place in bucket]
            assert min(counts) >= epoch + 1 and max(counts) <= min(counts) + 1
            assert sum(counts) < (epoch + 1) * len(bucket) + size, "the clips of a batch are all that an epoch may be ahead"


@given(shapes, sizes, seeds, st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_processes_share_the_batches_of_one(
    clips: list[tuple[int, int, int]], size: int, seed: int, ranks: int, accumulation: int, step: int
) -> None:
    alone, together = BucketSampler(clips, size, seed), BucketSampler(clips, size, seed)
    whole = ranks * accumulation
    one = [alone.micro_batch(step * whole + k) for k in range(whole)]
    many = [together.micro_batch(step * accumulation + k, r, ranks) for k in range(accumulation) for r in range(ranks)]
    assert one == many


@given(shapes, sizes, seeds, st.permutations(range(12)))
def test_a_batch_does_not_depend_on_what_was_asked_before(
    clips: list[tuple[int, int, int]], size: int, seed: int, order: list[int]
) -> None:
    used = BucketSampler(clips, size, seed)
    assert {n: used.batch(n) for n in order} == {n: BucketSampler(clips, size, seed).batch(n) for n in range(12)}


def test_seeds_and_epochs_differ() -> None:
    clips = [(5, 32, 32)] * 40
    first, second = ([BucketSampler(clips, 1, seed).batch(n)[0] for n in range(80)] for seed in (0, 1))
    assert first != second
    assert first[:40] != first[40:] and sorted(first[:40]) == sorted(first[40:]) == list(range(40))


def test_buckets_take_turns() -> None:
    clips = [(1, 32, 32)] * 30 + [(5, 32, 32)] * 30
    order = [clips[BucketSampler(clips, 2, 5).batch(n)[0]] for n in range(30)]
    assert Counter(order) == {(1, 32, 32): 15, (5, 32, 32): 15}
    assert sum(a != b for a, b in pairwise(order)) > 5


def test_a_large_set_costs_no_more_than_its_indices() -> None:
    sampler = BucketSampler([(9, 512, 512)] * 150_000, 4, 0)
    assert sampler.epoch_of(10**9) == 10**9 * 4 // 150_000
    assert len(sampler.batch(10**9)) == 4


@pytest.mark.parametrize(("clips", "size", "words"), [([], 1, "there is no clip"), ([(1, 32, 32)], 0, "batch size 0")])
def test_impossible_batches_are_refused(clips: list[tuple[int, int, int]], size: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        BucketSampler(clips, size, 0)


@given(shapes, sizes, seeds, st.integers(2, 5), st.integers(1, 6))
def test_clips_of_a_scene_stay_together_and_are_seen_as_often(
    clips: list[tuple[int, int, int]], size: int, seed: int, together: int, scenes: int
) -> None:
    names = [f"scene-{place % scenes}" for place in range(len(clips))]
    sampler = BucketSampler(clips, size, seed, scenes=names, together=together)
    for shape, bucket in sampler.buckets.items():
        for turn in range(3):
            order = [names[bucket[index]] for index in sampler._draw_permutation(shape, turn)]
            assert Counter(order) == Counter(names[place] for place in bucket)
            runs = Counter(name for place, name in enumerate(order) if place == 0 or order[place - 1] != name)
            assert all(runs[name] <= -(-count // together) for name, count in Counter(order).items())
    again = BucketSampler(clips, size, seed, scenes=names, together=together)
    assert [sampler.batch(number) for number in range(9)] == [again.batch(number) for number in range(9)]


def test_scenes_together_need_names() -> None:
    with pytest.raises(InputError, match="scenes' names"):
        BucketSampler([(5, 32, 32)] * 4, 2, 0, together=2)
