"""Laws of the unit meshes: bounds, closed manifolds, outward faces, known volumes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from scenes.errors import InputError
from scenes.primitives import PRIMITIVES, SOLID_KINDS, Mesh, mesh, spoken

OPEN_KINDS = ("plane", "disc")


def directed_edges(shape: Mesh) -> Counter[tuple[int, int]]:
    return Counter((face[index], face[(index + 1) % len(face)]) for face in shape.faces for index in range(len(face)))


def volume(shape: Mesh) -> float:
    total = 0.0
    for face in shape.faces:
        corners = shape.vertices_V3[list(face)]
        for index in range(1, len(face) - 1):
            total += float(np.dot(corners[0], np.cross(corners[index], corners[index + 1]))) / 6
    return total


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_fits_the_unit_cube_and_reaches_its_walls(kind: str) -> None:
    vertices = mesh(kind).vertices_V3
    assert vertices.dtype == np.float64
    assert np.abs(vertices).max() <= 0.5 + 1e-12
    assert np.abs(vertices).max() > 0.499 or kind == "icosphere"


@pytest.mark.parametrize("kind", SOLID_KINDS)
def test_solids_are_closed_manifolds(kind: str) -> None:
    shape = mesh(kind)
    edges = directed_edges(shape)
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)
    euler = len(shape.vertices_V3) - len(edges) // 2 + len(shape.faces)
    assert euler == (0 if kind == "torus" else 2)
    assert {index for face in shape.faces for index in face} == set(range(len(shape.vertices_V3)))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sphere", math.pi / 6),
        ("cube", 1.0),
        ("cylinder", math.pi / 4),
        ("cone", math.pi / 12),
        ("torus", 2 * math.pi**2 * 0.35 * 0.15**2),
        ("capsule", math.pi * 0.25**2 * 0.5 + 4 / 3 * math.pi * 0.25**3),
        ("pyramid", 1 / 3),
        ("hex_prism", 1.5 * math.sqrt(3) * 0.25),
    ],
)
def test_volume_is_the_closed_form(kind: str, expected: float) -> None:
    assert volume(mesh(kind)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("kind", SOLID_KINDS)
def test_faces_look_outwards(kind: str) -> None:
    shape = mesh(kind)
    assert volume(shape) > 0.05
    assert np.abs(shape.area_vectors_F3.sum(axis=0)).max() < 1e-9  # a closed surface has no net area
    if kind not in ("torus", "star_prism"):  # convex: every face looks away from the centre
        centers = np.array([shape.vertices_V3[list(face)].mean(axis=0) for face in shape.faces])
        inside = shape.vertices_V3.mean(axis=0)
        assert (((centers - inside) * shape.area_vectors_F3).sum(axis=1) > 0).all()


@pytest.mark.parametrize("kind", OPEN_KINDS)
def test_flat_kinds_look_up(kind: str) -> None:
    shape = mesh(kind)
    assert (shape.vertices_V3[:, 2] == 0).all()
    assert (shape.area_vectors_F3[:, 2] > 0).all()


@pytest.mark.parametrize("kind", ["sphere", "cylinder", "torus", "disc"])
def test_a_200_px_silhouette_has_no_visible_facets(kind: str) -> None:
    angles = np.linspace(0, 2 * math.pi, 1000)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    support_px = 200 * (mesh(kind).vertices_V3[:, :2] @ directions).max(axis=0)
    assert support_px.max() == pytest.approx(100.0, abs=1e-6)
    assert support_px.min() > 99.8


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_meshes_are_cached_and_read_only(kind: str) -> None:
    assert mesh(kind) is mesh(kind)
    with pytest.raises(ValueError, match="read-only"):
        mesh(kind).vertices_V3[0, 0] = 9.0


def test_every_kind_has_a_spoken_name() -> None:
    assert set(spoken) == set(PRIMITIVES)
    assert not any("_" in name for name in spoken.values())


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'torus'") as caught:
        mesh("taurus")
    assert "\n" not in str(caught.value)
