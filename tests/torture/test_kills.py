"""SIGKILL at file events: nothing is lost, nothing doubled, nothing silently wrong, and a second run ends as a whole one does.

The same where an event fails: the disk is full, broken, or not to be written to; that is then said in one line.

Here at a few events of every command, drawn with a fixed seed; `make torture` kills at every one (STOPDOWN_TORTURE=all, a
number of events of each case, or k/n for the k-th part of n of all).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from kill_bucket import StoredRemotes, stored_remotes
from kill_cases import builds, commands, exports, stored
from kill_cases_trainer import made_of_adapters, runs, training
from kills import SERVERS, Case, Server, need_compiler, torture, wanted

SAMPLE = 2  # events of each case
WANTED = os.environ.get("STOPDOWN_TORTURE", str(SAMPLE))
POINTS, PART = wanted(WANTED)
ALL = (*commands(), *stored(), *exports(), *training(), *made_of_adapters(), *builds(), *runs())
LONG = "STOPDOWN_TORTURE" in os.environ
CASES = {case.name: case for case in ALL if LONG or not case.long_only}
pytestmark = pytest.mark.timeout(600 if str(SAMPLE) == WANTED else 0)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Return servers by name, started when they are first asked for."""
    need_compiler()
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    for server in started.values():
        server.close()


@pytest.fixture(scope="module")
def buckets() -> Iterator[Callable[[], StoredRemotes]]:
    """Return what starts the storage when it is first asked for."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(stored_remotes()))


class Servers(dict[str, Server]):
    """Servers that start when they are asked for."""

    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self._scratch = scratch

    def __missing__(self, name: str) -> Server:
        self[name] = Server(SERVERS[name], self._scratch / name)
        return self[name]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_kill_at_any_file_event_costs_nothing(
    case: Case, servers: dict[str, Server], buckets: Callable[[], StoredRemotes], tmp_path: Path
) -> None:
    bucket = buckets() if case.stored else None
    tally = torture(case, servers[case.server], tmp_path, points=POINTS, part=PART, bucket=bucket)
    print(tally.words())
    assert not tally.failures, "\n".join(tally.failures[:20])
    assert tally.kills > 0


BRIEF = ("commit", "gc", "push", "export lance", "adapter over another", "stages")  # in a sample, of one event each
FAILING = {name: case for name, case in CASES.items() if not case.stored and (LONG or name in BRIEF)}


@pytest.mark.parametrize("case", FAILING.values(), ids=FAILING.keys())
def test_a_file_event_that_fails_is_one_line_and_costs_nothing(case: Case, servers: dict[str, Server], tmp_path: Path) -> None:
    tally = torture(case, servers[case.server], tmp_path, points=POINTS if LONG else 1, part=PART, failing=True)
    print(tally.words())
    assert not tally.failures, "\n".join(tally.failures[:20])
    assert tally.kills > 0
