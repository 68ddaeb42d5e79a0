"""What a build will cost, estimated before rendering from figures measured with `benchmarks/render_speed.py`."""

from __future__ import annotations

from dataclasses import dataclass

from generator.processes.processors import allowed_processors
from generator.recipe.plan import layer_counts
from generator.recipe.schema import Pyramid, Recipe
from scenes.axes import AXES
from scenes.spec import Optics

# CPU seconds per megapixel of a rendered 512x512 frame, with everything around it (build, read-back, encode, probe).
CPU_S_PER_MEGAPIXEL = {"sharp": 0.8, "shutter": 0.8, "aperture": 0.75}
FIDELITY_FACTOR = {"flat": 1.0, "textured": 1.5, "lit": 5.0, "pbr": 12.0}
CUSTOM_FACTOR = {"sharp": 1.0, "shutter": 1.2, "aperture": 1.2}  # a sharp frame is what was marked
CPU_S_PER_CLIP = 0.25
START_S = 8.0  # of this program and of the first render process with Blender, before the first clip is there
BYTES_PER_PIXEL = 0.035  # 110 kB for 12 frames of 512x512 at CRF 12
TRUTH_CPU_S_PER_MEGAPIXEL = 1.0  # depth, flow, instances and normals come from one cheap render (`benchmarks/truth_cost.py`)
# Bytes of truth by frame and by pixel, from flyby scenes at 64, 256 and 512 pixels; flow is two pictures.
TRUTH_BYTES = {
    "depth": (850, 0.024),
    "flow": (1600, 0.13),
    "instances": (900, 0.0035),
    "normals": (1200, 0.057),
    "sharp": (1100, 0.04),
}
BYTES_PER_TRUTH = 16_384  # scene.json


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected cost of a build."""

    clips: int
    frames: int
    rendered_frames: int
    size_bytes: int
    cpu_s: float

    @property
    def wall_s(self) -> float:
        """Seconds on this machine with all its cores."""
        return START_S + self.cpu_s / allowed_processors()


def estimate(recipe: Recipe) -> Estimate:
    """Return the expected cost of a recipe, without drawing its scenes."""
    megapixels = recipe.video.width * recipe.video.height / 1e6
    clips = frames = rendered = 0
    cpu_s, truth_bytes = 0.0, 0.0
    for position, _, length, scenes, count in layer_counts(recipe):
        renders = scenes if shares_render(recipe, position) else count
        clips += count
        frames += count * length
        rendered += renders * length
        cpu_s += renders * (_own_cpu_s(recipe, position, length) or render_cpu_s(recipe, position, length))
        cpu_s += count * finish_cpu_s(recipe, length) + scenes * truth_cpu_s(recipe, position, length)
        truth_bytes += scenes * bytes_of_truth(recipe, length)
    size = int(frames * megapixels * 1e6 * BYTES_PER_PIXEL + truth_bytes)
    return Estimate(clips=clips, frames=frames, rendered_frames=rendered, size_bytes=size, cpu_s=cpu_s)


def shares_render(recipe: Recipe, pyramid: int) -> bool:
    """Return whether the clips of a scene share one render: what acts on the image alone needs no render of its own."""
    return _optics_kind(recipe.pyramid[pyramid]) == "sharp"


def acts_on_camera(axis: str) -> bool:
    """Return whether an axis acts on the camera, so that each of its values needs a render."""
    return AXES[axis].apply_optics(Optics(), AXES[axis].default_law.neutral) != Optics()


def render_cpu_s(recipe: Recipe, pyramid: int, frames: int) -> float:
    """Return the CPU seconds of one render of so many frames, of a scene in the recipe's pyramid of that number."""
    megapixels = recipe.video.width * recipe.video.height / 1e6
    factor = FIDELITY_FACTOR[recipe.render.fidelity] * CPU_S_PER_MEGAPIXEL[_optics_kind(recipe.pyramid[pyramid])]
    return frames * megapixels * factor


def truth_cpu_s(recipe: Recipe, pyramid: int, frames: int) -> float:
    """Return the CPU seconds of the ground truth of one scene of so many frames; 0 where the recipe asks for none."""
    if recipe.truth is None:
        return 0.0
    megapixels = recipe.video.width * recipe.video.height / 1e6
    # The sharp pass is a render of its own where the clips are not made of it.
    rendered = "sharp" in recipe.truth.passes and _optics_kind(recipe.pyramid[pyramid]) != "sharp"
    sharp = FIDELITY_FACTOR[recipe.render.fidelity] * CPU_S_PER_MEGAPIXEL["sharp"] if rendered else 0.0
    return frames * megapixels * (TRUTH_CPU_S_PER_MEGAPIXEL + sharp)


def bytes_of_truth(recipe: Recipe, frames: int) -> float:
    """Return the bytes of the ground truth of one scene of so many frames; 0 where the recipe asks for none."""
    if recipe.truth is None:
        return 0.0
    pixels = recipe.video.width * recipe.video.height
    known = [TRUTH_BYTES[name] for name in recipe.truth.passes]
    return BYTES_PER_TRUTH + frames * sum(by_frame + by_pixel * pixels for by_frame, by_pixel in known)


def _own_cpu_s(recipe: Recipe, pyramid: int, frames: int) -> float | None:
    """Return what `render_cpu_s` does for a custom .blend, from what it took when it was marked; None where unknown.

    Farms, whose machines must agree, reckon without it: it is no part of the plan.
    """
    cost = recipe.scene.cost if recipe.scene is not None else None
    if cost is None or "blend" not in recipe.pyramid[pyramid].family:
        return None
    megapixels = recipe.video.width * recipe.video.height / 1e6
    factor = CUSTOM_FACTOR[_optics_kind(recipe.pyramid[pyramid])]
    return cost.open_s + frames * factor * cost.of_frame(megapixels, recipe.render.samples_for("sharp"))


def finish_cpu_s(recipe: Recipe, frames: int) -> float:
    """Return the CPU seconds that a clip takes beside its render: developing, encoding, measuring."""
    megapixels = recipe.video.width * recipe.video.height / 1e6
    return CPU_S_PER_CLIP * megapixels * (1 + frames / 4)


def _optics_kind(pyramid: Pyramid) -> str:
    optics = Optics()
    for axis in pyramid.axes:
        optics = AXES[axis].apply_optics(optics, AXES[axis].default_law.neutral)
    if optics.f_number is not None:
        return "aperture"
    return "shutter" if optics.exposure_s is not None else "sharp"
