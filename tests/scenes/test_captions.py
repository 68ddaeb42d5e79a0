"""Captions: name everything, tell the truth about the picture, stay short, never speak of the effect."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenes.camera import image_plane_velocity, unproject
from scenes.families.captions import MAX_WORDS, article, caption, caption_parts, joined, plural
from scenes.motion import random_orientation
from scenes.palette import BACKGROUNDS, COLORS, color
from scenes.primitives import SOLID_KINDS, spoken
from scenes.spec import Camera, Light, Material, Motion, Role, SceneSpec, Shot, Solid

EFFECT = re.compile(
    r"\b(blur|bokeh|warm|cool|cold|kelvin|exposure|aperture|shutter|focus|focal|sharp|soft|crisp|lens|depth|tint|"
    r"balance|temperature|grain|nois|render|blender|f/)"
)
SHOT = Shot(width=512, height=512, fps=16, frames=9)
CAMERA = Camera(location_m=(0.0, -5.0, 1.0), target_m=(0.0, 0.0, 1.0), focal_length_mm=50.0, focus_distance_m=5.0)
seeds = st.integers(0, 2**32)


def solid(
    x_px: float = 256.0,
    *,
    name: str = "red",
    kind: str = "cube",
    role: Role = "subject",
    depth: float = 5.0,
    velocity: tuple[float, float] = (0.0, 0.0),
    spin: float = 0.0,
    size_m: float = 0.6,
) -> Solid:
    return Solid(
        name=f"{name} {kind}",
        role=role,
        kind=kind,
        scale_m=(size_m, size_m, size_m),
        material=Material(color_name=name, albedo=color(name)),
        motion=Motion(
            location_m=tuple(unproject(CAMERA, SHOT, x_px, 256.0, depth).tolist()),
            velocity_m_per_s=tuple(image_plane_velocity(CAMERA, SHOT, velocity, depth).tolist()),
            spin_rad_per_s=spin,
            spin_axis=(1.0, 0.0, 0.0),
        ),
    )


def scene(*solids: Solid, backdrop: str = "pale blue") -> SceneSpec:
    light = Light(direction=(0.3, -1.0, 1.0))
    return SceneSpec(family="test", shot=SHOT, camera=CAMERA, light=light, background=BACKGROUNDS[backdrop], solids=solids)


def random_scene(rng: np.random.Generator) -> SceneSpec:
    names, kinds, backdrops = tuple(COLORS), SOLID_KINDS, tuple(BACKGROUNDS)
    solids = []
    for _ in range(int(rng.integers(1, 6))):
        moving = solid(
            float(rng.uniform(60, 450)),
            name=names[int(rng.integers(len(names)))],
            kind=kinds[int(rng.integers(len(kinds)))],
            role=("subject", "prop")[int(rng.integers(2))],
            depth=float(rng.uniform(3, 9)),
            velocity=tuple(rng.uniform(-600, 600, 2).tolist()) if rng.random() < 0.6 else (0.0, 0.0),
            spin=float(rng.choice([0.0, 3.0])),
        )
        turned = moving.motion.model_copy(update={"orientation": random_orientation(rng)})
        solids.append(moving.model_copy(update={"motion": turned}))
    if rng.random() < 0.4:
        solids.append(solid(name="beige", kind="plane", role="ground", size_m=20.0))
    solids += [solid(role="highlight", name="white", kind="sphere", depth=12.0) for _ in range(int(rng.integers(3)))]
    solids += [solid(role="patch", name="lime", kind="plane")] * int(rng.integers(2))
    return scene(*solids, backdrop=backdrops[int(rng.integers(len(backdrops)))])


def words_of(spec: SceneSpec, effect: str | None = None, count: int = 40) -> list[str]:
    return [caption(spec, np.random.default_rng(seed), effect) for seed in range(count)]


@settings(deadline=None, max_examples=300)
@given(seeds, seeds)
def test_captions_name_everything_and_never_the_effect(content: int, phrasing: int) -> None:
    spec = random_scene(np.random.default_rng(content))
    words = caption(spec, np.random.default_rng(phrasing))
    assert words == caption(spec, np.random.default_rng(phrasing))
    for thing in spec.with_role("subject", "prop"):
        one = f"{thing.material.color_name} {spoken[thing.kind]}"
        assert one in words.lower() or plural(one) in words.lower()
    assert spec.background.name in words.lower()
    assert not EFFECT.search(words.lower())
    assert "  " not in words and " ," not in words and " ." not in words and "_" not in words
    assert words[0].isupper() and words.endswith(".") and words.count(".") == 1
    assert not re.search(r"\ba [aeiou]", words.lower()) and not re.search(r"\ban [^aeiou]", words.lower())
    assert len(words.split()) <= MAX_WORDS
    assert ("light" in words.replace("light grey", "")) == bool(spec.with_role("highlight"))
    assert "lime plane" not in words.lower()


@pytest.mark.parametrize(
    ("velocity", "expected"),
    [
        ((300.0, 0.0), "from left to right"),
        ((-300.0, 0.0), "from right to left"),
        ((0.0, -300.0), "upwards"),
        ((0.0, 300.0), "downwards"),
        ((300.0, -300.0), "towards the upper right"),
        ((-300.0, 300.0), "towards the lower left"),
    ],
)
def test_direction_is_the_one_seen_in_the_picture(velocity: tuple[float, float], expected: str) -> None:
    assert all(expected in words for words in words_of(scene(solid(velocity=velocity))))


MOTION = re.compile(
    r"\b(mov|glid|fl(y|ies)|travel|spin|rotat|turn|slowly|quickly|towards|upwards|downwards|from left|from right)"
)


@settings(max_examples=150)
@given(seed=seeds)
def test_of_two_parts_one_says_what_there_is_and_the_other_how_it_moves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = random_scene(rng)
    parts = caption_parts(spec, rng)
    things = spec.with_role("subject", "prop")
    assert all(f"{thing.material.color_name} {spoken[thing.kind]}"[:-2] in parts.content.lower() for thing in things)
    assert not MOTION.search(parts.content.lower()) and not EFFECT.search(parts.whole.lower())
    assert parts.content.count(".") == parts.motion.count(".") == 1
    assert "  " not in parts.whole and " ." not in parts.whole and " ," not in parts.whole
    speeds = [np.linalg.norm(thing.motion.velocity_m_per_s) for thing in things]
    if not any(speeds) and not any(thing.motion.spin_rad_per_s for thing in things):
        assert parts.motion == "Nothing moves."
    assert caption_parts(spec, np.random.default_rng(7)) == caption_parts(spec, np.random.default_rng(7))


def test_the_motion_part_names_what_moves_and_tells_equal_things_apart() -> None:
    one, two = solid(velocity=(300.0, 0.0)), solid(velocity=(-300.0, 0.0), x_px=100.0)
    rest = solid(name="blue", kind="sphere")
    words = caption_parts(scene(one, rest), np.random.default_rng(0)).motion
    assert re.fullmatch(r"The red cube \w+ from left to right\.", words.replace(" quickly", "")), words
    words = caption_parts(scene(one, two), np.random.default_rng(0)).motion
    assert words.startswith("One red cube ") and " and another red cube " in words
    words = caption_parts(scene(one, one), np.random.default_rng(0)).motion
    assert words.startswith("The two red cubes ")


def test_motion_along_the_view_is_towards_or_away() -> None:
    still = solid()
    coming = still.model_copy(update={"motion": still.motion.model_copy(update={"velocity_m_per_s": (0.0, -1.0, 0.0)})})
    assert all("towards the camera" in words for words in words_of(scene(coming)))


def test_speed_words_follow_speed() -> None:
    slow, quick = scene(solid(velocity=(60.0, 0.0))), scene(solid(velocity=(600.0, 0.0)))
    assert all("slowly" in words and "quickly" not in words for words in words_of(slow))
    assert all("quickly" in words and "slowly" not in words for words in words_of(quick))


def test_spin_is_named_only_where_it_shows() -> None:
    turning = re.compile("spin|rotat|turn")
    assert all(turning.search(words) for words in words_of(scene(solid(spin=3.0))))
    assert not any(turning.search(words) for words in words_of(scene(solid(spin=3.0, kind="sphere"))))
    assert not any(turning.search(words) for words in words_of(scene(solid())))


def test_places_are_those_of_the_picture() -> None:
    spec = scene(solid(90.0, name="blue"), solid(430.0, name="green", kind="cone"))
    for words in words_of(spec):
        assert re.search(r"blue cube( \w+)? on the left", words)
        assert re.search(r"green cone( \w+)? on the right", words)


def test_sizes_and_depths_are_compared() -> None:
    spec = scene(solid(100.0, name="blue", depth=3.0), solid(400.0, name="green", kind="cone", depth=9.0))
    drawn = words_of(spec)
    assert all("large blue cube" in words.lower() and "small green cone" in words for words in drawn)
    near, far = re.compile("foreground|near the camera"), re.compile("in the distance|far from the camera")
    told = [words for words in drawn if near.search(words)]
    assert told and all(far.search(words) for words in told)
    flipped = re.compile("blue cube[^,]*?(in the distance|far from)[^,]* and")
    assert not any(flipped.search(words) for words in drawn)


def test_equal_things_are_counted_and_others_told_apart() -> None:
    twins = scene(solid(250.0, kind="torus"), solid(260.0, kind="torus"))
    assert all("two red tori" in words.lower() for words in words_of(twins))
    apart = scene(solid(90.0), solid(430.0))
    assert all("a red cube" in words.lower() and "another red cube" in words for words in words_of(apart))


def test_ground_is_a_surface() -> None:
    spec = scene(solid(), solid(name="orange", kind="plane", role="ground", size_m=20.0))
    assert all(re.search("on an orange (surface|tabletop|floor)", words.lower()) for words in words_of(spec))


def test_phrasings_vary_with_the_seed() -> None:
    assert len(set(words_of(scene(solid(velocity=(200.0, 0.0)))))) > 15


def test_effect_is_appended_when_asked() -> None:
    plain, told = words_of(scene(solid())), words_of(scene(solid()), "shallow depth of field")
    assert [f"{words[:-1]}, shallow depth of field." for words in plain] == told


def test_grammar_helpers() -> None:
    assert [article("orange cone"), article("red cone")] == ["an orange cone", "a red cone"]
    assert [joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [plural("red torus"), plural("hexagonal prism")] == ["red tori", "hexagonal prisms"]
