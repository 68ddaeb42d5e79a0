"""Captions from the spec alone: what there is, where, how it moves and before what; never the control's effect.

A caption is drawn from several phrasings and levels of detail by the generator passed in, so the same scene and seed
give the same words. `subject` and `prop` are named one by one, `ground` is a surface, `highlight` are small lights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scenes.families.rules import bounds_px, center_px, depth_m, image_velocity_px_per_s
from scenes.primitives import spoken
from scenes.spec import SceneSpec, Solid

MAX_WORDS = 45
STILL_WIDTHS_PER_S = 0.02
SLOW_WIDTHS_PER_S = 0.3
QUICK_WIDTHS_PER_S = 0.8
VISIBLE_SPIN_RAD_PER_S = 0.3
ROUND_ABOUT_Z = frozenset({"cylinder", "cone", "torus", "capsule", "disc"})

Verb = tuple[str, str, str]  # one does, several do, doing
GLIDES: tuple[Verb, ...] = (
    ("moves", "move", "moving"),
    ("glides", "glide", "gliding"),
    ("flies", "fly", "flying"),
    ("travels", "travel", "travelling"),
)
RESTS: tuple[Verb, ...] = (("stands", "stand", "standing"), ("rests", "rest", "resting"), ("sits", "sit", "sitting"))
FLOATS: tuple[Verb, ...] = (("floats", "float", "floating"), ("hovers", "hover", "hovering"))
SPINS: tuple[Verb, ...] = (("spins", "spin", "spinning"), ("rotates", "rotate", "rotating"), ("turns", "turn", "turning"))
DIRECTIONS = (
    "from left to right",
    "towards the upper right",
    "upwards",
    "towards the upper left",
    "from right to left",
    "towards the lower left",
    "downwards",
    "towards the lower right",
)
SIZED = {"world": (("small", 0.28), ("medium", 0.43), ("large", math.inf))}  # families that name every size, up to a share
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DETAILS: tuple[frozenset[str], ...] = (
    frozenset({"size", "place", "depth", "direction", "speed", "spin"}),
    frozenset({"size", "place", "direction", "speed", "spin"}),
    frozenset({"size", "place", "direction", "speed"}),
    frozenset({"place", "direction", "speed"}),
    frozenset({"place", "direction"}),
    frozenset({"direction"}),
    frozenset(),
)
_MOTION_DETAILS = frozenset({"direction", "speed", "spin"})


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """One named thing: its noun with adjectives, the verb it does, and what follows the verb."""

    noun: str
    verb: Verb
    tail: str
    moves: bool


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The words drawn for one caption."""

    glide: Verb
    rest: Verb
    spin: Verb
    depth: tuple[str, str]
    middle: str


def caption(scene: SceneSpec, rng: np.random.Generator, effect: str | None = None) -> str:
    """Return one English sentence about a scene, of at most `MAX_WORDS` words where its solids can be named in that.

    Names every subject's and prop's colour and kind. `effect` is a phrase appended as it is; without it the words never
    speak of what an axis does.
    """
    things = scene.with_role("subject", "prop")
    wording = _draw_wording(scene, rng)
    finite, backdrop_first = (bool(flag) for flag in rng.integers(2, size=2))
    opening = ("", "A scene with ", "A view of ", "A simple scene: ")[int(rng.integers(4))]
    backdrop = _backdrop(scene, rng)
    ending = f", {effect.strip().rstrip('.')}" if effect else ""
    text = ""
    for details in DETAILS[int(rng.integers(4 if scene.family in SIZED else 3)) :]:
        phrases = [_phrase(thing, scene, wording, details) for thing in things]
        listed = _listed(phrases, finite=finite)
        if finite and backdrop_first:
            text = f"{backdrop}, {listed}{ending}."
        else:
            pause = "," if len(phrases) > 1 and phrases[-1].tail else ""
            text = f"{'' if finite else opening}{listed}{pause} {backdrop}{ending}."
        if len(text.split()) <= MAX_WORDS:
            break
    return text[0].upper() + text[1:]


@dataclass(frozen=True, kw_only=True)
class CaptionParts:
    """A caption in two sentences: what there is, and how it moves."""

    content: str
    motion: str

    @property
    def whole(self) -> str:
        """Both sentences."""
        return f"{self.content} {self.motion}"


def caption_parts(scene: SceneSpec, rng: np.random.Generator, effect: str | None = None) -> CaptionParts:
    """Return a sentence for what a scene holds, which is true of any frame of it, and a short one for how its things move.

    The first names every subject and prop and says no word of motion; `effect` is appended to it. The second says of each thing
    that moves where it goes and how fast, or that nothing moves.
    """
    things = scene.with_role("subject", "prop")
    wording = _draw_wording(scene, rng)
    opening = ("", "A scene with ", "A view of ", "A simple scene: ")[int(rng.integers(4))]
    backdrop = _backdrop(scene, rng)
    ending = f", {effect.strip().rstrip('.')}" if effect else ""
    text = ""
    for details in (frozenset({"size", "place", "depth"}), frozenset({"size", "place"}), frozenset({"size"}), frozenset[str]()):
        phrases = [_at_rest(thing, scene, wording, details) for thing in things]
        pause = "," if len(phrases) > 1 and phrases[-1].tail else ""
        text = f"{opening}{_listed(phrases, finite=False)}{pause} {backdrop}{ending}."
        if len(text.split()) <= MAX_WORDS:
            break
    motion = _motion_sentence([_phrase(thing, scene, wording, _MOTION_DETAILS) for thing in things])
    return CaptionParts(content=text[0].upper() + text[1:], motion=motion)


def _at_rest(thing: Solid, scene: SceneSpec, wording: Wording, details: frozenset[str]) -> Phrase:
    """Return a thing's words without its motion; the place of what moves is left out, since it changes."""
    heading, _ = _motion_words(thing, scene)
    phrase = _phrase(thing, scene, wording, details)
    tail = " ".join(word for word in [_depth_words(thing, scene, wording)] if word and "depth" in details)
    return replace(phrase, verb=wording.rest, moves=False, tail=tail if heading else phrase.tail)


def _motion_sentence(phrases: Sequence[Phrase]) -> str:
    """Return how things move: `The red cube moves slowly upwards and the two grey balls spin.`"""
    groups = Counter(phrase for phrase in phrases if phrase.moves)
    if not groups:
        return "Nothing moves."
    alike = Counter(phrase.noun for phrase in phrases)
    names, taken = [], Counter[str]()
    for phrase, count in groups.items():
        if count > 1:
            name = f"the {NUMBERS[count] if count < len(NUMBERS) else count} {plural(phrase.noun)}"
        elif alike[phrase.noun] > 1:
            name = f"{'another' if taken[phrase.noun] else 'one'} {phrase.noun}"
        else:
            name = f"the {phrase.noun}"
        taken[phrase.noun] += count
        names.append(name + _doing(phrase, count, finite=True))
    text = joined(names)
    return f"{text[0].upper()}{text[1:]}."


def article(words: str) -> str:
    """Return the words after `a` or `an`."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def plural(words: str) -> str:
    """Return the plural of a noun phrase that ends in a primitive's spoken name."""
    if words.endswith("torus"):
        return f"{words[:-2]}i"
    return f"{words}{'es' if words.endswith(('s', 'x', 'ch')) else 's'}"


def joined(parts: Sequence[str]) -> str:
    """Return the parts as an English list: `a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _draw_wording(scene: SceneSpec, rng: np.random.Generator) -> Wording:
    still = RESTS if scene.with_role("ground") else FLOATS
    depths = (("in the foreground", "in the distance"), ("near the camera", "far from the camera"))
    return Wording(
        glide=GLIDES[int(rng.integers(len(GLIDES)))],
        rest=still[int(rng.integers(len(still)))],
        spin=SPINS[int(rng.integers(len(SPINS)))],
        depth=depths[int(rng.integers(len(depths)))],
        middle=("in the centre", "in the middle")[int(rng.integers(2))],
    )


def _backdrop(scene: SceneSpec, rng: np.random.Generator) -> str:
    """Return the surface, the background and small lights as one prepositional phrase."""
    noun = ("background", "backdrop")[int(rng.integers(2))]
    before = ("against", "in front of")[int(rng.integers(2))]
    behind = f"{before} {article(f'{scene.background.name} {noun}')}{_lights(scene)}"
    ground = scene.with_role("ground")
    if not ground:
        return behind
    surface = ("surface", "tabletop", "floor")[int(rng.integers(3))]
    return f"on {article(f'{ground[0].material.color_name} {surface}')} {behind}"


def _phrase(thing: Solid, scene: SceneSpec, wording: Wording, details: frozenset[str]) -> Phrase:
    """Return a thing's words at a level of detail."""
    noun = f"{thing.material.color_name} {spoken[thing.kind]}"
    size = _size_word(thing, scene) if "size" in details else ""
    heading, speed = _motion_words(thing, scene)
    tail: list[str] = []
    if heading:
        verb = wording.glide
        tail += [speed] if speed and "speed" in details else []
        tail += [heading] if "direction" in details else []
        tail += [f"while {wording.spin[2]}"] if "spin" in details and _spins(thing) else []
    else:
        verb = wording.spin if _spins(thing) else wording.rest
        tail += [_place_words(thing, scene, wording)] if "place" in details else []
    tail += [word for word in [_depth_words(thing, scene, wording)] if word and "depth" in details]
    return Phrase(noun=f"{size} {noun}".strip(), verb=verb, tail=" ".join(tail), moves=bool(heading) or _spins(thing))


def _listed(phrases: Sequence[Phrase], *, finite: bool) -> str:
    """Return all things as a list, equal ones counted together, with finite verbs or participles."""
    groups = Counter(phrases)
    seen: Counter[str] = Counter()
    names = []
    for phrase, count in groups.items():
        if count > 1:
            names.append(f"{NUMBERS[count] if count < len(NUMBERS) else count} {plural(phrase.noun)}")
        else:
            names.append(f"another {phrase.noun}" if seen[phrase.noun] else article(phrase.noun))
        seen[phrase.noun] += count
    first = phrases[0]
    same = len({(phrase.verb, phrase.tail) for phrase in groups}) == 1
    if len(groups) == 1 or not same or (first.tail and not first.moves):
        return joined(
            [name + _doing(phrase, groups[phrase], finite=finite) for name, phrase in zip(names, groups, strict=True)]
        )
    everyone = ("" if finite else ",") + (" both" if len(phrases) == 2 else " all") if first.tail else ""
    return f"{joined(names)}{everyone}{_doing(first, 2, finite=finite)}"


def _doing(phrase: Phrase, count: int, *, finite: bool) -> str:
    """Return the verb and what follows it; a still thing in a plain list needs no verb."""
    one, several, doing = phrase.verb
    resting = "" if not phrase.moves else doing
    verb = (several if count > 1 else one) if finite else resting
    words = f"{verb} {phrase.tail}".strip()
    return f" {words}" if words else ""


def _lights(scene: SceneSpec) -> str:
    lights = scene.with_role("highlight")
    if not lights:
        return ""
    nearest_m = min(depth_m(light, scene.camera, 0.0) for light in lights)
    behind = all(depth_m(thing, scene.camera, 0.0) < nearest_m for thing in scene.with_role("subject", "prop"))
    words = "a small light" if len(lights) == 1 else "small lights"
    return f" with {words}" if behind else f" with {words} around"


def _extent_px(thing: Solid, scene: SceneSpec) -> float:
    x0, y0, x1, y1 = bounds_px(thing, scene.camera, scene.shot, _middle_s(scene))
    return max(x1 - x0, y1 - y0)


def _size_word(thing: Solid, scene: SceneSpec) -> str:
    """Return `large` or `small`: against the others where they differ, against the picture where it is alone.

    Where the family names every size it is said against the picture.
    """
    mine = _extent_px(thing, scene)
    share = mine / min(scene.shot.width, scene.shot.height)
    if scene.family in SIZED:
        return next(word for word, most in SIZED[scene.family] if share < most)
    others = [_extent_px(other, scene) for other in scene.with_role("subject", "prop") if other is not thing]
    if not others:
        return "small" if share < 0.18 else "large" if share > 0.45 else ""
    if mine > 1.3 * max(others):
        return "large"
    return "small" if mine < min(others) / 1.3 else ""


def _motion_words(thing: Solid, scene: SceneSpec) -> tuple[str, str]:
    """Return the direction as seen in the picture and a speed word; empty where the thing stays in its place."""
    x, y = image_velocity_px_per_s(thing, scene.camera, scene.shot, _middle_s(scene))
    widths_per_s = math.hypot(x, y) / scene.shot.width
    if widths_per_s < STILL_WIDTHS_PER_S:
        nearing = depth_m(thing, scene.camera, 0.0) - depth_m(thing, scene.camera, 1.0)
        if abs(nearing) < STILL_WIDTHS_PER_S * depth_m(thing, scene.camera, 0.0):
            return "", ""
        return ("towards the camera" if nearing > 0 else "away from the camera"), ""
    eighth = round(math.atan2(-y, x) / (math.pi / 4)) % 8
    speed = "slowly" if widths_per_s < SLOW_WIDTHS_PER_S else "quickly" if widths_per_s > QUICK_WIDTHS_PER_S else ""
    return DIRECTIONS[eighth], speed


def _spins(thing: Solid) -> bool:
    """Whether a spin can be seen: not that of a ball, nor that of a solid of revolution about its own axis."""
    if abs(thing.motion.spin_rad_per_s) < VISIBLE_SPIN_RAD_PER_S or thing.kind == "sphere":
        return False
    x, y, z = thing.motion.spin_axis
    return thing.kind not in ROUND_ABOUT_Z or math.hypot(x, y) > 0.1 * abs(z)


def _place_words(thing: Solid, scene: SceneSpec, wording: Wording) -> str:
    x, y = center_px(thing, scene.camera, scene.shot, _middle_s(scene))
    across, down = x / scene.shot.width, y / scene.shot.height
    side = "left" if across < 0.38 else "right" if across > 0.62 else ""
    if scene.with_role("ground") or 0.3 <= down <= 0.7:
        return f"on the {side}" if side else wording.middle
    level = "top" if down < 0.3 else "bottom"
    return f"at the {level} {side}" if side else f"at the {level}"


def _depth_words(thing: Solid, scene: SceneSpec, wording: Wording) -> str:
    """Return near or far words for the nearest and the farthest thing, where depths differ plainly."""
    depths = [depth_m(other, scene.camera, _middle_s(scene)) for other in scene.with_role("subject", "prop")]
    mine = depth_m(thing, scene.camera, _middle_s(scene))
    if max(depths) < 1.35 * min(depths):
        return ""
    if mine == min(depths):
        return wording.depth[0]
    return wording.depth[1] if mine == max(depths) else ""


def _middle_s(scene: SceneSpec) -> float:
    return scene.shot.times_s[scene.shot.frames // 2]
