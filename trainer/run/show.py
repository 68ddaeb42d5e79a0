"""The plan of a run or a comparison as a table: what each stage does, what it takes, and whether it is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from generator.plan import layer_counts
from trainer.run.comparing import Workshop
from trainer.run.expect import MEASURED, Expected, expect, expected_videos
from trainer.run.matrix import Cell
from trainer.run.stages import read_state
from trainer.run.work import REPORT, Place

UNKNOWN = f"time is known for backbone {MEASURED} only"


def show_plan(place: Place, console: Console) -> None:
    """Print the stages of a run."""
    done = read_state(place.folder).stages
    expected = _expected(place)
    table = Table("stage", "what", "one core", "disk", "before", box=None, header_style="dim", pad_edge=False)
    for name, words in _stages(place).items():
        before = f"done in {done[name].wall_s:.0f} s" if name in done else "not done"
        table.add_row(name, words, _time(expected[name].cpu_s), _size(expected[name].size_bytes), before)
    console.print(table)
    console.print(_whole(expected))


def show_comparison(shop: Workshop, cells: Sequence[Cell], console: Console) -> None:
    """Print the runs of a comparison and what they take together; runs of one fidelity share its dataset."""
    table = Table("run", "data", "training", "videos", "one core", "before", box=None, header_style="dim", pad_edge=False)
    whole: dict[str, list[Expected]] = defaultdict(list)
    built: set[str] = set()
    for cell in cells:
        place = shop.place(cell)
        expected = dict(_expected(place))
        done = read_state(place.folder).stages
        clips = sum(count for *_, count in layer_counts(cell.recipe.dataset))
        data = f"{clips} {cell.fidelity} clips"
        if cell.fidelity in built:
            data, expected["build"] = "the same", Expected(cpu_s=0.0, size_bytes=0)
        built.add(cell.fidelity)
        for name, one in expected.items():
            whole[name].append(one)
        seconds = _sum([one.cpu_s for one in expected.values()])
        steps = f"{cell.recipe.tree['train'].get('steps', 'the default')} steps, {cell.trained}"
        before = f"{next(reversed(done))} done" if done else "not done"
        table.add_row(cell.name, data, steps, str(expected_videos(cell.recipe)), _time(seconds), before)
    console.print(table)
    sums = {
        name: Expected(cpu_s=_sum([one.cpu_s for one in found]), size_bytes=sum(one.size_bytes or 0 for one in found))
        for name, found in whole.items()
    }
    console.print(", ".join(f"{name} {_time(one.cpu_s)}" for name, one in sums.items() if one.cpu_s is None or one.cpu_s >= 30))
    console.print(_whole(sums))


def _stages(place: Place) -> dict[str, str]:
    recipe = place.recipe
    settings = recipe.train(place.dataset, "latest", place.folder / "train")
    clips = sum(count for *_, count in layer_counts(recipe.dataset))
    return {
        "build": f"{clips} clips in {place.dataset}",
        "verify": "every label, by its probe",
        "version": f"tag {place.tag}",
        "train": f"{settings.steps} steps of {settings.batch_size} x {settings.accumulation} clips on {settings.backbone.name}",
        "generate": f"up to {expected_videos(recipe)} videos",
        "evaluate": f"their probes, {', '.join(recipe.evaluate.features)} features",
        "report": str(place.folder / REPORT),
    }


def _expected(place: Place) -> Mapping[str, Expected]:
    return expect(place.recipe, place.recipe.train(place.dataset, "latest", place.folder / "train"))


def _whole(expected: Mapping[str, Expected]) -> str:
    seconds = _sum([one.cpu_s for one in expected.values()])
    size = sum(one.size_bytes or 0 for one in expected.values())
    unknown = [name for name, one in expected.items() if one.cpu_s is None]
    if seconds is None:
        return f"{', '.join(unknown)}: {UNKNOWN}; {_size(size)} and more on the disk"
    return f"in all about {_time(seconds)} on one core and {_size(size)} on the disk"


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return sum(known) if len(known) == len(seconds) else None


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"
