"""The dataset card (README.md of a dataset) of a plan's build; the card itself is `generator.lineage.card`."""

from __future__ import annotations

import pyarrow as pa

from generator.lineage import card
from generator.lineage.origin import plan_origin
from generator.plan import Plan


def dataset_card(plan: Plan, table: pa.Table) -> str:
    """Return the card's Markdown for a finished label table."""
    return card.dataset_card(plan_origin(plan), table)
