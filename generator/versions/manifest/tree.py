"""The shape of a manifest: a tree that depends on the rows alone, not on how they came to be.

Rows sorted by clip id are cut after every id whose hash ends in ten zero bits, so a leaf has 1024 rows in the mean and an edit
moves only the cuts beside it (a prolly tree; Noms, 2016). Where there are ids whose hash ends in sixteen, these cut the leaves
into branches of 64 in the mean, which the root lists in their place: so what a commit reads and writes beside the leaves that
it touches is one branch and a line for every 65,536 rows. Versions share the leaves and branches that they have in common.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import pyarrow as pa

from generator.errors import DamagedError
from generator.io.checksummed_json import canonical, sha256
from generator.store.objects import Store
from generator.versions.manifest.summary import Summary, total
from scenes.errors import InputError
from scenes.spec import Spec

MANIFEST_FORMAT = 2
_OF_LEAVES = 1  # a root that lists leaves has the first format, which knew no branches
_CUT_MASK = 0x3FF
_BRANCH_MASK = 0xFFFF


class ManifestPart(Spec):
    """A run of rows: its first and last id, how many, the object that holds it, the digest of its content, its counts."""

    first: str
    last: str
    rows: int
    digest: str
    content: str
    summary: Summary


class Leaf(ManifestPart):
    """Rows; the object holds them."""


class Branch(ManifestPart):
    """Leaves; the object lists them."""


class Manifest:
    """A root: the schema of all rows, and in order of id either all leaves or, where there are several, all branches."""

    def __init__(self, schema: pa.Schema, parts: Sequence[ManifestPart], store: Store) -> None:
        self.schema = schema
        self.parts = tuple(parts)
        self._store = store

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches; none where the root lists the leaves."""
        return tuple(part for part in self.parts if isinstance(part, Branch))

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """All leaves; every branch is read for it, which may raise DamagedError."""
        return tuple(self.each_leaf())

    def each_leaf(self, known: Container[str] = ()) -> Iterator[Leaf]:
        """Yield the leaves one by one, less those of digests in `known`; of a branch in `known`, nothing is read."""
        for part in self.parts:
            if part.digest not in known:
                yield from (leaf for leaf in leaves_of(self._store, part) if leaf.digest not in known)

    def unshared(self, other: Manifest) -> tuple[Leaf, ...]:
        """Return the leaves beside those of the leaves and branches that both list, of which nothing is read."""
        known = {part.digest for part in other.parts}
        return tuple(leaf for part in self.parts if part.digest not in known for leaf in leaves_of(self._store, part))

    @property
    def rows(self) -> int:
        """How many clips there are."""
        return sum(part.rows for part in self.parts)

    @property
    def summary(self) -> Summary:
        """The counts of all rows."""
        return total(part.summary for part in self.parts)

    @property
    def content(self) -> list[list[str | int]]:
        """What the rows are, readings apart: equal for equal rows."""
        return _content(self.parts)

    def same(self, other: Manifest) -> bool:
        """Return whether both hold the same rows under the same columns."""
        mine, theirs = ([part.digest for part in manifest.parts] for manifest in (self, other))
        return mine == theirs and self.schema.equals(other.schema)


def cuts_after(clip_id: str) -> bool:
    """Return whether a leaf ends after this id."""
    return _hash(clip_id) & _CUT_MASK == 0


def parts_after(part: ManifestPart) -> bool:
    """Return whether what follows a leaf or branch is never part of it, as long as its last row is there."""
    return _hash(part.last) & (_BRANCH_MASK if isinstance(part, Branch) else _CUT_MASK) == 0


def leaves_of(store: Store, part: ManifestPart) -> tuple[Leaf, ...]:
    """Return a leaf alone, or the leaves of a branch; raises DamagedError where they are not what the branch says."""
    if isinstance(part, Leaf):
        return (part,)
    try:
        leaves = tuple(Leaf.model_validate(leaf) for leaf in json.loads(store.read(part.digest))["leaves"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"branch {part.digest[:12]} is no branch ({type(error).__name__}); restore it from a copy") from None
    if not leaves or _branch(leaves, part.digest) != part:
        raise DamagedError(f"branch {part.digest[:12]} holds other leaves than its root says; restore it from a copy")
    return leaves


def gathered(store: Store, schema: pa.Schema, parts: Iterable[ManifestPart]) -> Manifest:
    """Return the manifest of leaves, and of branches that are as they were, in order of id; new branches are written.

    A branch is written when its last leaf has come: what is held is a line for each branch, and the leaves of two.
    """
    runs = _runs(store, parts)
    first, second = next(runs, ()), next(runs, None)
    if second is None:  # one run of leaves needs no branch
        return Manifest(schema, leaves_of(store, first) if isinstance(first, Branch) else first, store)
    branches = (run if isinstance(run, Branch) else _write_branch(store, run) for run in chain((first, second), runs))
    return Manifest(schema, tuple(branches), store)


def _runs(store: Store, parts: Iterable[ManifestPart]) -> Iterator[Sequence[Leaf] | Branch]:
    """Yield what a branch is to hold, or is and holds already."""
    run: list[Leaf] = []
    following = iter(parts)
    part = next(following, None)
    while part is not None:
        after = next(following, None)
        if isinstance(part, Branch) and not run and (parts_after(part) or after is None):
            yield part
        else:
            for leaf in leaves_of(store, part):
                run.append(leaf)
                if _hash(leaf.last) & _BRANCH_MASK == 0:
                    yield run
                    run = []
        part = after
    if run:
        yield run


def write_manifest(store: Store, manifest: Manifest) -> str:
    """Write a root and return its digest."""
    deep = bool(manifest.branches)
    tree = {
        "format": MANIFEST_FORMAT if deep else _OF_LEAVES,
        "schema": base64.b64encode(manifest.schema.serialize().to_pybytes()).decode(),
        "branches" if deep else "leaves": [part.model_dump(mode="json") for part in manifest.parts],
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
        return Manifest(schema, _parts(tree), store)
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DamagedError(f"manifest {digest[:12]} is no manifest ({type(error).__name__}); restore it from a copy") from None


def _parts(tree: dict[str, Any]) -> list[ManifestPart]:
    if tree["format"] == _OF_LEAVES:
        return [Leaf.model_validate(leaf) for leaf in tree["leaves"]]
    return [Branch.model_validate(branch) for branch in tree["branches"]]


def _write_branch(store: Store, leaves: Sequence[Leaf]) -> Branch:
    return _branch(leaves, store.put(canonical({"leaves": [leaf.model_dump(mode="json") for leaf in leaves]})))


def _branch(leaves: Sequence[Leaf], digest: str) -> Branch:
    return Branch(
        first=leaves[0].first,
        last=leaves[-1].last,
        rows=sum(leaf.rows for leaf in leaves),
        digest=digest,
        content=sha256(canonical(_content(leaves))),
        summary=total(leaf.summary for leaf in leaves),
    )


def _content(parts: Iterable[ManifestPart]) -> list[list[str | int]]:
    return [[part.first, part.last, part.rows, part.content] for part in parts]


def _hash(clip_id: str) -> int:
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[-4:], "big")
