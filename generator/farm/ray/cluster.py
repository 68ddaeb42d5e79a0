"""Being connected to a Ray cluster, one of our own on this machine or somebody's, and leaving nothing behind."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

from generator.errors import ClusterError
from generator.farm.ray.process_folder import process_folder
from scenes.errors import InputError

ANSWER_S = 30.0  # how long an address may take to answer
LOAD_RAY_S = 120.0  # how long a process may take to load Ray, on a machine with much else to do
CONNECT_S = 5.0
OBJECT_STORE_BYTES = 80 * 2**20  # nothing but ids travels; Ray's least is 75 MiB
LONGEST_TEMPORARY = 20  # characters: Ray puts sockets with names of up to 64 in a folder of 21, and 107 are allowed
STARTS = 3  # Ray gives a cluster 30 s to come up, too few on a machine with much else to do
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: rendering is what the CPUs are for, and `--workers` is not nicer either
}


_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")


def check_ray() -> None:
    """Raise InputError where Ray is not installed."""
    try:
        with _environment(ENVIRONMENT):
            import ray  # noqa: F401
    except ImportError:
        raise InputError('Ray is not installed, which `--engine ray` needs; run `pip install "stopdown[ray]"`') from None


def check_address(address: str, answer_s: float = ANSWER_S) -> None:
    """Raise InputError for an address where no Ray cluster answers within so many seconds, or one that refuses this machine."""
    if address != "auto":
        found = _PLACE.fullmatch(address)
        if found is None or int(found["port"]) > 65535:
            raise InputError(
                f"'{address}' is no address of a Ray cluster; give HOST:PORT of its head, which `ray start --head` prints, "
                "or 'auto' for the cluster that this machine belongs to"
            )
        try:
            socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=CONNECT_S).close()
        except OSError as error:
            raise InputError(_silent(address, str(error.strerror or error))) from None
    command = [sys.executable, "-P", str(Path(__file__).with_name("reach.py")), address, str(answer_s)]
    environment = {**os.environ, **ENVIRONMENT}
    try:
        probe = subprocess.run(
            command, capture_output=True, text=True, timeout=LOAD_RAY_S + answer_s, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(_silent(address, f"Ray did not load within {LOAD_RAY_S:g} s")) from None
    trouble = f"nothing within {answer_s:g} s" if probe.returncode == -signal.SIGALRM else _said(probe)
    if trouble is not None:
        raise InputError(_silent(address, trouble))


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[Path | None]:
    """Be connected to the cluster at an address or, for None, to one of so many CPUs that lives on this machine meanwhile.

    However the block ends, the connection does, and with it every actor of ours; a cluster of our own is stopped. SIGTERM
    ends the block as Ctrl-C does. While it lasts, what Ray prints in this process is dropped: progress tells what matters,
    and Ray would print pages over it when a machine is lost, on standard output at that (Ray 2.60 has no setting for it).
    Yields the folder of a cluster of our own, which goes with it, or None.
    """
    with ExitStack() as stack:
        stack.enter_context(_environment(ENVIRONMENT))
        import ray

        null = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(redirect_stdout(null))
        stack.enter_context(redirect_stderr(null))
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        stack.enter_context(_ended_by_sigterm())
        folder: Path | None = None
        options: dict[str, Any]
        if address is None:
            folder = stack.enter_context(process_folder("ray", _sockets()))
            own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            options = {"address": "local", "_temp_dir": str(folder), **own}
        else:
            options = {"address": address}
        stack.callback(ray.shutdown)
        _start(options | quiet, STARTS if address is None else 1)
        stack.enter_context(_ended_by_sigterm())  # again: Ray has put a handler of its own
        yield folder


def _start(options: dict[str, Any], attempts: int) -> None:
    import ray

    for attempt in range(1, attempts + 1):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray raises half a dozen kinds
            ray.shutdown()
            if attempt == attempts:
                words = " ".join(str(error).split())
                raise ClusterError(f"Ray does not come up ({words}); run the same command again to go on") from error


def _silent(address: str, words: str) -> str:
    return (
        f"no Ray cluster that this machine belongs to answers at '{address}' ({words}); "
        "start one with `ray start --head`, join it with `ray start --address`, or leave --address out"
    )


def _said(probe: subprocess.CompletedProcess[str]) -> str | None:
    """Return what a probe found wrong, None where nothing."""
    try:
        trouble = json.loads(probe.stdout.splitlines()[-1])["trouble"]
    except (IndexError, ValueError, KeyError, TypeError):
        last = [line for line in probe.stderr.splitlines() if line.strip()][-1:]
        return " ".join(["the attempt ended at once", *last])
    return None if trouble is None else str(trouble)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _sockets() -> Path:
    """Return where folders with sockets can be: the usual place, or /tmp where its name is too long."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= LONGEST_TEMPORARY else Path("/tmp")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that what was begun is ended; handlers can be put in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
