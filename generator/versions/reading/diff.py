"""The difference of two versions: clips added, removed and changed, labels field by field, recipes key by key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from generator.store.stored_plans import flat
from generator.versions.history.history import History
from generator.versions.history.version import Version
from generator.versions.manifest.leaves import differing, read_leaf, unified
from generator.versions.manifest.tree import Leaf


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One field of a clip's row, or one key of a recipe: before and after, None where there is none."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class ClipChange:
    """A clip that both versions have and that differs."""

    clip_id: str
    fields: tuple[FieldChange, ...]

    @property
    def picture(self) -> bool:
        """Whether its frames differ, not only its labels."""
        return any(change.field == "sha256_frames" for change in self.fields)


@dataclass(frozen=True, kw_only=True)
class VersionDiff:
    """What changed from `before` to `after`; ids in order."""

    before: Version
    after: Version
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[ClipChange, ...]
    recipe: tuple[FieldChange, ...]

    @property
    def empty(self) -> bool:
        """Whether both hold the same clips with the same labels and recipes."""
        return not (self.added or self.removed or self.changed or self.recipe)


def diff(history: History, before: str, after: str) -> VersionDiff:
    """Compare the versions that two REFs name, reading only the leaves they do not share; raises InputError, DamagedError."""
    one, other = history.version(before), history.version(after)
    mine, theirs = history.manifest(one), history.manifest(other)
    old_leaves, new_leaves = differing(mine, theirs)
    schema = unified(mine.schema, theirs.schema)
    old, new = (_rows(history, leaves, schema) for leaves in (old_leaves, new_leaves))
    # Both are sorted by id, so what they have in common is in the same order in both.
    in_both = pc.is_in(old["clip_id"], _ids(new)), pc.is_in(new["clip_id"], _ids(old))
    return VersionDiff(
        before=one,
        after=other,
        added=tuple(new["clip_id"].filter(pc.invert(in_both[1])).to_pylist()),
        removed=tuple(old["clip_id"].filter(pc.invert(in_both[0])).to_pylist()),
        changed=row_changes(old.filter(in_both[0]), new.filter(in_both[1])),
        recipe=_recipe_changes(one, other),
    )


def _rows(history: History, leaves: tuple[Leaf, ...], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *(read_leaf(history.store, leaf, schema) for leaf in leaves)])


def _ids(rows: pa.Table) -> pa.Array:
    return rows["clip_id"].combine_chunks()


def row_changes(old: pa.Table, new: pa.Table) -> tuple[ClipChange, ...]:
    """Compare two tables row by row; their ids are the same, in the same order."""
    fields: dict[int, list[FieldChange]] = {}
    ids = old["clip_id"].to_pylist()
    for name in old.column_names:
        before, after = old[name], new[name]
        for position in _unequal(before, after):
            change = FieldChange(field=name, before=_plain(before[position]), after=_plain(after[position]))
            fields.setdefault(position, []).append(change)
    return tuple(ClipChange(clip_id=ids[position], fields=tuple(fields[position])) for position in sorted(fields))


def _unequal(before: pa.ChunkedArray, after: pa.ChunkedArray) -> list[int]:
    if before.equals(after):
        return []
    if pa.types.is_map(before.type):
        return [n for n, (a, b) in enumerate(zip(before.to_pylist(), after.to_pylist(), strict=True)) if a != b]
    # Null equals null; a value never equals null.
    equal = pc.if_else(
        pc.or_(before.is_null(), after.is_null()), pc.and_(before.is_null(), after.is_null()), pc.equal(before, after)
    )
    return [int(n) for n in np.flatnonzero(~equal.to_numpy(zero_copy_only=False).astype(bool))]


def _plain(value: pa.Scalar) -> Any:
    return dict(value.as_py()) if pa.types.is_map(value.type) else value.as_py()


def _recipe_changes(one: Version, other: Version) -> tuple[FieldChange, ...]:
    before, after = (_recipes(version) for version in (one, other))
    return tuple(
        FieldChange(field=key, before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def _recipes(version: Version) -> dict[str, Any]:
    if len(version.recipes) == 1:
        return flat(version.recipes[0])
    return {f"{recipe.get('name')}: {key}": value for recipe in version.recipes for key, value in flat(recipe).items()}
