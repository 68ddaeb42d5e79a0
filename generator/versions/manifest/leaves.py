"""The rows of a manifest: what its leaves hold, and how rows become leaves, are found, compared and edited.

A leaf is an Arrow IPC object; `tree` says how leaves make a manifest.
"""

from __future__ import annotations

import bisect
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from generator.errors import DamagedError
from generator.store.objects import Store
from generator.versions.manifest.rows import EXTRA, check_names, content_digest
from generator.versions.manifest.summary import summarise
from generator.versions.manifest.tree import Leaf, Manifest, ManifestPart, cuts_after, gathered, leaves_of, parts_after
from scenes.errors import InputError

_READERS = 4
_WRITERS = 8


def store_rows(store: Store, rows: pa.Table) -> Manifest:
    """Write the leaves of normalised rows and return their manifest."""
    return store_tables(store, rows.schema, [rows])


def store_tables(store: Store, schema: pa.Schema, tables: Iterable[pa.Table]) -> Manifest:
    """Write normalised rows that come in tables, in order of id; a leaf is written when its last row has come."""
    return gathered(store, schema, _written(store, _leaves(tables)))


def read_leaf(store: Store, leaf: Leaf, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a leaf's rows under a schema, or some columns of them; raises DamagedError."""
    try:
        # Callers read many leaves at once, so one thread each is fastest.
        options = pa.ipc.IpcReadOptions(use_threads=False)
        table = pa.ipc.open_file(pa.py_buffer(store.read(leaf.digest)), options=options).read_all()
    except pa.ArrowException as error:
        raise DamagedError(f"leaf {leaf.digest[:12]} ({leaf.first} to {leaf.last}) is no leaf: {error}") from None
    ids = table["clip_id"] if "clip_id" in table.column_names else None
    if ids is None or (len(ids), ids[0].as_py(), ids[-1].as_py()) != (leaf.rows, leaf.first, leaf.last):
        raise DamagedError(f"leaf {leaf.digest[:12]} holds other rows than its root says; restore it from a copy")
    check_names(table, DamagedError)
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
    return conformed(table, wanted)


def read_rows(store: Store, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows, in order of id, or some columns of them; raises DamagedError."""
    if not manifest.leaves:
        empty = manifest.schema.empty_table()
        return empty if columns is None else empty.select(list(columns))

    def read(leaf: Leaf) -> pa.Table:
        return read_leaf(store, leaf, manifest.schema, columns)

    with ThreadPoolExecutor(_READERS) as pool:
        return pa.concat_tables(pool.map(read, manifest.leaves))


def find_row(store: Store, manifest: Manifest, clip_id: str) -> dict[str, Any] | None:
    """Return one clip's row, reading one leaf, or None where there is no such clip."""
    parts: Sequence[ManifestPart] = manifest.parts
    while True:
        index = _place(parts, [part.last for part in parts], clip_id)
        if index == len(parts) or not parts[index].first <= clip_id <= parts[index].last:
            return None
        part = parts[index]
        if isinstance(part, Leaf):
            break
        parts = leaves_of(store, part)
    leaf = read_leaf(store, part, manifest.schema)
    position = pc.index(leaf["clip_id"], clip_id).as_py()
    return None if position < 0 else dict(leaf.slice(position, 1).to_pylist()[0])


def differing(one: Manifest, other: Manifest) -> tuple[tuple[Leaf, ...], tuple[Leaf, ...]]:
    """Return the leaves that only `one` has, and those that only `other` has."""
    mine, theirs = one.unshared(other), other.unshared(one)
    shared = {leaf.digest for leaf in mine} & {leaf.digest for leaf in theirs}
    only_mine, only_theirs = (tuple(leaf for leaf in leaves if leaf.digest not in shared) for leaves in (mine, theirs))
    return only_mine, only_theirs


def edit(store: Store, manifest: Manifest, added: pa.Table | None, removed: Iterable[str]) -> Manifest:
    """Return the manifest with rows put in (or put in the place of rows of the same id) and ids taken out.

    Reads and writes only the leaves that an edit touches, and their branches; the result is the one that `store_rows`
    makes of the same rows.
    """
    schema = manifest.schema if added is None else unified(manifest.schema, added.schema)
    gone = set(removed)
    new_ids: list[str] = [] if added is None else added["clip_id"].to_pylist()
    changes: list[_Change] = [*((clip_id, position) for position, clip_id in enumerate(new_ids)), *((i, None) for i in gone)]
    work = _Edit(store, schema, added, gone)
    dealt = _dealt(manifest.parts, changes)
    for index, part in enumerate(manifest.parts):
        work.part(part, dealt.get(index, []))
    work.end(dealt.get(len(manifest.parts), []))
    return gathered(store, schema, _written(store, work.parts))


_Change = tuple[str, int | None]  # an id, and the position of its row among those that are put in; None: it is taken out


class _Edit:
    """An edit on its way through the tree, from the first id to the last."""

    def __init__(self, store: Store, schema: pa.Schema, added: pa.Table | None, gone: set[str]) -> None:
        self.parts: list[ManifestPart | pa.Table] = []
        self._store, self._schema, self._added, self._gone = store, schema, added, gone
        self._carry: pa.Table | None = None  # rows after the last cut, which belong to the leaf that follows
        self._beyond: list[_Change] = []

    def part(self, part: ManifestPart, changes: list[_Change]) -> None:
        """Pass a leaf or branch, with the changes of its ids."""
        if not changes and self._carry is None:
            self.parts.append(part)
            return
        leaves = leaves_of(self._store, part)
        dealt = _dealt(leaves, changes)
        for index, leaf in enumerate(leaves):
            self._leaf(leaf, dealt.get(index, []))
        self._beyond += dealt.get(len(leaves), [])

    def end(self, changes: list[_Change]) -> None:
        """Come to the end, with the changes of ids after all that were passed."""
        beyond = [*self._beyond, *changes]
        if self._carry is not None or beyond:
            self.parts.extend(_cut(self._joined([] if self._carry is None else [self._carry], beyond)))

    def _leaf(self, leaf: Leaf, changes: list[_Change]) -> None:
        if not changes and self._carry is None:
            self.parts.append(leaf)
            return
        rows = self._joined(
            [*([] if self._carry is None else [self._carry]), read_leaf(self._store, leaf, self._schema)], changes
        )
        ends = rows.num_rows > 0 and cuts_after(rows["clip_id"][-1].as_py())
        self._carry = None if ends or not rows.num_rows else rows
        if ends:
            self.parts.extend(_cut(rows))

    def _joined(self, parts: list[pa.Table], changes: list[_Change]) -> pa.Table:
        positions = [position for _, position in changes if position is not None]
        return _joined(parts, self._added, positions, self._gone, self._schema)


def _dealt(parts: Sequence[ManifestPart], changes: Iterable[_Change]) -> dict[int, list[_Change]]:
    """Return the changes of each part by its index; those beyond all parts have the index after the last."""
    lasts = [part.last for part in parts]
    dealt: dict[int, list[_Change]] = {}
    for change in changes:
        dealt.setdefault(_place(parts, lasts, change[0]), []).append(change)
    return dealt


def unified(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """Return a schema with the columns of both, the store's own last; raises InputError when a column has two types."""
    own = {field.name for field in EXTRA}
    fields = {field.name: field for field in one if field.name not in own}
    for field in other:
        if field.name in own:
            continue
        known = fields.setdefault(field.name, field)
        if known.type != field.type:
            raise InputError(
                f"column '{field.name}' is {known.type} in one and {field.type} in the other; they cannot be joined"
            )
    return pa.schema([*fields.values(), *EXTRA], metadata=one.metadata)


def _place(parts: Sequence[ManifestPart], lasts: list[str], clip_id: str) -> int:
    """Return the part whose range an id belongs to; one past the end only where the last part is closed."""
    index = bisect.bisect_left(lasts, clip_id)
    if index == len(lasts) and lasts and not parts_after(parts[-1]):
        return index - 1
    return index


def _joined(parts: list[pa.Table], added: pa.Table | None, positions: list[int], gone: set[str], schema: pa.Schema) -> pa.Table:
    """Return rows of `parts` less those gone or replaced, with the added rows at `positions`, sorted."""
    replaced = set(gone)
    if added is not None and positions:
        new = conformed(added.take(pa.array(positions)), schema)
        replaced |= set(new["clip_id"].to_pylist())
    kept = []
    for part in parts:
        stays = pc.invert(pc.is_in(part["clip_id"], pa.array(sorted(replaced), pa.string())))
        kept.append(part.filter(stays))
    if added is not None and positions:
        kept.append(new)
    rows = pa.concat_tables([schema.empty_table(), *kept]).combine_chunks()
    return rows.take(pc.sort_indices(rows["clip_id"])).combine_chunks()


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows under a schema: its columns in its order, nulls where the rows lack one."""
    at = {name: position for position, name in enumerate(rows.column_names)}
    columns = [rows.column(at[f.name]) if f.name in at else pa.nulls(rows.num_rows, f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _cut(rows: pa.Table) -> list[pa.Table]:
    ids = rows["clip_id"].to_pylist()
    ends = [position + 1 for position, clip_id in enumerate(ids) if cuts_after(clip_id)]
    if ids and (not ends or ends[-1] != len(ids)):
        ends.append(len(ids))
    return [rows.slice(start, end - start) for start, end in zip([0, *ends], ends, strict=False)]


def _leaves(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of each leaf."""
    begun: pa.Table | None = None
    for table in tables:
        leaves = _cut(table if begun is None else pa.concat_tables([begun, table]).combine_chunks())
        begun = leaves.pop() if leaves and not cuts_after(leaves[-1]["clip_id"][-1].as_py()) else None
        yield from leaves
    if begun is not None:
        yield begun


def _written(store: Store, parts: Iterable[ManifestPart | pa.Table]) -> Iterator[ManifestPart]:
    """Write those leaves that are still rows, several at a time: a disk flushes many files together."""
    following = iter(parts)
    with ThreadPoolExecutor(_WRITERS) as pool:
        while some := list(islice(following, _WRITERS)):
            leaves = pool.map(lambda rows: _write_leaf(store, rows), [part for part in some if isinstance(part, pa.Table)])
            yield from (part if isinstance(part, ManifestPart) else next(leaves) for part in some)


def _write_leaf(store: Store, rows: pa.Table) -> Leaf:
    return Leaf(
        first=rows["clip_id"][0].as_py(),
        last=rows["clip_id"][-1].as_py(),
        rows=rows.num_rows,
        digest=store.put(_leaf_bytes(rows)),
        content=content_digest(rows),
        summary=summarise(rows),
    )


def _leaf_bytes(rows: pa.Table) -> bytes:
    kept = [name for name in rows.column_names if rows[name].null_count < rows.num_rows]
    # One batch of fresh buffers and no metadata: equal rows give equal bytes, whatever table they were cut from.
    bare = pa.schema([rows.schema.field(name).remove_metadata() for name in kept])
    batch = pa.table([rows[name] for name in kept], schema=bare).take(np.arange(rows.num_rows)).combine_chunks()
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, bare, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(batch)
    return sink.getvalue()
