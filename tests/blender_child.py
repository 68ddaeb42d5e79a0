"""Runs test code where Blender may live: in a spawned process; one that imported bpy can start no others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def run_in_blender(func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a top-level function in a new process and return its result, or raise what it raised.

    The function imports Blender itself (by making a `SceneRenderer`); arguments and result must pickle.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(func, *args, **kwargs).result()
