"""Faults at the store's boundary: whatever goes wrong there, a build ends complete, or with one clear line and resumable.

`benchmarks/store_faults.py` runs ten thousand of these schedules.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fault_schedule import Schedule, run_schedule
from store_simulator import Faults, Scheduler, SimulatedRemote, Storage
from virtual_farm import keys, virtual

from generator.errors import RemoteError
from generator.farm.finish import FinishReport, finish_target
from generator.farm.shards import Shard
from generator.remotes.base import record_file

SEEDS = 100
PATH = record_file("0" * 64)


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_random_schedules_of_a_small_build_end_complete_or_can_be_resumed(tmp_path: Path, first: int) -> None:
    met: set[str] = set()
    for seed in range(first, first + 20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        met |= run_schedule(seed, folder).met.keys()
    assert met == {"before", "after", "late", "cut", "torn", "twice", "kill", "full", "revoked"}  # none was left out


@pytest.mark.parametrize("seed", [7286, 7631])  # both tear a record after its last byte, which leaves it whole
def test_an_error_after_the_last_byte_leaves_a_record_that_counts(tmp_path: Path, seed: int) -> None:
    assert run_schedule(seed, tmp_path).met["torn"]


def test_one_seed_gives_one_schedule(tmp_path: Path) -> None:
    for seed in (3, 11):
        outcomes = []
        for number in range(2):
            folder = tmp_path / f"{seed}-{number}"
            folder.mkdir()
            outcomes.append(run_schedule(seed, folder))
        assert outcomes[0] == outcomes[1]


def test_without_faults_nothing_fails_and_nothing_is_repaired(tmp_path: Path) -> None:
    for seed in range(5):
        schedule = Schedule(seed, tmp_path / str(seed), Faults(delay_s=20.0), salted=False)
        schedule.folder.mkdir()
        with virtual(schedule.scheduler, listing=False):
            schedule.round(schedule.faults, [Shard(number, 3) for number in (1, 2, 3, 1, 2, 3)], machines=6)
            [report] = schedule.finish(schedule.faults)
            schedule.check_end(report)
        assert not schedule.errors and not schedule.kills


def test_a_record_mended_while_a_finish_looks_at_it_is_not_set_aside(tmp_path: Path) -> None:
    schedule = Schedule(0, tmp_path, Faults(), salted=False)
    path = record_file(next(iter(keys().values())))
    with virtual(schedule.scheduler, listing=True):
        schedule.round(Faults(), [Shard(1, 1)], machines=1)
        whole = schedule.storage.files[path]
        schedule.storage.files[path] = whole[:-9]
        schedule.storage.torn.add(path)
        remote = schedule.remote(Faults())

        class Mended(SimulatedRemote):
            """A way to the store on which the record is mended after it was read, while the objects are listed."""

            def sizes(self, folder: str) -> dict[str, int]:
                if folder.startswith("objects/") and path in self.storage.torn:
                    self.storage.overwrite(path, whole)
                return super().sizes(folder)

        remote.__class__ = Mended
        reports: list[FinishReport] = []
        schedule.scheduler.start(lambda: reports.append(finish_target(schedule.target(remote), message="a version")))
        schedule.scheduler.run()
    [report] = reports
    assert not report.complete and len(report.missing) == 1
    assert schedule.storage.files[path] == whole


def test_the_simulator_has_the_faults_that_it_names() -> None:
    storage, scheduler = Storage(), Scheduler(random.Random(0))

    def client(**faults: float) -> SimulatedRemote:
        return SimulatedRemote(storage, scheduler, "client", Faults(**faults), "sim://store")

    assert client().put(PATH, b"first") and not client().put(PATH, b"second")
    assert not client(twice=1.0).put(PATH, b"third") and client().read(PATH) == b"first"
    storage.files.clear()
    for kind, left in (("before", None), ("cut", None), ("after", b"data")):
        with pytest.raises(RemoteError):
            client(**{kind: 1.0}).put(PATH, b"data")
        assert client().read(PATH) == left
    storage.files.clear()
    assert not client(twice=1.0).put(PATH, b"data")  # its own first delivery was there
    with pytest.raises(AssertionError, match="overwritten"):
        storage.overwrite(PATH, b"other")
    for size, torn in ((3, {PATH}), (4, set())):
        storage.files.clear()
        storage.tear(PATH, b"data", size)
        assert storage.files[PATH] == b"data"[:size] and storage.torn == torn
        storage.torn.clear()
    storage.revoked = True
    with pytest.raises(RemoteError, match="credentials") as caught:
        client().read(PATH)
    assert caught.value.lasting
    storage.revoked, storage.full = False, True
    with pytest.raises(RemoteError, match="no space"):
        client().put(PATH, b"data")
    assert client().read(PATH) == b"data"
