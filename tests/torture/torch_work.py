"""Work of the trainer that is killed: saving an adapter, a training with checkpoints, the stages of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate.state import AcceleratorState
from toy_task import Log, ToyTask, toy_settings
from trainer_support import adapted

from generator.io.atomic import write_atomic
from trainer.adapters.folder import save_adapter
from trainer.runs.run_folder import claim
from trainer.runs.run_recipe import load_run_recipe
from trainer.runs.stage_runner import StageRecord, digest_of, file_digests, run_stages
from trainer.training.checkpoints.checkpoint import Checkpoint, write_checkpoint
from trainer.training.loop import Loop
from trainer.training.setup import make_accelerator

RUN_RECIPE = """
name = "micro"
seed = 3
[[pyramid]]
axes = ["temperature"]
family = ["tabletop"]
layers = [3]
scenes_per_layer = 1
frames = [5]
[train]
steps = 2
[train.backbone]
name = "tiny-random"
"""


def save(words: Sequence[str]) -> None:
    """Save an adapter of a step in a folder, over the one that is there."""
    folder, step, seed = words
    adapters = {"transformer": adapted(seed=int(seed))}
    save_adapter(Path(folder), adapters, backbone_id="tiny", step=int(step), overwrite=True)


def adapters_of(folder: Path) -> None:
    """Make the tiny backbone in `cache`, an adapter `a` for it, and the same published, `a.safetensors`."""
    from generation_support import save_random, small_config

    from trainer.adapters.conversion.convert import convert
    from trainer.adapters.conversion.sources import read_source
    from trainer.backbones.load import load_backbone

    save_random(
        load_backbone("tiny-random", cache=folder / "cache" / "stopdown"), folder / "a", small_config("shutter"), step=3
    )
    convert(read_source(folder / "a"), folder / "a.safetensors", "published")


def checkpoint_of(folder: Path) -> None:
    """Write `checkpoint-3` with an adapter in a folder."""
    state = Checkpoint(step=3, parameters={}, averaged=None, optimizer={}, losses=(), identity={})
    write_checkpoint(folder, state, 2, beside=lambda scratch: save([str(scratch / "adapter"), "3", "0"]))


def train(words: Sequence[str]) -> None:
    """Train the toy task for five steps in a folder, with a checkpoint after every second, and save it."""
    folder = Path(words[0])
    folder.mkdir(parents=True, exist_ok=True)
    settings = toy_settings(steps=5, checkpoints={"every": 2, "keep": 2})
    log = Log(folder / "log.jsonl")
    loop = Loop(
        ToyTask(settings), settings, folder, make_accelerator(settings), identity={"seed": settings.seed}, callbacks=(log,)
    )
    loop.run()
    loop.save(folder / "result")


def warm() -> None:
    """Do each once, so that all is imported."""
    with TemporaryDirectory() as folder:
        save([f"{folder}/a", "1", "0"])
        train([f"{folder}/run"])
        stages([f"{folder}/stages"])
    AcceleratorState._reset_state(reset_partial_state=True)


class Count:
    """A stage that writes the number of the stage before it plus one."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number, self.name = folder, number, f"stage-{number}"

    def inputs(self, earlier: Mapping[str, StageRecord]) -> Mapping[str, str]:
        """Depend on all stages before."""
        return {name: digest_of(record.made) for name, record in earlier.items()}

    def made(self) -> Mapping[str, str]:
        """Name the file."""
        return file_digests(self.folder, [self.folder / self.name])

    def run(self) -> Mapping[str, Any]:
        """Write the file."""
        below = int((self.folder / f"stage-{self.number - 1}").read_text()) if self.number else 0
        write_atomic(self.folder / self.name, str(below + 1).encode())
        return {"number": below + 1}


def stages(words: Sequence[str]) -> None:
    """Claim a run's folder, as `stopdown run` does, and go through four stages in it."""
    told_stages(Path(words[0]))


def told_stages(folder: Path) -> bool:
    """Go through the stages; return whether anything was said to be damaged or done again."""
    recipe = folder.parent / "recipe.toml"
    if not recipe.exists():
        write_atomic(recipe, RUN_RECIPE.encode())
    claim(folder, load_run_recipe(recipe), Path("data"))
    events: list[str] = []
    run_stages([Count(folder, number) for number in range(4)], folder, lambda event, name, words: events.append(event))
    return "damaged" in events or "started" in events
