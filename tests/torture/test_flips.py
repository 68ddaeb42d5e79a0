"""One flipped bit anywhere: it is noticed, and nothing else than what was written is used.

Here a few flips of every kind of folder, with a fixed seed; `make torture` flips many (STOPDOWN_TORTURE=all).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flip_cases import READERS as DATASETS
from flip_cases_trainer import READERS as TRAINER
from flips import Reader, flip_all
from kills import wanted

SAMPLE, MANY = 4, 150
WANTED = os.environ.get("STOPDOWN_TORTURE", str(SAMPLE))
POINTS, PART = wanted(WANTED)
FLIPS = MANY if POINTS is None else POINTS
pytestmark = pytest.mark.timeout(600 if str(SAMPLE) == WANTED else 0)


CHOSEN = {reader.name: reader for reader in (*DATASETS, *TRAINER) if "STOPDOWN_TORTURE" in os.environ or not reader.long_only}


@pytest.mark.parametrize("reader", CHOSEN.values(), ids=CHOSEN.keys())
def test_one_flipped_bit_is_noticed_and_not_used(reader: Reader, tmp_path: Path) -> None:
    flips = min(FLIPS, FLIPS if reader.most is None else reader.most)
    tally = flip_all(reader, tmp_path, flips=flips, part=PART)
    print(tally.words())
    assert not tally.failures, "\n".join(tally.failures[:20])
    assert tally.flips == len(range(flips)[PART[0] - 1 :: PART[1]])
