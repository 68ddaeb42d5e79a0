"""A dataset on disk (DESIGN section 6): opening, creating, resuming and finishing one.

DATASET/clips/<clip-id>.mp4, .txt   what a person opens: hard links to objects, and captions
DATASET/frames/<clip-id>/           lossless frames, where the recipe keeps them
DATASET/truth/<scene-id>/           ground truth, where the recipe asks for it
DATASET/labels.parquet, README.md   one typed row per clip; the dataset card
DATASET/.stopdown/                  plan.json, objects, records, lock
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from generator.card.files import lineage_files
from generator.card.origin import Origin, plan_origin
from generator.errors import DamagedError
from generator.io.atomic import write_atomic, write_pieces
from generator.io.checksummed_json import read_checksummed
from generator.io.file_lock import exclusive_lock
from generator.media.video import decode
from generator.recipe.plan import PLAN_FORMATS, ClipPlan, Plan, plan_format, rounded
from generator.recipe.schema import Recipe
from generator.store.labels import StoredLabels, label_table, write_labels
from generator.store.objects import ClipRecord, Store
from generator.store.splits import SplitRatios
from generator.truth.read_truth import TruthReader
from generator.truth.truth_names import FOLDER as TRUTH
from generator.truth.truth_names import frame_files, truth_files, view_path
from generator.versions.working.curation import shown_curation
from scenes.errors import InputError, closest

INTERNAL = ".stopdown"


class WorkingFolder:
    """A finished dataset, read lazily: labels as an Arrow table, clips as uint8 frames `[T, H, W, 3]`.

    `plan` is as the version that the folder shows was curated: less removed clips, with edited captions.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.plan = plan
        self.store = Store(path / INTERNAL)

    @classmethod
    def open(cls, path: Path | str) -> WorkingFolder:
        """Open a dataset folder; raises InputError when it is none, or not finished."""
        path = Path(path)
        plan = stored_plan(path)
        if plan is None:
            raise InputError(
                f"{path} is not a Stopdown dataset (it has no {INTERNAL}/plan.json); build one with `stopdown build`"
            )
        if not (path / "labels.parquet").is_file():
            raise InputError(f"the build of {path} is not finished (no labels.parquet); run the same `stopdown build` again")
        return cls(path, shown_curation(path).of(plan))

    def __len__(self) -> int:
        return len(self.plan.clips)

    @cached_property
    def labels(self) -> pa.Table:
        """The label table, one row per clip; see `generator.store.labels` for the schema.

        Raises DamagedError where it cannot be read.
        """
        try:
            return pq.read_table(self.path / "labels.parquet")
        except (pa.ArrowInvalid, OSError) as error:
            raise DamagedError(f"{self.path / 'labels.parquet'} cannot be read ({error}); run the build again") from None

    def clip(self, clip_id: str) -> ClipPlan:
        """Return a clip of the plan; raises InputError with the closest id."""
        return find_clip(self.plan, clip_id)

    def clip_path(self, clip_id: str) -> Path:
        """Return where a clip's .mp4 lies."""
        return clip_view(self.path, self.clip(clip_id).clip_id)

    def truth(self, clip_id: str) -> TruthReader:
        """Return the ground truth of a clip's scene as the folder shows it; raises InputError where it shows none."""
        folder = self.path / TRUTH / self.clip(clip_id).scene_id
        files = {file.relative_to(folder).as_posix(): str(file) for file in folder.rglob("*") if file.is_file()}
        return TruthReader(
            files,
            lambda file: Path(file).read_bytes(),
            f"clip {clip_id} in {self.path}",
            lambda file: Path(file).stat().st_size,
        )

    def frames(self, clip_id: str) -> NDArray[np.uint8]:
        """Return a clip's decoded sRGB frames, uint8 `[T, H, W, 3]`."""
        return decode(self.clip_path(clip_id))


def find_clip(plan: Plan, clip_id: str) -> ClipPlan:
    """Return a clip of a plan by id; raises InputError with the closest id."""
    try:
        return plan.clip_by_id[clip_id]
    except KeyError:
        raise InputError(
            f"no clip '{clip_id}' in '{plan.name}'{closest(clip_id, plan.clip_by_id)}; `stopdown plan --clips` lists all ids"
        ) from None


def clip_view(path: Path, clip_id: str) -> Path:
    """Return the path of a clip's .mp4 in a dataset folder."""
    return path / "clips" / f"{clip_id}.mp4"


def stored_plan(path: Path) -> Plan | None:
    """Return the plan of a dataset folder, finished or not, or None when the folder is no dataset.

    Raises DamagedError for a plan that cannot be read, InputError for one of a newer Stopdown.
    """
    file = path / INTERNAL / "plan.json"
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{file} cannot be read ({error})") from None
    try:
        version = json.loads(text).get("format")
    except (ValueError, AttributeError, RecursionError):  # digits without end, brackets without end
        raise DamagedError(f"{file} is damaged: it is not JSON; restore it or build into another folder") from None
    if version not in PLAN_FORMATS:
        raise unread_format(str(path), version)
    try:
        return Plan.from_json(text)
    except ValidationError as error:
        raise DamagedError(f"{file} is damaged: {error.errors()[0]['msg']}; restore it or build into another folder") from None


def unread_format(where: str, version: object) -> InputError:
    """Return the error for a plan of a format that this program does not know."""
    known = " and ".join(map(str, PLAN_FORMATS))
    return InputError(f"{where} has dataset format {version}, this Stopdown reads formats {known}; use the one that made it")


def check_target(path: Path, plan: Plan) -> bool:
    """Return whether the folder already holds a build of this plan; raises InputError when it must not be written to."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder for the dataset")
    earlier = stored_plan(path)
    if earlier is not None:
        if earlier.digest != plan.digest:
            state = "holds a dataset" if (path / "labels.parquet").is_file() else "holds an interrupted build"
            raise InputError(
                f"{path} {state} of another recipe ({difference(earlier.recipe, plan.recipe)}); build into another folder"
            )
        return True
    farm = read_checksummed(path / INTERNAL / "farm.json")
    if farm is not None:  # machines build here together, and write plan.json at the end
        try:
            recipe = Recipe.model_validate(farm.get("recipe"))
        except ValidationError as error:
            words = error.errors()[0]["msg"]
            raise DamagedError(f"{path / INTERNAL}/farm.json is damaged ({words}); build into another folder") from None
        if recipe != plan.recipe:
            where = difference(recipe, plan.recipe)
            raise InputError(f"{path} holds an interrupted build of another recipe ({where}); build into another folder")
        return False
    if (path / INTERNAL / "objects").exists():
        raise DamagedError(f"{path / INTERNAL} has objects but no plan.json; restore it or build into another folder")
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name != INTERNAL) if path.is_dir() else []
    if foreign:
        raise InputError(f"{path} is not empty (it has {foreign[0]}) and no Stopdown dataset; give a new or empty folder")
    return False


def retarget(path: Path, plan: Plan) -> None:
    """Turn the folder of a committed version into an unfinished build of another plan; the version stays in the history."""
    write_atomic(path / INTERNAL / "plan.json", plan.to_json().encode())
    (path / "labels.parquet").unlink(missing_ok=True)


def create_or_resume(path: Path, plan: Plan) -> Store:
    """Prepare a folder for a build of a plan and return its store; raises InputError where `check_target` does."""
    if not check_target(path, plan):
        write_atomic(path / INTERNAL / "plan.json", plan.to_json().encode())
    return Store(path / INTERNAL)


def difference(earlier: Recipe, later: Recipe) -> str:
    """Return the first key in which two recipes differ, as words."""
    before, after = (_leaves(recipe) for recipe in (earlier, later))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            return f"{key} is {before.get(key)} there and {after.get(key)} here"
    laws = {axis: later.law(axis) for axis in later.used_axes if later.law(axis) != later.layout_law(axis)}
    if plan_format(later) == 1 or not laws:
        return "same recipe, drawn by another version of Stopdown"
    layouts = "; ".join(f"axes.{axis}.layout = {{ {', '.join(law.recipe_keys())} }}" for axis, law in laws.items())
    return (
        f"same recipe, whose scenes an earlier Stopdown laid out for its own range of {' and '.join(laws)}; "
        f"the recipe keeps them with {layouts}"
    )


def same_recipe(earlier: Recipe, later: Recipe) -> bool:
    """Return whether two recipes are one to the digits that a plan keeps."""
    return _leaves(earlier) == _leaves(later)


def _leaves(recipe: Recipe) -> dict[str, Any]:
    tree = rounded(recipe.model_dump(mode="json"))
    if recipe.truth is not None:
        tree["truth"] = f"[{', '.join(recipe.truth.passes)}]"  # one leaf, also where it is empty
    return _flat(tree)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        return {key: value for name, part in tree.items() for key, value in _flat(part, f"{prefix}.{name}").items()}
    if isinstance(tree, list):
        return {key: value for n, part in enumerate(tree) for key, value in _flat(part, f"{prefix}.{n}").items()}
    return {prefix.removeprefix("."): tree}


def build_lock(path: Path) -> AbstractContextManager[None]:
    """Hold a dataset's build lock; a second build of the same folder on this machine is refused. A kill releases it."""
    return exclusive_lock(path / INTERNAL / "lock", f"another build is writing {path}; wait for it to end or stop it")


def finish(path: Path, plan: Plan, records: Mapping[str, ClipRecord], *, splits: SplitRatios | None = None) -> WorkingFolder:
    """Write views, captions, labels and card of a plan whose clips are all rendered; `records` are by clip id, `splits` the
    ratios of the version that it becomes.

    Repeating it changes nothing; `labels.parquet` is written last, so its presence says that the dataset is finished.
    """
    table = label_table(plan, records)
    with TemporaryDirectory(prefix="stopdown-labels-") as folder:
        labels = write_labels(Path(folder) / "labels.parquet", table.schema, [table])
        show(path, [plan], plan_origin(plan, splits=splits), labels, records, license=plan.recipe.license)
    return WorkingFolder(path, plan)


def show(
    path: Path,
    parts: Iterable[Plan],
    origin: Origin,
    labels: StoredLabels,
    records: Mapping[str, ClipRecord],
    *,
    license: str | None,
) -> None:
    """Show a plan that comes in parts in the working folder."""
    store = Store(path / INTERNAL)
    _remove_other_views(path, records)
    scenes: set[str] = set()  # those that have truth
    for clip in chain.from_iterable(part.clips for part in parts):
        record = records[clip.clip_id]
        store.link(record.sha256_bytes, clip_view(path, clip.clip_id))
        _write_if_changed(clip_view(path, clip.clip_id).with_suffix(".txt"), clip.caption.encode() + b"\n")
        for name, digest in frame_files(record.frames).items():
            store.link(digest, path / view_path(clip.clip_id, clip.scene_id, name))
        truth = truth_files(record.frames.items())
        if truth and clip.scene_id not in scenes:  # all clips of a scene have one
            scenes.add(clip.scene_id)
            _show_truth(store, truth, path / TRUTH / clip.scene_id)
    _remove_other_folders(path / TRUTH, scenes)
    for name, pieces in lineage_files(origin, labels, license=license).items():
        made = labels.file.with_name(name)
        write_pieces(made, pieces)
        _write_if_changed(path / name, made)
    _write_if_changed(path / "labels.parquet", labels.file)


def _remove_other_views(path: Path, shown: Container[str]) -> None:
    """Remove what an earlier plan of this folder showed and this one does not; its objects stay in the store."""
    for view in _entries(path / "clips"):
        if view.suffix in (".mp4", ".txt") and view.stem not in shown:
            view.unlink()
    _remove_other_folders(path / "frames", shown)


def _show_truth(store: Store, files: Mapping[str, str], folder: Path) -> None:
    """Link a scene's truth into its folder, and remove what an earlier one left there."""
    for name, digest in files.items():
        store.link(digest, folder / name)
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        if str(file.relative_to(folder)) not in files:
            file.unlink()
    for inner in _entries(folder):
        if inner.is_dir() and not any(inner.iterdir()):
            inner.rmdir()


def _remove_other_folders(path: Path, shown: Container[str]) -> None:
    for folder in list(_entries(path)):
        if folder.name not in shown:
            shutil.rmtree(folder)
    with suppress(OSError):  # there is none, or it is not empty
        path.rmdir()


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what lies in a folder, where there is one, one by one: there may be a million clips."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from (Path(entry) for entry in entries)


def _write_if_changed(target: Path, data: bytes | Path) -> None:
    if target.is_file():
        same = filecmp.cmp(target, data, shallow=False) if isinstance(data, Path) else target.read_bytes() == data
        if same:
            return
    write_atomic(target, data)
