"""Unit meshes of the things a scene is made of, as pure numpy: each fits the cube [-0.5, 0.5]^3, symmetric about Z.

Faces are counter-clockwise seen from outside. Every solid is a closed manifold; `plane` and `disc` are single faces
that look along +Z. Smooth solids of revolution keep their sharp rims by two narrow support loops beside each rim, so
that interpolated normals round the rim over `RIM` of the unit and leave the rest exact.

Array legend: V vertices, 3 coordinates; R rings, S segments of a revolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np

from scenes.arrays import Floats
from scenes.errors import InputError, closest

Face = tuple[int, ...]
Point = tuple[float, float]

SEGMENTS = 64  # a 200 px circle misses its chord by 0.12 px
RIM = 0.008


@dataclass(frozen=True, eq=False)
class Mesh:
    """A polygon mesh: vertices `[V, 3]` (unit lengths, read-only), faces as vertex indices; smooth normals or flat."""

    vertices_V3: Floats
    faces: tuple[Face, ...]
    smooth: bool

    @property
    def area_vectors_F3(self) -> Floats:
        """Return each face's outward normal times its area `[F, 3]` (Newell's method; faces are nearly planar)."""
        vectors = []
        for face in self.faces:
            corners_K3 = self.vertices_V3[list(face)]
            vectors.append(np.cross(corners_K3, np.roll(corners_K3, -1, axis=0)).sum(axis=0) / 2)
        return np.array(vectors)


def _mesh(vertices: Sequence[Sequence[float]] | Floats, faces: Sequence[Face], *, smooth: bool) -> Mesh:
    vertices_V3 = np.array(vertices, dtype=np.float64)
    vertices_V3.setflags(write=False)
    return Mesh(vertices_V3, tuple(faces), smooth)


def _revolve(profile: Sequence[Point], segments: int = SEGMENTS) -> Mesh:
    """Turn a profile of (radius, z), from the bottom pole to the top pole, into a smooth closed solid."""
    angles_S = np.arange(segments) * (2 * math.pi / segments)
    rings = profile[1:-1]
    vertices = [(0.0, 0.0, profile[0][1])]
    for radius, z in rings:
        vertices += [(radius * math.cos(angle), radius * math.sin(angle), z) for angle in angles_S]
    vertices.append((0.0, 0.0, profile[-1][1]))
    top = len(vertices) - 1
    faces: list[Face] = []
    for segment in range(segments):
        following = (segment + 1) % segments
        faces.append((0, 1 + following, 1 + segment))
        for ring in range(len(rings) - 1):
            low, high = 1 + ring * segments, 1 + (ring + 1) * segments
            faces.append((low + segment, low + following, high + following, high + segment))
        last = 1 + (len(rings) - 1) * segments
        faces.append((last + segment, last + following, top))
    return _mesh(vertices, faces, smooth=True)


def _arc(radius: float, center_z: float, start_rad: float, stop_rad: float, steps: int) -> list[Point]:
    """Return (radius, z) along a meridian, from latitude start to stop, ends included."""
    latitudes = np.linspace(start_rad, stop_rad, steps + 1)
    return [(radius * math.cos(angle), center_z + radius * math.sin(angle)) for angle in latitudes]


def _prism(outline: Sequence[Point], half_height: float) -> Mesh:
    """Extrude a counter-clockwise outline in XY along Z, with flat faces."""
    count = len(outline)
    vertices = [(x, y, -half_height) for x, y in outline] + [(x, y, half_height) for x, y in outline]
    faces: list[Face] = [tuple(range(count - 1, -1, -1)), tuple(range(count, 2 * count))]
    for corner in range(count):
        following = (corner + 1) % count
        faces.append((corner, following, count + following, count + corner))
    return _mesh(vertices, faces, smooth=False)


def _regular(count: int, radius: float = 0.5) -> list[Point]:
    turn = 2 * math.pi / count
    return [(radius * math.cos(turn * index), radius * math.sin(turn * index)) for index in range(count)]


def sphere() -> Mesh:
    """A ball of diameter 1."""
    return _revolve(_arc(0.5, 0.0, -math.pi / 2, math.pi / 2, SEGMENTS // 2))


def cube() -> Mesh:
    """A cube of side 1."""
    return _prism([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)], 0.5)


def cylinder() -> Mesh:
    """A cylinder of diameter 1 and height 1."""
    inner, rim = 0.5 - RIM, 0.5
    bottom = [(0.0, -rim), (inner, -rim), (rim, -rim), (rim, -inner)]
    return _revolve(bottom + [(radius, -z) for radius, z in reversed(bottom)])


def cone() -> Mesh:
    """A cone of base diameter 1 and height 1, apex up."""
    side = [(0.5 * (1.0 - share), share - 0.5) for share in (RIM, 0.5, 1.0 - 2 * RIM)]
    return _revolve([(0.0, -0.5), (0.5 - RIM, -0.5), (0.5, -0.5), *side, (0.0, 0.5)])


def capsule() -> Mesh:
    """A cylinder with round ends: height 1, diameter 0.5."""
    bottom = _arc(0.25, -0.25, -math.pi / 2, 0.0, SEGMENTS // 4)
    return _revolve(bottom + [(radius, -z) for radius, z in reversed(bottom)])


def torus() -> Mesh:
    """A ring of outer diameter 1 whose tube is 0.3 thick."""
    tube, around, across = 0.15, SEGMENTS + SEGMENTS // 2, SEGMENTS // 2
    vertices: list[tuple[float, float, float]] = []
    faces: list[Face] = []
    for turn in range(around):
        angle = 2 * math.pi * turn / around
        following_turn = (turn + 1) % around
        for step in range(across):
            slope = 2 * math.pi * step / across
            radius = 0.5 - tube + tube * math.cos(slope)
            vertices.append((radius * math.cos(angle), radius * math.sin(angle), tube * math.sin(slope)))
            following = (step + 1) % across
            low, high = turn * across, following_turn * across
            faces.append((low + step, high + step, high + following, low + following))
    return _mesh(vertices, faces, smooth=True)


def icosphere() -> Mesh:
    """A ball of 80 flat triangles: an icosahedron divided once."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    vertices = [np.roll(np.array(corner, dtype=np.float64), shift) for shift in range(3) for corner in corners]
    vertices = [corner / np.linalg.norm(corner) / 2 for corner in vertices]
    edge = min(float(np.linalg.norm(vertices[0] - other)) for other in vertices[1:]) * 1.001
    near = [[float(np.linalg.norm(a - b)) < edge for b in vertices] for a in vertices]
    middles: dict[tuple[int, int], int] = {}

    def middle(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in middles:
            point = vertices[a] + vertices[b]
            vertices.append(point / np.linalg.norm(point) / 2)
            middles[key] = len(vertices) - 1
        return middles[key]

    faces: list[Face] = []
    for a in range(12):
        for b in range(a + 1, 12):
            for c in range(b + 1, 12):
                if not (near[a][b] and near[b][c] and near[a][c]):
                    continue
                outward = float(np.dot(np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a]), vertices[a])) > 0
                i, j, k = (a, b, c) if outward else (a, c, b)
                ij, jk, ki = middle(i, j), middle(j, k), middle(k, i)
                faces += [(i, ij, ki), (ij, j, jk), (ki, jk, k), (ij, jk, ki)]
    return _mesh(np.array(vertices), faces, smooth=False)


def star_prism() -> Mesh:
    """A five-pointed star in XY, 0.36 thick."""
    turn = math.pi / 5
    radii = [0.5 if index % 2 == 0 else 0.23 for index in range(10)]
    outline = [
        (radius * math.cos(math.pi / 2 + turn * index), radius * math.sin(math.pi / 2 + turn * index))
        for index, radius in enumerate(radii)
    ]
    return _prism(outline, 0.18)


def hex_prism() -> Mesh:
    """A hexagonal prism of diameter 1 (corner to corner) and height 1."""
    return _prism(_regular(6), 0.5)


def pyramid() -> Mesh:
    """A square pyramid of base 1 and height 1, apex up."""
    base = [(-0.5, -0.5, -0.5), (0.5, -0.5, -0.5), (0.5, 0.5, -0.5), (-0.5, 0.5, -0.5), (0.0, 0.0, 0.5)]
    return _mesh(base, [(3, 2, 1, 0), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)], smooth=False)


def plane() -> Mesh:
    """A unit square in XY at z = 0, facing +Z."""
    return _mesh([(-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)], [(0, 1, 2, 3)], smooth=False)


def disc() -> Mesh:
    """A disc of diameter 1 in XY at z = 0, facing +Z."""
    return _mesh([(x, y, 0.0) for x, y in _regular(SEGMENTS)], [tuple(range(SEGMENTS))], smooth=False)


PRIMITIVES: Mapping[str, Callable[[], Mesh]] = MappingProxyType(
    {
        "sphere": sphere,
        "cube": cube,
        "cylinder": cylinder,
        "cone": cone,
        "torus": torus,
        "icosphere": icosphere,
        "star_prism": star_prism,
        "capsule": capsule,
        "pyramid": pyramid,
        "hex_prism": hex_prism,
        "plane": plane,
        "disc": disc,
    }
)

SOLID_KINDS: tuple[str, ...] = tuple(kind for kind in PRIMITIVES if kind not in ("plane", "disc"))

spoken: Mapping[str, str] = MappingProxyType(
    {kind: kind.replace("_", " ") for kind in PRIMITIVES} | {"hex_prism": "hexagonal prism"}
)


@cache
def mesh(kind: str) -> Mesh:
    """Return the unit mesh of a kind, built once; raises InputError for an unknown kind."""
    if kind not in PRIMITIVES:
        raise InputError(f"primitive '{kind}' is unknown{closest(kind, PRIMITIVES)}; choose one of {', '.join(PRIMITIVES)}")
    return PRIMITIVES[kind]()
