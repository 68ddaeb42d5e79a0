"""200 clips on a two-raylet Ray cluster, with ten render actors, a raylet and the driver killed -9 at random instants.

`python benchmarks/farm_ray_kills.py [--clips 200] [--kills 10] [--seed 1]` writes benchmarks/results/farm_ray_kills.json and
exits 1 where a clip is missing, was rendered when it was there already, or has other frames than in a single-process build.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from generator.building.local import blender_version, build
from generator.console.progress import make_progress
from generator.farm.ray.cluster import ENVIRONMENT
from generator.farm.ray.engine import build_on_ray
from generator.farm.target import Target, open_target
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, make_plan
from generator.store.objects import Store

RESULTS = Path(__file__).parent / "results"
VALUES = 5  # clips per scene
PYRAMIDS = (("shutter", "flyby"), ("aperture", "depth_row"))
ACTOR = "ray::StopdownRender"
OBJECT_STORE_BYTES = 80 * 2**20


@dataclass(frozen=True, kw_only=True)
class LoggingTarget(Target):
    """A target that writes down every clip that is rendered to its end, and what came of publishing it."""

    events: Path

    def publish(self, scratch: Store, key: str) -> bool:
        """Publish, between two lines of the events."""
        self._write(f"rendered {key}")
        new = super().publish(scratch, key)
        self._write(f"{'new' if new else 'doubled'} {key}")
        return new

    def _write(self, words: str) -> None:
        with self.events.open("a", encoding="utf-8") as file:  # one small write at the end: whole, whoever else writes
            file.write(f"{words}\n")


def plan(clips: int) -> Plan:
    """Return a plan of so many one-frame clips of 64 px."""
    scenes = clips // (VALUES * len(PYRAMIDS))
    sections = "".join(
        f'[[pyramid]]\naxes = "{axis}"\nfamily = "{family}"\nlayers = {VALUES}\nframes = 1\nscenes_per_layer = {scenes}\n'
        for axis, family in PYRAMIDS
    )
    text = f'name = "ray-kills"\n[video]\nwidth = 64\nheight = 64\n[render]\nsamples = 16\n{sections}'
    return make_plan(parse_recipe(text, source="farm_ray_kills"))


def drive(options: argparse.Namespace) -> int:
    """Build on the cluster: the process that is killed."""
    opened = open_target(str(options.store), plan(options.clips), blender=blender_version())
    target = LoggingTarget(**{name: getattr(opened, name) for name in opened.__dataclass_fields__}, events=options.events)
    progress = make_progress(sys.stdout, json_lines=True)
    report = build_on_ray(target, address=options.address, slots=None, threads=1, progress=progress)
    return 0 if report.complete else 1


class Trial:
    """A cluster, the drivers that build on it, and the kills."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.options, self.store, self.events = options, folder / "store", folder / "events"
        self.rng = random.Random(options.seed)
        self.start_s = time.monotonic()
        self.done = 0
        self.log: list[dict[str, object]] = []
        self.notes: list[str] = []
        self.foreign: list[str] = []
        self.seen: set[psutil.Process] = set()
        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        self.cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        self.second = self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
        self.due = self._schedule()

    def _schedule(self) -> list[tuple[int, str]]:
        """Return what is killed after how many clips, in order."""
        clips = self.options.clips
        counts = self.rng.sample(range(3, clips - 3), self.options.kills)
        chosen = [(count, "actor") for count in counts]
        return sorted([*chosen, (clips * 35 // 100, "raylet"), (clips * 65 // 100, "driver")])

    def run(self) -> int:
        """Run drivers until one ends by itself; return how many there were."""
        drivers = 0
        while True:
            drivers += 1
            with (self.store.parent / f"stderr-{drivers}").open("w+", encoding="utf-8") as errors:
                code = self._follow(errors)
                errors.seek(0)
                self.foreign += [line.rstrip() for line in errors]
            if code >= 0:
                if code:
                    raise SystemExit(f"a driver ended with {code}: {self.foreign[-3:]}")
                return drivers

    def _follow(self, errors: IO[str]) -> int:
        options = self.options
        command = [sys.executable, __file__, "--drive", "--clips", str(options.clips), "--address", self.cluster.address]
        command += ["--store", str(self.store), "--events", str(self.events)]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        assert driver.stdout is not None
        for line in driver.stdout:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                self.foreign.append(line.rstrip())
                continue
            if event["event"] == "note":
                self.notes.append(event["message"])
                print(event["message"], flush=True)
            self.done += event["event"] == "done"
            while event["event"] in ("done", "worker") and self.due and self.done >= self.due[0][0]:
                if not self._kill(self.due[0][1], driver):
                    break
                self.due.pop(0)
        return driver.wait()

    def _kill(self, what: str, driver: subprocess.Popen[str]) -> bool:
        """Kill -9 something after a random moment; return whether it was there to be killed."""
        from ray._private.ray_constants import PROCESS_TYPE_RAYLET

        time.sleep(self.rng.uniform(0.0, 0.1))
        if what == "driver":
            driver.kill()
        elif what == "raylet":
            self.seen.update(self.actors())  # of those, some are about to lose their parent
            self.second.all_processes[PROCESS_TYPE_RAYLET][0].process.kill()
            # A machine that joins later is used, too; only then can the ten later deaths strike on two machines.
            self.second = self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
        else:
            victims = self.actors()
            if not victims:
                return False
            self.rng.choice(sorted(victims, key=lambda process: process.pid)).kill()
        self.log.append({"what": what, "after_clips": self.done, "at_s": round(time.monotonic() - self.start_s, 2)})
        print(json.dumps(self.log[-1]), flush=True)
        return True

    def actors(self) -> list[psutil.Process]:
        """Return the live render actors of this cluster."""
        from ray._private.ray_constants import PROCESS_TYPE_RAYLET

        found = set(self.seen)
        for node in self.cluster.list_all_nodes():
            for raylet in node.all_processes.get(PROCESS_TYPE_RAYLET, ()):
                with contextlib.suppress(psutil.Error):
                    found.update(psutil.Process(raylet.process.pid).children(recursive=True))
        return [process for process in found if is_actor(process)]


def is_actor(process: psutil.Process) -> bool:
    """Return whether a process is a live render actor."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()).startswith(ACTOR) and process.status() != psutil.STATUS_ZOMBIE
    return False


def summary(trial: Trial, drivers: int, made: Plan) -> dict[str, object]:
    """Hold the store against a single-process build, and count renders."""
    folder = trial.store.parent
    single = build(made, folder / "single", workers=1, threads=1, progress=make_progress(sys.stderr), message=None)
    target = open_target(str(trial.store), made, blender=blender_version())
    alone = open_target(str(folder / "single"), made, blender=blender_version())
    equal = there = 0
    for key in target.keys.values():
        record, reference = target.record(key), alone.record(key)
        there += record is not None
        equal += record is not None and reference is not None and record.sha256_frames == reference.sha256_frames
    counts = Counter(line.split()[0] for line in trial.events.read_text(encoding="utf-8").splitlines())
    return {
        "clips": len(made.clips),
        "in_the_store": there,
        "frames_equal_to_single_process": equal,
        "rendered_to_the_end": counts["rendered"],
        "published": counts["new"],
        "rendered_twice": counts["doubled"],
        "killed_between_render_and_record": counts["rendered"] - counts["new"] - counts["doubled"],
        "killed": dict(Counter(str(entry["what"]) for entry in trial.log)),
        "drivers": drivers,
        "lines_of_ray_on_the_terminal": len(trial.foreign),
        "actors_left": len(trial.actors()),
        "cpu_s_single": round(single.cpu_s, 1),
        "seed": trial.options.seed,
        "kills": trial.log,
        "notes": trial.notes,
        "ray": importlib.metadata.version("ray"),
        "bpy": blender_version(),
    }


def main() -> int:
    """Run the trial and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drive", action="store_true")
    parser.add_argument("--address")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--events", type=Path)
    options = parser.parse_args()
    if options.drive:
        return drive(options)
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        trial = Trial(options, Path(name))
        try:
            drivers = trial.run()
            wall_s = time.monotonic() - trial.start_s
            time.sleep(2.0)  # actors that are told to end take a moment
            found = summary(trial, drivers, plan(options.clips)) | {"wall_s": round(wall_s, 1)}
        finally:
            trial.cluster.shutdown()
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "farm_ray_kills.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in found.items() if key not in ("kills", "notes")}))
    whole = found["clips"] == found["in_the_store"] == found["frames_equal_to_single_process"]
    return 0 if whole and found["rendered_twice"] == 0 and found["actors_left"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
