"""The manifest: a version's rows as a two-level tree whose shape depends on the rows alone, not on how they came to be.

Rows sorted by clip id are cut after every id whose hash ends in ten zero bits, so a leaf has 1024 rows in the mean and an edit
moves only the cuts beside it (a prolly tree; Noms, 2016). A leaf is an Arrow IPC object, the root a JSON object that lists the
leaves with their id ranges, hashes and counts. Versions share the leaves that they have in common.
"""

from __future__ import annotations

import base64
import bisect
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from generator.files import DamagedError
from generator.sealed import canonical
from generator.store import Store
from generator.versions.rows import EXTRA, check_names, content_digest
from generator.versions.summary import Summary, summarise
from scenes.errors import InputError
from scenes.spec import Spec

MANIFEST_FORMAT = 1
_CUT_MASK = 0x3FF
_READERS = 4
_WRITERS = 8


class Leaf(Spec):
    """One leaf: its first and last id, its rows, the object that holds it, the digest of its content, its counts."""

    first: str
    last: str
    rows: int
    digest: str
    content: str
    summary: Summary


class Manifest:
    """A root: the schema of all rows and the leaves in order of id."""

    def __init__(self, schema: pa.Schema, leaves: Sequence[Leaf]) -> None:
        self.schema = schema
        self.leaves = tuple(leaves)

    @property
    def rows(self) -> int:
        """How many clips there are."""
        return sum(leaf.rows for leaf in self.leaves)

    def same(self, other: Manifest) -> bool:
        """Return whether both hold the same rows under the same columns."""
        mine, theirs = ([leaf.digest for leaf in manifest.leaves] for manifest in (self, other))
        return mine == theirs and self.schema.equals(other.schema)


def cuts_after(clip_id: str) -> bool:
    """Return whether a leaf ends after this id."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[-4:], "big") & _CUT_MASK == 0


def plant(store: Store, rows: pa.Table) -> Manifest:
    """Write the leaves of settled rows and return their manifest."""
    return Manifest(rows.schema, _write_leaves(store, _cut(rows)))


def write_manifest(store: Store, manifest: Manifest) -> str:
    """Write a root and return its digest."""
    tree = {
        "format": MANIFEST_FORMAT,
        "schema": base64.b64encode(manifest.schema.serialize().to_pybytes()).decode(),
        "leaves": [leaf.model_dump(mode="json") for leaf in manifest.leaves],
    }
    return store.put(canonical(tree))


def read_manifest(store: Store, digest: str) -> Manifest:
    """Read a root; raises DamagedError, or InputError when a newer Stopdown wrote it."""
    try:
        tree = json.loads(store.read(digest))
        if tree["format"] > MANIFEST_FORMAT:
            raise InputError(
                f"the manifest has format {tree['format']}, this Stopdown reads {MANIFEST_FORMAT}; upgrade Stopdown"
            )
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(tree["schema"], validate=True)))
        return Manifest(schema, [Leaf.model_validate(leaf) for leaf in tree["leaves"]])
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DamagedError(f"manifest {digest[:12]} is no manifest ({type(error).__name__}); restore it from a copy") from None


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
    index = bisect.bisect_left([leaf.last for leaf in manifest.leaves], clip_id)
    if index == len(manifest.leaves) or clip_id < manifest.leaves[index].first:
        return None
    leaf = read_leaf(store, manifest.leaves[index], manifest.schema)
    position = pc.index(leaf["clip_id"], clip_id).as_py()
    return None if position < 0 else dict(leaf.slice(position, 1).to_pylist()[0])


def differing(one: Manifest, other: Manifest) -> tuple[tuple[Leaf, ...], tuple[Leaf, ...]]:
    """Return the leaves that only `one` has, and those that only `other` has."""
    mine, theirs = ({leaf.digest for leaf in manifest.leaves} for manifest in (one, other))
    return (
        tuple(leaf for leaf in one.leaves if leaf.digest not in theirs),
        tuple(leaf for leaf in other.leaves if leaf.digest not in mine),
    )


def edit(store: Store, manifest: Manifest, added: pa.Table | None, removed: Iterable[str]) -> Manifest:
    """Return the manifest with rows put in (or put in the place of rows of the same id) and ids taken out.

    Reads and writes only the leaves that an edit touches; the result is the one that `plant` makes of the same rows.
    """
    schema = manifest.schema
    if added is not None:
        schema = unified(schema, added.schema)
    gone = set(removed)
    touched: dict[int, list[int]] = {}
    lasts = [leaf.last for leaf in manifest.leaves]
    new_ids: list[str] = [] if added is None else added["clip_id"].to_pylist()
    for position, clip_id in enumerate(new_ids):
        touched.setdefault(_leaf_of(lasts, clip_id), []).append(position)
    for clip_id in gone:
        touched.setdefault(_leaf_of(lasts, clip_id), [])
    leaves: list[Leaf | pa.Table] = []
    carry: pa.Table | None = None
    for index, leaf in enumerate(manifest.leaves):
        if index not in touched and carry is None:
            leaves.append(leaf)
            continue
        parts = [read_leaf(store, leaf, schema)] if carry is None else [carry, read_leaf(store, leaf, schema)]
        rows = _joined(parts, added, touched.get(index, []), gone, schema)
        ends = rows.num_rows > 0 and cuts_after(rows["clip_id"][-1].as_py())
        carry = None if ends or not rows.num_rows else rows
        if ends:
            leaves.extend(_cut(rows))
    beyond = touched.get(len(manifest.leaves), [])
    if carry is not None or beyond:
        rows = _joined([] if carry is None else [carry], added, beyond, gone, schema)
        leaves.extend(_cut(rows))
    return Manifest(schema, _write_leaves(store, leaves))


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


def _leaf_of(lasts: list[str], clip_id: str) -> int:
    """Return the leaf whose range an id belongs to; one past the end only where the last leaf is closed."""
    index = bisect.bisect_left(lasts, clip_id)
    if index == len(lasts) and lasts and not cuts_after(lasts[-1]):
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


def _write_leaves(store: Store, leaves: Sequence[Leaf | pa.Table]) -> list[Leaf]:
    """Write those leaves that are still rows, several at a time: a disk flushes many files together."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        return list(pool.map(lambda leaf: leaf if isinstance(leaf, Leaf) else _write_leaf(store, leaf), leaves))


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


def iter_leaves(store: Store, manifest: Manifest) -> Iterator[tuple[Leaf, pa.Table]]:
    """Yield every leaf with its rows, one at a time."""
    for leaf in manifest.leaves:
        yield leaf, read_leaf(store, leaf, manifest.schema)
