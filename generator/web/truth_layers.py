"""Ground truth for the gallery: a strip of pictures per scene and pass, the frames below each other, to lay over its clips."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from generator.truth.colored import COLORED, box_lines
from generator.truth.read_truth import TruthReader
from generator.web.gallery_pictures import data_uri, scaled

LAYER_PX = 256


def truth_layers(reader: TruthReader) -> list[dict[str, str]]:
    """Return name and data: URI of every pass that a scene keeps, and of its boxes, which are lines on nothing."""
    scene = reader.scene
    pictures: dict[str, list[Image.Image]] = {
        name: [scaled(frame_HW3, LAYER_PX) for frame_HW3 in COLORED[name](reader)] for name in scene.passes
    }
    factor = min(1.0, LAYER_PX / max(scene.width, scene.height))
    pictures["boxes"] = [box_lines(scene, frame, factor) for frame in range(len(scene.times_s))]
    return [{"name": name, "src": data_uri("image/webp", _strip(frames))} for name, frames in pictures.items()]


def _strip(pictures: list[Image.Image]) -> bytes:
    """Return pictures below each other as one WebP."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures])).save(file, "WEBP", quality=82, method=4)
    return file.getvalue()
