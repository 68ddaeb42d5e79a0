"""Which labels of a plan have no proof, and why: known from the plan, before anything is rendered.

Only a custom .blend has such labels; every other family is drawn so that its axes can be verified.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass

from generator.recipe.plan import ClipPlan, Plan
from scenes.axes.shutter.axis import JUDGED_PX, SURE_PX, expected_motion
from scenes.families.blend_proof import why_unproven


@dataclass(frozen=True, kw_only=True)
class Unproven:
    """The labels of an axis without proof: how many clips of how many, the reasons, and whether the recipe accepts it."""

    axis: str
    clips: int
    of: int
    reasons: tuple[tuple[str, int], ...]
    accepted: bool

    @property
    def hopeless(self) -> bool:
        """Whether no clip of the axis can be verified and the recipe does not accept that: `verify` is bound to fail."""
        return self.clips == self.of and not self.accepted

    @property
    def line(self) -> str:
        """Return what a person needs to know, in one line."""
        (reason, count), *rest = self.reasons
        more = f" ({count} clips; {'; '.join(f'{other} ({number} clips)' for other, number in rest)})" if rest else ""
        line = f"{self.axis}: {self.clips} of {self.of} clips cannot be verified: {reason}{more}"
        if self.accepted:
            return f"{line}; the recipe accepts it"
        if not self.hopeless:
            return line
        return f'{line}; `stopdown verify` will fail, unless the recipe says verify.accept_unproven = ["{self.axis}"]'


def why_no_proof(plan: Plan, clip: ClipPlan, axis: str) -> str:
    """Return why the label of one axis of a clip has no closed form to be held against; empty where it has one."""
    annotation = plan.recipe.scene.marks if plan.recipe.scene is not None else None
    scene = plan.scene_by_id[clip.scene_id].spec
    if annotation is None or scene.blend is None:
        return ""
    return why_unproven(annotation, scene, axis, {name: plan.recipe.law(name) for name in clip.axes})


def unproven(plan: Plan) -> tuple[Unproven, ...]:
    """Return the axes that some clips leave without proof, in the plan's order; a blur too short to judge counts, too."""
    found: list[Unproven] = []
    for axis in plan.recipe.used_axes if plan.recipe.scene is not None else ():
        clips = [clip for clip in plan.clips if axis in clip.axes and clip.family == "blend"]
        reasons = Counter(why for clip in clips if (why := why_no_proof(plan, clip, axis) or _too_short(plan, clip, axis)))
        if reasons:
            found.append(
                Unproven(
                    axis=axis,
                    clips=sum(reasons.values()),
                    of=sum(axis in clip.axes for clip in plan.clips),
                    reasons=tuple(reasons.most_common()),
                    accepted=axis in plan.recipe.verify.accept_unproven,
                )
            )
    return tuple(found)


def short_blurs(plan: Plan) -> str:
    """Return, in a line, that the blurs of a custom .blend are judged and yet short for single readings; or nothing."""
    clips = [clip for clip in plan.clips if "shutter" in clip.values] if plan.recipe.scene is not None else []
    judged = [px for clip in clips if (px := _longest_px(plan, clip)) >= JUDGED_PX and not why_no_proof(plan, clip, "shutter")]
    middle_px = statistics.median(judged) if judged else SURE_PX
    if middle_px >= SURE_PX:
        return ""
    return (
        f"shutter: the blurs that are judged are {middle_px:.1f} px long by the median, and below {SURE_PX:g} px single "
        "readings are up to 0.2 stop off, which may fail true labels; make the picture "
        f"{1.05 * SURE_PX / middle_px:.1f} times as large, or exposures longer"
    )


def _too_short(plan: Plan, clip: ClipPlan, axis: str) -> str:
    if axis != "shutter" or _longest_px(plan, clip) >= JUDGED_PX:
        return ""
    return f"the blur is below {JUDGED_PX:g} px, too short to be judged"


def _longest_px(plan: Plan, clip: ClipPlan) -> float:
    scene = plan.scene_by_id[clip.scene_id].spec
    return max((one.speed_px_per_s * clip.values["shutter"] for one in expected_motion(scene)), default=0.0)
