"""A program that builds the tiny plan on Ray, which tests start and kill: `python tests/farm/ray_build.py STORE [options]`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import tiny
from held import HeldProgress

from generator.building.local import blender_version
from generator.console.progress import make_progress
from generator.farm.ray.engine import build_on_ray
from generator.farm.target import open_target
from scenes.errors import StopdownError


def main() -> int:
    """Build as `stopdown build --engine ray --json` would."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--address")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--poison", type=int)
    parser.add_argument("--hold", nargs=2, metavar=("CLIPS", "FILE"), help="wait after so many clips while a file exists")
    options = parser.parse_args()
    progress = make_progress(sys.stdout, json_lines=True)
    if options.hold:
        progress = HeldProgress(sys.stdout, int(options.hold[0]), Path(options.hold[1]))
    try:
        target = open_target(options.store, tiny.plan(poison=options.poison), blender=blender_version())
        report = build_on_ray(
            target,
            address=options.address,
            slots=options.slots,
            threads=1,
            progress=progress,
            time_limit_s=options.time_limit,
        )
    except StopdownError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(json.dumps({"event": "report", **dataclasses.asdict(report)}))
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main())
