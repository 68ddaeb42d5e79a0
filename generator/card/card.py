"""The dataset card (README.md): what a dataset holds, what the probes found, what it cannot do; for people and for the hub.

The front matter is what the hub and `datasets` read (https://huggingface.co/docs/hub/datasets-cards); its values are written as
JSON, which is YAML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
import pyarrow as pa

from generator.card.facts import Facts
from generator.card.limits import LIMITS, USES
from generator.card.origin import Origin
from generator.recipe.licence import hub_licence

# Categories of the hub, by the number of clips that they begin above.
_SIZES = ((1_000_000, "1M<n<10M"), (100_000, "100K<n<1M"), (10_000, "10K<n<100K"), (1_000, "1K<n<10K"), (0, "n<1K"))


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """One configuration for `datasets`: explicit files by split, so that nothing else in the folder is taken for data."""

    name: str
    data_files: Mapping[str, Sequence[str]]
    options: Mapping[str, Any] = field(default_factory=dict)

    def tree(self) -> dict[str, Any]:
        """Return the configuration as the front matter has it."""
        files = [{"split": split, "path": list(paths)} for split, paths in self.data_files.items()]
        return {"config_name": self.name, "data_files": files, **self.options}


FOLDER_READING = (
    "`clips/` holds videos and captions, `labels.parquet` has one row per clip. `datasets.load_dataset` on this folder "
    "gives the videos alone{splits}; `stopdown export` writes folders that load with captions and labels."
)


def folder_configs(facts: Facts) -> tuple[HubConfig, ...]:
    """Return how `datasets` reads a plain dataset folder: the clips alone, since one builder reads all configurations.

    Clips that are not split, or are of more scenes than a card can name, are all in one set that is not called `train`.
    """
    splits: Mapping[str, Sequence[str]] = {
        split: [f"clips/{scene}-*.mp4" for scene in scenes] for split, scenes in facts.split_scenes.items()
    }
    return (HubConfig(name="default", data_files=splits or {"unsplit": ("clips/*.mp4",)}, options={"drop_labels": True}),)


def folder_reading(facts: Facts) -> str:
    """Return how a plain dataset folder is read, in words."""
    return FOLDER_READING.format(splits=", by split" if facts.split_scenes else ", all of them in one set, `unsplit`")


_CARD = jinja2.Environment(
    trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
).from_string(
    """\
---
{% for key, value in front.items() %}
{{ key }}: {{ value }}
{% endfor %}
---

# {{ origin.name }}

{{ origin.description or "Clips rendered by Stopdown for a physical camera control." }}

{{ clips }} clips of {{ scenes }} scenes, {{ shapes }}, {{ seconds }} of video in {{ size }}. \
{% if origin.version %}
Version `{{ origin.version[:16] }}`{{ " of " + origin.created if origin.created else "" }}.
{% elif origin.splits %}
It is a version of the history that lies beside it (`stopdown log`).
{% else %}
Not committed as a version when this card was written.
{% endif %}

## Labels and what the probes found

| axis | range of labels | judged clips | median error | worst error |
|---|---|---|---|---|
{% for row in axes %}
| {{ row.name }} | {{ row.low }} to {{ row.high }} | {{ row.judged }} of {{ row.clips }} | {{ row.median }} | {{ row.worst }} |
{% endfor %}

Every label is a physical quantity. Errors are what a blind probe, which sees only the encoded frames, measured against
the label. A clip is judged where the effect is large enough to be held to the bar; a probe that cannot read says so.
{% for row in axes if row.unproven %}

{{ row.unproven }} of {{ row.clips }} labels of {{ row.name }} have no proof: {{ row.why }}.\
{{ " The recipe accepts that." if row.name in accepted else "" }}
{% endfor %}
{% for row in axes if row.unread %}
The {{ row.name }} probe could not read {{ row.unread }} of {{ row.clips }} clips.
{% endfor %}

## What is in it

| split | scenes | clips |
|---|---|---|
{% for row in splits %}
| {{ row.name }} | {{ row.scenes }} | {{ row.clips }} |
{% endfor %}

| family | layer (values per scene) | frames | scenes | clips |
|---|---|---|---|---|
{% for row in layers %}
| {{ row.family }} | {{ row.layer }} | {{ row.frames }} | {{ row.scenes }} | {{ row.clips }} |
{% endfor %}

| column | type | meaning |
|---|---|---|
{% for row in columns %}
| `{{ row.name }}` | {{ row.type }} | {{ row.meaning }} |
{% endfor %}

{{ reading }}

## How it was made

{% for part in origin.parts %}
Recipe `{{ part.recipe_digest[:16] }}` with seed {{ part.seed }} gives plan `{{ part.plan_digest[:16] }}`.
{% endfor %}
A plan gives every scene and every label; Stopdown \
{{ origin.engine }} rendered and measured the clips\
{{ " with Blender " + origin.blenders | join(", ") if origin.blenders else "" }}\
{{ ", encoded by " + origin.encoders | join("; ") if origin.encoders else "" }}. Captions and labels are machine-generated; no
person annotated, filmed or appears in anything here.{{ provenance }}

## Use and limits

Meant for: {{ uses }}

{% for limit in limits %}
- {{ limit }}
{% endfor %}

## Licence

{% if license %}
{{ license }}, chosen by the owner of this dataset.
{% else %}
No licence was chosen by the owner of this dataset; ask before using it.
{% endif %}
Made with Blender; the rendered clips carry no licence of Blender's or Stopdown's.
"""
)


def dataset_card(
    origin: Origin,
    facts: Facts,
    *,
    license: str | None = None,
    configs: Sequence[HubConfig] | None = None,
    reading: str | None = None,
) -> str:
    """Return the card's Markdown for what a label table says.

    `license` is an SPDX identifier, `configs` say which files are data for the hub, `reading` how the folder is opened; both
    as for a plain dataset folder where they are left out.
    """
    return _CARD.render(
        front=_front(origin, facts.clips, license, folder_configs(facts) if configs is None else configs),
        origin=origin,
        license=license,
        clips=facts.clips,
        scenes=facts.scenes,
        shapes=", ".join(f"{width}x{height} at {fps} fps, fidelity `{name}`" for width, height, fps, name in facts.shapes),
        seconds=f"{facts.seconds:.1f} s",
        size=f"{facts.size_bytes / 1e6:.1f} MB",
        axes=facts.axes,
        accepted={axis for part in origin.parts for axis in part.recipe.get("verify", {}).get("accept_unproven", ())},
        splits=facts.splits,
        layers=facts.layers,
        columns=_columns(facts.schema),
        provenance=" `provenance.json` has the whole chain, clip by clip." if origin.makers else "",
        reading=folder_reading(facts) if reading is None else reading,
        uses=USES,
        limits=LIMITS,
    )


def _front(origin: Origin, clips: int, license: str | None, configs: Sequence[HubConfig]) -> dict[str, str]:
    keys: dict[str, Any] = {
        **hub_licence(license),
        "pretty_name": origin.name,
        "language": ["en"],
        "annotations_creators": ["machine-generated"],
        "language_creators": ["machine-generated"],
        "source_datasets": ["original"],
        "task_categories": ["text-to-video"],
        "size_categories": [next(name for least, name in _SIZES if clips >= least)],
        "tags": ["synthetic", "camera-control", "blender", "stopdown", *origin.axes],
        "configs": [config.tree() for config in configs],
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in keys.items()}


def _columns(schema: pa.Schema) -> list[dict[str, str]]:
    return [{"name": field.name, "type": str(field.type), "meaning": column_meaning(field)} for field in schema]


def column_meaning(column: pa.Field) -> str:
    """Return what a column of the label table means, from its schema."""
    return (column.metadata or {}).get(b"description", b"").decode() or "not described"
