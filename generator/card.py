"""The dataset card (README.md of a dataset): what it holds and what the probes found, for people and for the hub."""

from __future__ import annotations

import statistics

import jinja2
import pyarrow as pa

from generator.plan import Plan
from scenes import AXES

_CARD = jinja2.Environment(
    trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False
).from_string(
    """\
# {{ plan.name }}

{{ plan.recipe.description or "Clips rendered by Stopdown for a physical camera control." }}

{{ plan.clips | length }} clips of {{ plan.scenes | length }} scenes, {{ video.width }}x{{ video.height }} at \
{{ video.fps }} fps, fidelity `{{ plan.recipe.render.fidelity }}`, seed {{ plan.seed }}, plan `{{ plan.digest[:16] }}`.

| axis | range of labels | judged clips | median error | worst error |
|---|---|---|---|---|
{% for row in axes %}
| {{ row.name }} | {{ row.low }} to {{ row.high }} | {{ row.judged }} of {{ row.clips }} | {{ row.median }} | {{ row.worst }} |
{% endfor %}

Every label is a physical quantity. Errors are what a blind probe, which sees only the encoded frames, measured against
the label. `labels.parquet` has one row per clip; its schema carries the meaning of every column. `clips/` holds the videos and
their captions. Made with Blender; the rendered clips carry no licence of Blender's or Stopdown's.
"""
)


def dataset_card(plan: Plan, table: pa.Table) -> str:
    """Return the card's Markdown for a finished label table."""
    rows = [_axis_row(name, table) for name in plan.recipe.used_axes]
    return _CARD.render(plan=plan, video=plan.recipe.video, axes=rows)


def _axis_row(name: str, table: pa.Table) -> dict[str, object]:
    axis = AXES[name]
    values = [value for value in table[axis.column].to_pylist() if value is not None]
    errors = [
        abs(error)
        for error, judged in zip(table[f"{name}_error"].to_pylist(), table[f"{name}_judged"].to_pylist(), strict=True)
        if judged and error is not None
    ]
    unit = axis.error_unit
    return {
        "name": name,
        "low": axis.format(min(values)),
        "high": axis.format(max(values)),
        "clips": len(values),
        "judged": len(errors),
        "median": f"{statistics.median(errors):.3g} {unit}" if errors else "not judged",
        "worst": f"{max(errors):.3g} {unit}" if errors else "not judged",
    }
