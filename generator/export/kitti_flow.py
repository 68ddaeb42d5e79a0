"""KITTI 2015's layout of optical flow: pairs of sharp frames; flow with hidden ends (`flow_occ`) and without (`flow_noc`)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from generator.export.base import Exporter, ExportJob
from generator.export.files.entries import Entry, TextFile
from generator.export.truth_scenes import each_scene, truth_scenes
from generator.truth.pass_files import UNKNOWN, VISIBLE, flow_bytes, read_flow
from generator.truth.truth_names import frame_file
from scenes.errors import InputError

NAME = "kitti-flow"
FOLDER = "training"


def _entries(job: ExportJob) -> Iterator[Entry]:
    number, lines = 0, []
    for scene in each_scene(truth_scenes(job, NAME, "flow", "sharp")):
        for frame in range(len(scene.reader.scene.times_s) - 1):
            flow_HW2, state_HW = read_flow(scene.reader.file(frame_file("flow_forward", frame)))
            known_HW, seen_HW = (state_HW != UNKNOWN).astype(np.uint8), (state_HW == VISIBLE).astype(np.uint8)
            for step, name in enumerate(("10", "11")):
                data = scene.reader.file(frame_file("sharp", frame + step))
                yield TextFile(path=f"{FOLDER}/image_2/{number:06d}_{name}.png", data=data)
            yield TextFile(path=f"{FOLDER}/flow_occ/{number:06d}_10.png", data=flow_bytes(flow_HW2, known_HW))
            yield TextFile(path=f"{FOLDER}/flow_noc/{number:06d}_10.png", data=flow_bytes(flow_HW2, seen_HW))
            lines.append(json.dumps({"number": number, "scene_id": scene.scene_id, "frame": frame}))
            number += 1
    if not number:
        raise InputError(f"format '{NAME}' is of frames that follow each other, and all clips here are stills; export others")
    yield TextFile(path="pairs.jsonl", data="\n".join([*lines, ""]).encode())


KITTI_FLOW = Exporter(
    summary="KITTI flow: pairs of sharp frames, flow_occ and flow_noc (needs [truth] flow and sharp)",
    entries=_entries,
    usage=lambda job: "any reader of KITTI 2015 flow; torchvision.datasets.KittiFlow where the folder is named KittiFlow",
    needs_truth=True,
)
