"""Exports: a dataset in the layouts that trainers and loaders read. A new format is one module here and a line of `EXPORTS`.

Here: the contract of a format (`base`), each format, and writing an export's entries to a folder (`write_folder`).
Not here: reading a dataset in Python, which is `generator.Dataset`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from generator.export.ai_toolkit import AI_TOOLKIT
from generator.export.base import Exporter, ExportOptions
from generator.export.coco import COCO
from generator.export.diffsynth import DIFFSYNTH
from generator.export.diffusion_pipe import DIFFUSION_PIPE
from generator.export.finetrainers import FINETRAINERS
from generator.export.kitti_flow import KITTI_FLOW
from generator.export.lance_table import LANCE
from generator.export.musubi_tuner import MUSUBI_TUNER
from generator.export.pairs import PAIRS
from generator.export.rerun_recording import RERUN
from generator.export.source import DatasetSource, ExportSource
from generator.export.truth_table import HUGGINGFACE_TRUTH
from generator.export.videofolder import VIDEOFOLDER
from generator.export.webdataset_shards import WEBDATASET

EXPORTS: Mapping[str, Exporter] = MappingProxyType(
    {
        "videofolder": VIDEOFOLDER,
        "diffusion-pipe": DIFFUSION_PIPE,
        "musubi-tuner": MUSUBI_TUNER,
        "finetrainers": FINETRAINERS,
        "diffsynth": DIFFSYNTH,
        "ai-toolkit": AI_TOOLKIT,
        "webdataset": WEBDATASET,
        "lance": LANCE,
        "coco": COCO,
        "kitti-flow": KITTI_FLOW,
        "huggingface-truth": HUGGINGFACE_TRUTH,
        "rerun": RERUN,
        "pairs": PAIRS,
    }
)

__all__ = ["EXPORTS", "DatasetSource", "ExportOptions", "ExportSource", "Exporter"]
