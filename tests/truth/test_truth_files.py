"""Truth's files hold what was put into them, to the precision of each format; rays are cast where geometry says they meet."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from generator.errors import DamagedError
from generator.media.png16 import png16_bytes, read_png16
from generator.truth.flow import Geometry, Moment, flow_between
from generator.truth.pass_files import (
    HIDDEN,
    UNKNOWN,
    VISIBLE,
    depth_bytes,
    flow_bytes,
    instances_bytes,
    read_depth,
    read_flow,
    read_instances,
)
from generator.truth.raster import depth_of_mesh, triangles
from generator.truth.stage import pose_at
from generator.truth.view_camera import ViewCamera
from generator.verify.truth_measures import cast
from scenes.motion import axis_angle
from scenes.primitives import mesh
from scenes.spec import Background, Camera, Light, Material, Motion, SceneSpec, Shot, Solid

SHOT = Shot(width=48, height=40, fps=16, frames=2)
CAMERA = Camera(location_m=(0.0, -5.0, 0.5), target_m=(0.0, 0.0, 0.0), focal_length_mm=50.0, focus_distance_m=5.0)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_flow_comes_back_to_a_128th_of_a_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flow_HW2 = rng.uniform(-500, 500, (6, 10, 2)).astype(np.float32)
    state_HW = rng.integers(0, 3, (6, 10)).astype(np.uint8)
    read_HW2, read_HW = read_flow(flow_bytes(flow_HW2, state_HW))
    known_HW = state_HW != UNKNOWN
    assert (read_HW == state_HW).all() and not read_HW2[~known_HW].any()
    assert np.abs(read_HW2 - flow_HW2)[known_HW].max(initial=0.0) <= 1 / 128 + 1e-4


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 255, 256, 40_000]))
def test_ids_and_depth_come_back(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    ids_HW = rng.integers(0, most + 1, (6, 10)).astype(np.uint16)
    ids_HW[0, 0] = most
    data = instances_bytes(ids_HW)
    assert (read_instances(data) == ids_HW).all()
    assert Image.open(io.BytesIO(data)).mode == ("P" if most <= 255 else "I;16")
    depth_HW = np.where(ids_HW % 2 == 0, np.inf, rng.uniform(0.01, 1000, (6, 10))).astype(np.float32)
    read_HW = read_depth(depth_bytes(depth_HW))
    assert (np.isinf(read_HW) == np.isinf(depth_HW)).all()
    assert np.abs(read_HW / np.where(np.isinf(depth_HW), 1, depth_HW) - 1)[~np.isinf(depth_HW)].max(initial=0.0) <= 2**-11


def test_sixteen_bits_a_channel_survive_and_what_is_no_png_is_refused() -> None:
    picture = np.random.default_rng(0).integers(0, 2**16, (7, 9, 3)).astype(np.uint16)
    data = png16_bytes(picture)
    assert (read_png16(data) == picture).all() and data.startswith(b"\x89PNG")
    for bad in (b"no picture", data[:40], instances_bytes(np.zeros((4, 4), np.uint16))):
        with pytest.raises(DamagedError):
            read_png16(bad)
    with pytest.raises(DamagedError):
        read_depth(data)


def test_a_ray_meets_the_middle_of_a_cube_and_of_a_ball() -> None:
    camera = ViewCamera.of(Camera(location_m=(0, -4, 0), target_m=(0, 0, 0), focal_length_mm=50, focus_distance_m=4), SHOT)
    for kind, depth_m in (("cube", 3.5), ("sphere", 3.5), ("torus", math.inf)):
        shape = mesh(kind)
        world = triangles(shape.vertices_V3 if kind != "torus" else shape.vertices_V3[:, [0, 2, 1]], shape.faces)
        found = depth_of_mesh(world, camera, SHOT.height, SHOT.width)[SHOT.height // 2, SHOT.width // 2]
        assert found == pytest.approx(depth_m, abs=5e-3)  # half a pixel beside the middle


def solid(name: str, kind: str, motion: Motion, scale: float = 1.0) -> Solid:
    grey = Material(color_name="grey", albedo=(0.2, 0.2, 0.2))
    return Solid(name=name, role="prop", kind=kind, scale_m=(scale,) * 3, material=grey, motion=motion)


def moments(solids: tuple[Solid, ...]) -> list[Moment]:
    """Return two frames of a scene, cast in numpy: no Blender has a part in these laws."""
    spec = SceneSpec(
        family="flyby", shot=SHOT, camera=CAMERA, light=Light(direction=(0, 0, 1)), solids=solids,
        background=Background(name="grey", bottom=(0.1, 0.1, 0.1), top=(0.1, 0.1, 0.1)),
    )  # fmt: skip
    camera, found = ViewCamera.of(CAMERA, SHOT), []
    for frame in range(2):
        ids_HW, depth_HW = cast(spec, frame)
        rays_HW3 = camera.rays(SHOT.height, SHOT.width)
        points_HW3 = camera.location_3 + rays_HW3 * np.where(np.isinf(depth_HW), 0.0, depth_HW)[..., None]
        facing_HW3 = -rays_HW3 / np.linalg.norm(rays_HW3, axis=-1, keepdims=True)
        geometry = Geometry(ids_HW=ids_HW, points_HW3=points_HW3.astype(np.float32), normals_HW3=facing_HW3.astype(np.float32))
        poses = [pose_at(one.motion, SHOT.times_s[frame]) for one in solids]
        found.append(Moment(geometry=geometry, camera=camera, poses=poses))
    return found


number = st.floats(-1.0, 1.0, width=32)


@settings(max_examples=12)
@given(st.tuples(number, number, number), number, st.tuples(number, number, number))
def test_flow_ends_on_the_same_thing_and_leads_back(speed: tuple[float, ...], spin: float, at: tuple[float, ...]) -> None:
    motion = Motion(
        location_m=(at[0] * 0.5, at[1], at[2] * 0.3), velocity_m_per_s=(speed[0] * 6, speed[1] * 6, speed[2] * 6),
        orientation=axis_angle((1.0, 0.5, 0.2), 0.7), spin_rad_per_s=spin,
    )  # fmt: skip
    here, there = moments((solid("mover", "sphere", motion), solid("wall", "cube", Motion(location_m=(0.4, 2.5, 0)))))
    flow_HW2, state_HW = flow_between(here, there)
    _, back_HW = flow_between(there, here)
    rows, columns = np.nonzero(state_HW == VISIBLE)
    end_N2 = np.stack([columns, rows], axis=1) + 0.5 + flow_HW2[rows, columns]
    column_N, row_N = np.floor(end_N2).astype(int).T
    assert (there.geometry.ids_HW[row_N, column_N] == here.geometry.ids_HW[rows, columns]).all()
    assert (state_HW != UNKNOWN).all() and set(np.unique(back_HW)) <= {VISIBLE, HIDDEN}
    still = here.geometry.ids_HW != 1
    assert not flow_HW2[still].any()


def test_what_goes_behind_a_wall_or_out_of_the_picture_is_hidden() -> None:
    wall = solid("wall", "cube", Motion(location_m=(0.9, -1.5, 0.2)))
    step = Motion(location_m=(-0.6, 0.5, 0.0), velocity_m_per_s=(1.5 * 16, 0.0, 0.0))
    here, there = moments((solid("mover", "sphere", step, 0.5), wall))
    flow_HW2, state_HW = flow_between(here, there)
    mover = here.geometry.ids_HW == 1
    assert mover.sum() > 20 and (state_HW[mover] == HIDDEN).all() and (flow_HW2[mover, 0] > 5).all()
    gone = Motion(location_m=(0.0, 0.0, 0.0), velocity_m_per_s=(5.0 * 16, 0.0, 0.0))
    here, there = moments((solid("mover", "sphere", gone, 0.5),))
    assert (flow_between(here, there)[1][here.geometry.ids_HW == 1] == HIDDEN).all()
    behind = Motion(location_m=(0.0, 0.0, 0.0), velocity_m_per_s=(0.0, -8.0 * 16, 0.0))
    here, there = moments((solid("mover", "sphere", behind, 0.5),))
    assert (flow_between(here, there)[1][here.geometry.ids_HW == 1] == UNKNOWN).all()


def test_the_background_moves_with_a_camera_that_turns() -> None:
    here, _ = moments(())
    turned = Camera(location_m=CAMERA.location_m, target_m=(0.1, 0.0, 0.0), focal_length_mm=50.0, focus_distance_m=5.0)
    there = Moment(geometry=here.geometry, camera=ViewCamera.of(turned, SHOT), poses=())
    flow_HW2, state_HW = flow_between(here, there)
    middle = flow_HW2[SHOT.height // 2, SHOT.width // 2]
    expected = -math.tan(math.atan(0.1 / 5.0)) * 50 / 36 * SHOT.width
    assert middle[0] == pytest.approx(expected, rel=0.03) and abs(middle[1]) < 0.05
    assert {int(state) for state in np.unique(state_HW)} == {VISIBLE, HIDDEN}
