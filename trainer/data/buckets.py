"""Which clips stand in which batch: a pure function of seed and batch number, so that a run can go on from anywhere.

Clips of equal (frames, height, width) form a bucket, and a batch comes from one bucket. A bucket reads its clips as an endless
row of permutations, one after the other; the batch that reaches over the end of one permutation is completed from the next,
which then goes on behind it. So nothing is dropped, and at any batch the clips of a bucket have been seen equally often but for
one. An epoch is the batches by which every clip of every bucket is seen once more, in a shuffled order of buckets.

With `together` above 1, a permutation is of blocks: the clips of each scene, in a new order every time, in nearly equal blocks
of at most so many. So clips of a scene are neighbours and nearly always in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scenes.errors import InputError

Shape = tuple[int, int, int]  # frames, height, width

_CLIPS, _ORDER = 0, 1  # what a random stream is for


class BucketSampler:
    """The batches of an endless run over clips of given shapes."""

    def __init__(
        self, shapes: Sequence[Shape], batch_size: int, seed: int, *, scenes: Sequence[str] = (), together: int = 1
    ) -> None:
        """`scenes` are the clips' scenes, needed where `together` is above 1."""
        if not shapes:
            raise InputError("there is no clip to make batches of; build more scenes")
        if batch_size < 1:
            raise InputError(f"batch size {batch_size} is impossible; give 1 or more")
        if together < 1 or (together > 1 and len(scenes) != len(shapes)):
            raise InputError(
                f"{together} clips of a scene together, of {len(shapes)} clips and {len(scenes)} scenes' names, is not possible"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.together = together
        self.scenes = tuple(scenes)
        members: dict[Shape, list[int]] = {}
        for position, shape in enumerate(shapes):
            members.setdefault(shape, []).append(position)
        self.buckets: Mapping[Shape, tuple[int, ...]] = {shape: tuple(members[shape]) for shape in sorted(members)}
        self._sizes = np.array([len(bucket) for bucket in self.buckets.values()], dtype=np.int64)
        # Pure functions of their arguments, remembered because neighbouring batches ask for the same ones.
        self._permutation = lru_cache(maxsize=2 * len(self.buckets) + 2)(self._draw_permutation)
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    def micro_batch(self, micro_step: int, rank: int = 0, ranks: int = 1) -> tuple[int, ...]:
        """Return the positions of a micro-step's clips for one of `ranks` processes.

        All processes of a micro-step take consecutive batches, so n processes with accumulation k see in an optimizer step
        what one process with accumulation n k sees.
        """
        return self.batch(micro_step * ranks + rank)

    def batch(self, number: int) -> tuple[int, ...]:
        """Return the positions of the clips of batch `number`, from 0."""
        epoch = self.epoch_of(number)
        bucket, index = self._epoch(epoch)[number - self.batches_before(epoch)]
        shape = tuple(self.buckets)[bucket]
        clips = self.buckets[shape]
        first = int(index) * self.batch_size
        places = range(first, first + self.batch_size)
        return tuple(clips[int(self._permutation(shape, place // len(clips))[place % len(clips)])] for place in places)

    def batches_before(self, epoch: int) -> int:
        """Return the number of batches of all epochs before `epoch`."""
        return int((-(-epoch * self._sizes // self.batch_size)).sum())

    def epoch_of(self, number: int) -> int:
        """Return the epoch, from 0, that a batch belongs to."""
        low, high = 0, 1
        while self.batches_before(high) <= number:
            high *= 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.batches_before(middle) <= number else (low, middle)
        return low

    def _draw_permutation(self, shape: Shape, turn: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, _CLIPS, *shape, turn])
        order = rng.permutation(len(self.buckets[shape]))
        if self.together == 1:
            return order
        by_scene: dict[str, list[int]] = {}
        for place in order.tolist():
            by_scene.setdefault(self.scenes[self.buckets[shape][place]], []).append(place)
        blocks = [
            block for places in by_scene.values() for block in np.array_split(places, math.ceil(len(places) / self.together))
        ]
        return np.concatenate([blocks[index] for index in rng.permutation(len(blocks))]).astype(np.int64)

    def _draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Return the shuffled batches of an epoch, each as (bucket, batch of that bucket)."""
        start, end = (-(-turn * self._sizes // self.batch_size) for turn in (epoch, epoch + 1))
        batches = [(bucket, index) for bucket in range(len(start)) for index in range(start[bucket], end[bucket])]
        order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(batches))
        return np.array(batches, dtype=np.int64).reshape(-1, 2)[order]
