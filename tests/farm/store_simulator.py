"""A seeded simulator of the store at its boundary, and of the clients that share it: errors, delays, kills, in virtual time.

`Storage` is what lies in the store. `SimulatedRemote` is one client's way to it, with the faults that networks, disks and
services have. `Scheduler` interleaves clients at every request and every sleep; the code of a client runs as it is, in a
greenlet of its own, and one seed gives one schedule. Nothing here waits: the clock is a number.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from greenlet import getcurrent, greenlet

from generator.errors import RemoteError
from generator.remotes.base import checked_path
from generator.remotes.retry import Retry

Result = TypeVar("Result")

# What may be written anew: references, which are swapped, and heartbeats, which are overwritten. All else stays.
MUTABLE = ("head.json", "tags/", "farm/", "farm.json")
CUT = "cut/"  # where the part of an upload that was cut off lies: no listing and no read shows it

# References and versions are written whole or not at all.
TEARABLE = ("objects/", "records/", "plan.json", "plan/", "farm.json")


class Killed(BaseException):
    """A client ended as by kill -9: it says nothing more to the store, whatever its cleanup tries."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How often a request meets a fault (shares of all requests), and the longest delay of a request or an answer, seconds."""

    before: float = 0.0  # an error, and nothing was done
    after: float = 0.0  # an error, and it was done: the answer was lost
    late: float = 0.0  # an error (out of time), and it is done some time later
    cut: float = 0.0  # an upload is cut: an error, a part lies where nobody looks
    torn: float = 0.0  # an upload is cut: an error, a part (or all of it) lies in the place of the file (where there was none)
    twice: float = 0.0  # the answer was lost and the client's library sends the request again
    kill: float = 0.0  # the client dies, before or after the effect
    delay_s: float = 0.0

    @property
    def kinds(self) -> tuple[tuple[str, float], ...]:
        """The faults by name, with their shares."""
        names = ("before", "after", "late", "cut", "torn", "twice", "kill")
        return tuple((name, getattr(self, name)) for name in names)


class Scheduler:
    """Virtual time, and the greenlets that wait in it; of those that wake at one instant, the seed says which goes first."""

    def __init__(self, rng: random.Random) -> None:
        self.now_s = 0.0
        self._rng = rng
        self._waiting: list[tuple[float, float, int, greenlet]] = []
        self._count = 0
        self._hub = getcurrent()
        self._thread = threading.get_ident()

    def start(self, action: Callable[[], object], *, after_s: float = 0.0) -> None:
        """Run an action beside the others; it may wait. What it raises comes out of `run`."""
        self._push(after_s, greenlet(action, parent=self._hub))

    def wait(self, seconds: float) -> None:
        """Let others go on for some virtual seconds; outside an action, the time alone goes on, in another thread nothing."""
        if self.elsewhere():
            return
        current = getcurrent()
        if current is self._hub:
            assert not self._waiting, "others wait: what waits for them must be an action"
            self.now_s += max(0.0, seconds)
            return
        self._push(seconds, current)
        self._hub.switch()

    def elsewhere(self) -> bool:
        """Return whether this is another thread than the simulation's."""
        return threading.get_ident() != self._thread

    def clock_s(self) -> float:
        """Return the virtual time, for code that takes a clock."""
        return self.now_s

    def run(self) -> None:
        """Run until nobody waits."""
        while self._waiting:
            wake_s, _, _, sleeper = heapq.heappop(self._waiting)
            self.now_s = max(self.now_s, wake_s)
            sleeper.switch()

    def _push(self, seconds: float, sleeper: greenlet) -> None:
        self._count += 1
        entry = (self.now_s + max(0.0, seconds), self._rng.random(), self._count, sleeper)
        heapq.heappush(self._waiting, entry)


@dataclass
class Storage:
    """What lies in the store, and its state: full, or refusing the credentials. Counts requests and faults."""

    files: dict[str, bytes] = field(default_factory=dict)
    torn: set[str] = field(default_factory=set)
    full: bool = False
    revoked: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)

    def put(self, path: str, data: bytes) -> bool:
        """Write a file where there is none."""
        if path in self.files:
            return False
        self.files[path] = data
        return True

    def tear(self, path: str, data: bytes, size: int) -> None:
        """Leave the first bytes of a file where there is none, as a store without atomic writes does.

        The error may come after the last byte: then the file is whole, and as final as any other.
        """
        if path in self.files or not path.startswith(TEARABLE):
            return
        self.files[path] = data[:size]
        if size < len(data):
            self.torn.add(path)

    def remove(self, path: str) -> None:
        """Remove a file, by the hand of an operator."""
        self.torn.discard(path)
        del self.files[path]

    def overwrite(self, path: str, data: bytes) -> None:
        """Write a file whatever lies there; only what may change, or was torn (and, emptied, is set aside but not mended)."""
        assert path in self.torn or path.startswith(MUTABLE), f"{path} was overwritten: its first bytes are to stay"
        self.files[path] = data
        if data:
            self.torn.discard(path)

    def under(self, folder: str) -> dict[str, int]:
        """Return sizes by path under a folder."""
        prefix = f"{folder.removesuffix('/')}/"
        return {path: len(data) for path, data in self.files.items() if path.startswith(prefix)}

    def visible(self) -> dict[str, bytes]:
        """Return the files that a reader can see."""
        return {path: data for path, data in self.files.items() if not path.startswith(CUT)}


class SimulatedRemote:
    """One client's way to the storage; implements `generator.remotes.base.Remote`.

    A client may read in threads of its own. Such a read takes no virtual time, and its fault is drawn from the path and how
    often it was asked for, so that one seed still gives one schedule.
    """

    def __init__(self, storage: Storage, scheduler: Scheduler, seed: str, faults: Faults, name: str) -> None:
        self.storage = storage
        self.faults = faults
        self._scheduler = scheduler
        self._seed = seed
        self._rng = random.Random(seed)
        self._asked: Counter[str] = Counter()
        self._name = name
        self._dead = False

    @property
    def retry(self) -> Retry:
        """The farm's own retry, in virtual time."""
        return Retry(sleep=self._scheduler.wait, uniform=self._uniform)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self._name

    def check(self) -> None:
        """Raise RemoteError where there is no dataset."""
        if self._request("check", "head.json", lambda: bool(self.storage.visible())):
            return
        raise RemoteError(f"{self.name} is not a Stopdown dataset; push one there first")

    def prepare(self) -> None:
        """Raise RemoteError where the store refuses."""
        self._request("prepare", "head.json", lambda: None)

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None."""
        return self._request("read", checked_path(path), lambda: self.storage.files.get(path))

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of the files under a folder."""
        return self._request("sizes", folder, lambda: self.storage.under(folder))

    def put(self, path: str, data: bytes | Path) -> bool:
        """Put a file where there is none."""
        held = data if isinstance(data, bytes) else data.read_bytes()
        return self._request("put", checked_path(path), lambda: self.storage.put(path, held), held)

    def swap(self, path: str, expected: bytes | None, data: bytes) -> bool:
        """Replace a file that still holds the expected bytes; a request sent again may meet its own result, which counts."""

        def effect() -> bool:
            found = self.storage.files.get(path)
            if found != expected:
                return found == data
            self.storage.overwrite(path, data)
            return True

        # What is asked is settled before anything is sent: the bytes there must be the expected ones.
        if self.storage.files.get(checked_path(path)) != expected:
            return self._request("swap", path, lambda: False)
        return self._request("swap", path, effect, data)

    def overwrite(self, path: str, data: bytes) -> None:
        """Put a file whatever lies there."""
        self._request("overwrite", checked_path(path), lambda: self.storage.overwrite(path, data), data)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing collects garbage here."""
        yield

    def _request(self, kind: str, path: str, effect: Callable[[], Result], data: bytes | None = None) -> Result:
        """Send a request: it travels, meets a fault or has its effect, and its answer travels back."""
        self._alive()
        self.storage.requests[kind] += 1
        self._travel()
        self._refuse(writes=data is not None)
        fault = self._fault(self._draw(f"{kind} {path}"), writes=data is not None)
        if fault is not None:
            self.storage.met[fault] += 1
        result = self._meet(fault, path, effect, data)
        self._travel()
        return result

    def _meet(self, fault: str | None, path: str, effect: Callable[[], Result], data: bytes | None) -> Result:
        match fault:
            case None:
                return effect()
            case "twice":
                effect()
                self._travel()
                return effect()
            case "kill":
                if data is not None and self._rng.random() < 0.5:
                    effect()
                self._dead = True
                self._alive()
            case "after":
                effect()
                self._travel()
            case "late":
                self._scheduler.start(lambda: None if self.storage.full else effect(), after_s=self._rng.uniform(0.0, 30.0))
            case "cut" if data is not None:
                self.storage.files[f"{CUT}{path}"] = data[: self._rng.randrange(len(data) + 1)]
            case "torn" if data is not None:
                self.storage.tear(path, data, self._rng.randrange(len(data) + 1))
        raise RemoteError(f"{self.name} answers with an error ({fault}); nothing more was done, try again")

    def _alive(self) -> None:
        if self._dead:
            raise Killed

    def _travel(self) -> None:
        if self._scheduler.elsewhere():
            return
        self._scheduler.wait(self._rng.uniform(0.0, self.faults.delay_s))

    def _refuse(self, *, writes: bool) -> None:
        if self.storage.revoked:
            self.storage.met["revoked"] += 1
            raise RemoteError(f"{self.name} does not accept the credentials (InvalidAccessKeyId); check them", lasting=True)
        if writes and self.storage.full:
            self.storage.met["full"] += 1
            raise RemoteError(f"no space left at {self.name}; free some and run the same command again", lasting=True)

    def _draw(self, what: str) -> float:
        if not self._scheduler.elsewhere():
            return self._rng.random()
        self._asked[what] += 1
        return random.Random(f"{self._seed} {what} {self._asked[what]}").random()

    def _uniform(self) -> float:
        return 0.5 if self._scheduler.elsewhere() else self._rng.random()

    def _fault(self, drawn: float, *, writes: bool) -> str | None:
        for kind, share in self.faults.kinds:
            if drawn < share:
                return kind if writes or kind not in ("late", "cut", "torn") else "before"
            drawn -= share
        return None
