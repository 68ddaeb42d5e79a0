"""What a version of a farm's clips is made of, put together part by part in a folder: the plan's text and the table of labels.

Both grow with the clips, on the disk: the plan by about 0.9 kB for each, the rows by 0.8 until they are sorted, then 0.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from generator.card.files import lineage_files
from generator.card.origin import Origin, plan_origin
from generator.farm.parts import Parts, header
from generator.io.atomic import file_digest, write_pieces
from generator.io.spill_map import SpillMap
from generator.recipe.plan import canonical_json
from generator.store.labels import StoredLabels, label_row, label_schema, write_labels
from generator.store.objects import ClipRecord
from generator.store.splits import SplitRatios
from generator.store.stored_plans import PlanFile

_BATCH_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The plan, the labels of its clips in order of id, where they come from; `folder` is where what is made of them goes."""

    folder: Path
    plan: PlanFile
    labels: StoredLabels
    origin: Origin
    license: str | None

    def files(self, splits: SplitRatios) -> dict[str, Path]:
        """Write the files that tell about the dataset, split by these ratios, and return where they lie, by name."""
        written = {}
        for name, pieces in lineage_files(replace(self.origin, splits=splits), self.labels, license=self.license).items():
            written[name] = self.folder / name
            write_pieces(written[name], pieces)
        return written


@contextmanager
def contents(parts: Parts, records: Mapping[str, ClipRecord]) -> Iterator[Contents]:
    """Yield what a version of these clips is made of, as of one that a single machine built; `records` are by clip id."""
    with TemporaryDirectory(prefix="stopdown-contents-") as name:
        folder = Path(name)
        plan = _plan(parts, folder / "plan.json")
        labels = _labels(parts, records, folder / "labels.parquet")
        origin = plan_origin(header(parts.recipe))
        (part,) = origin.parts
        yield Contents(
            folder=folder,
            plan=plan,
            labels=labels,
            origin=replace(origin, parts=(replace(part, plan_digest=plan.digest),)),
            license=parts.recipe.license,
        )


def _plan(parts: Parts, file: Path) -> PlanFile:
    write_pieces(file, (piece.encode() for piece in parts.text()))
    recipe = json.loads(canonical_json(parts.recipe.model_dump(mode="json")))
    return PlanFile(path=file, digest=file_digest(file), recipe=recipe)


def _labels(parts: Parts, records: Mapping[str, ClipRecord], file: Path) -> StoredLabels:
    """Write the label table; the rows come in the plan's order, and a map on the disk puts them in order of id."""
    axes = parts.recipe.used_axes
    schema = label_schema(axes, two_parts=parts.recipe.captions.two_parts)
    with SpillMap() as rows:
        for number in range(parts.count):
            plan = parts.part(number)
            made = ((clip.clip_id, label_row(plan, clip, records[clip.clip_id], axes)) for clip in plan.clips)
            rows.put([(clip_id, json.dumps(row)) for clip_id, row in made])
        return write_labels(file, schema, _tables(rows, schema))


def _tables(rows: SpillMap, schema: pa.Schema) -> Iterator[pa.Table]:
    texts = (text for _, text in rows.after(""))
    while some := list(islice(texts, _BATCH_ROWS)):
        yield pa.Table.from_pylist([json.loads(text) for text in some], schema=schema)
