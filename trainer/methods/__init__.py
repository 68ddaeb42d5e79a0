"""The ways to train, by the names that `[train] method` takes and that an adapter's card records: one entry of `METHODS` each.

An entry says what a method is without importing it, so that commands start fast; its parts are loaded when they are used. Each
method has a folder here with the same files: `task.py` (batches and losses), `adapter.py` (what is saved and loaded) and
`generate.py` (the sampling loop); the last two only where an adapter is trained. Its settings are in `trainer/config/`.
Not here: the loop (`trainer/training/`), the layers of an adapter (`trainer/control/`).
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any

from scenes.errors import InputError, closest


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to train. Parts are named as `module:object` and loaded by the methods of the same name.

    `task` makes what trains out of settings (`trainer.training.setup.TaskParts`), `settings` is its own section of them,
    `adapter` is what is saved and loaded (`trainer.adapters.adapter_parts.AdapterParts`), `generation` makes videos with it
    (`trainer.generation.sampler.GenerationParts`). Without an `adapter` the method trains the backbone itself; without
    `generation` there is nothing to preview.
    """

    name: str
    summary: str  # what it trains, in words
    task: str
    settings: str | None = None
    adapter: str | None = None
    generation: str | None = None
    controls: bool = False  # whether it learns axes, from clips that are told apart by them
    encodes: bool = True  # whether it learns from latents and embedded captions, which are made once; else from frames

    @property
    def result(self) -> str:
        """The folder, in a run's, of what a user takes away."""
        return "model" if self.adapter is None else "adapter"

    def load(self, part: str) -> Any:
        """Return the object of one of the parts; raises ValueError for a part that the method lacks."""
        place = getattr(self, part)
        if place is None:
            raise ValueError(f"method '{self.name}' has no part '{part}'")
        return pkgutil.resolve_name(place)


METHODS: dict[str, Method] = {
    "control": Method(
        name="control",
        summary="a control adapter",
        settings="trainer.config.control:AdapterSettings",
        task="trainer.methods.control.task:TASK",
        adapter="trainer.methods.control.adapter:ADAPTER",
        generation="trainer.methods.control.generate:GENERATION",
        controls=True,
    ),
    "transformer": Method(
        name="transformer",
        summary="the whole transformer",
        task="trainer.methods.transformer.task:TASK",
        generation="trainer.methods.control.generate:GENERATION",
    ),
    "vae": Method(
        name="vae",
        summary="the whole autoencoder",
        task="trainer.methods.vae.task:TASK",
        encodes=False,
    ),
}
DEFAULT_METHOD = "control"  # of adapters from before cards named one, too


def adapter_method(name: str, source: str) -> Method:
    """Return the method of a saved adapter; raises InputError, naming the known ones, for a method that this version lacks."""
    known = [method.name for method in METHODS.values() if method.adapter is not None]
    if name not in known:
        raise InputError(
            f"{source}: method '{name}' is unknown{closest(name, known)}; known are {', '.join(known)}; use the version that "
            "trained it"
        )
    return METHODS[name]
