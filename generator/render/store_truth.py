"""A scene's ground truth, rendered and put into the store once, whichever of its clips comes first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from generator.media.images import png_bytes
from generator.media.video import encode
from generator.render.messages import TruthJob, WorkerSettings
from generator.store.objects import Store
from generator.truth.scene_pictures import truth_pictures
from generator.truth.truth_names import SHARP_FILE, frame_file, stored_name
from scenes.palette import to_bytes
from scenes.spec import Optics

if TYPE_CHECKING:
    from generator.render.scene_renderer import SceneRenderer


def store_truth(store: Store, job: TruthJob, renderer: SceneRenderer, settings: WorkerSettings) -> dict[str, str]:
    """Return the objects of a scene's truth by stored name, rendered unless the store has them.

    Two processes may render one scene's clips, and the last bits of what they render differ: what the first stored counts.
    """
    found = store.truth(job.key)
    if found is not None:
        return found
    files = {stored_name(path): store.put(data) for path, data in _files(job, renderer, settings)}
    return store.put_truth(job.key, files)


def _files(job: TruthJob, renderer: SceneRenderer, settings: WorkerSettings) -> Iterator[tuple[str, bytes]]:
    spec, video = renderer.scene, settings.video
    yield from truth_pictures(spec, renderer.stage(), renderer.geometries(job.passes), job.passes, settings.blender)
    if "sharp" in job.passes:
        sharp_THW3 = to_bytes(renderer.frames(Optics()))
        for frame, sharp_HW3 in enumerate(sharp_THW3):
            yield frame_file("sharp", frame), png_bytes(sharp_HW3)
        yield SHARP_FILE, encode(sharp_THW3, spec.shot.fps, video.crf, video.preset)
