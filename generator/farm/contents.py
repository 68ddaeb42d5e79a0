"""What a version of a farm's clips is made of, put together part by part: the plan's text and the table of labels.

Both grow with the clips, about 1.5 kB for each, and so does what is made of them: a version holds them as whole files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from generator.farm.parts import Parts, header
from generator.labels import label_table, labels_file
from generator.lineage.files import lineage_files
from generator.lineage.origin import Origin, plan_origin
from generator.sealed import sha256
from generator.store import ClipRecord


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The canonical text of a plan, the labels of its clips in order of id, and where they come from."""

    plan: str
    table: pa.Table
    origin: Origin
    license: str | None

    def files(self) -> dict[str, bytes]:
        """Return the files that tell about the dataset, by name."""
        return lineage_files(self.origin, self.table, labels_file(self.table), license=self.license)


def contents(parts: Parts, records: Mapping[str, ClipRecord]) -> Contents:
    """Return what a version of these clips is made of, as of one that a single machine built; `records` are by clip id."""
    text = parts.text()
    tables = [label_table(parts.part(number), records) for number in range(parts.count)]
    table = pa.concat_tables(tables)
    origin = plan_origin(header(parts.recipe))
    (part,) = origin.parts
    return Contents(
        plan=text,
        table=table.take(pc.sort_indices(table["clip_id"])).combine_chunks(),
        origin=replace(origin, parts=(replace(part, plan_digest=sha256(text.encode())),)),
        license=parts.recipe.license,
    )
