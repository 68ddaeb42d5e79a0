"""What the build and its render processes say to each other: plain frozen data, small enough to cross a pipe in one piece."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generator.recipe.render_settings import RenderSettings
from generator.recipe.schema import Video
from generator.recipe.truth_section import Pass
from scenes.spec import Optics, SceneSpec


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """One clip to render: its identity, the key of its record, its optics, and its physical values by axis.

    `donors` are keys of records of the same frames with other truth beside them: where there is one, nothing is rendered.
    """

    clip_id: str
    key: str
    optics: Optics
    values: dict[str, float]
    donors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TruthJob:
    """The ground truth that a scene's clips share: the key by which the store finds it, and its passes."""

    key: str
    passes: tuple[Pass, ...]


@dataclass(frozen=True, kw_only=True)
class SceneJob:
    """Clips of one scene, rendered by one process one after the other, and the truth that they share, if any."""

    scene_id: str
    spec: SceneSpec
    clips: tuple[ClipJob, ...]
    truth: TruthJob | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What every render process of a build shares; `blender` is the version of Blender that its records name."""

    store: Path
    render: RenderSettings
    video: Video
    threads: int
    blender: str


@dataclass(frozen=True)
class Ready:
    """The process has loaded Blender and waits for work."""


@dataclass(frozen=True)
class Started:
    """A clip is being rendered."""

    clip_id: str


@dataclass(frozen=True)
class Done:
    """A clip's record is in the store, after this many CPU seconds; 0 where another process had finished it before."""

    clip_id: str
    cpu_s: float


@dataclass(frozen=True)
class Failed:
    """A clip could not be rendered; `message` is one line."""

    clip_id: str
    message: str


@dataclass(frozen=True)
class NoSpace:
    """The disk is full: no clip can be finished."""

    message: str


@dataclass(frozen=True)
class SceneDone:
    """Every clip of the scene is done or has failed; the process waits for work."""


Event = Ready | Started | Done | Failed | NoSpace | SceneDone
