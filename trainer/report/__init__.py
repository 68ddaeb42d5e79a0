"""One self-contained HTML report of a run: verdict, sweeps to scrub, curves, tables, and what was run.

Not here: the page of a comparison (`trainer/comparison/comparison_page.py`). Templates are in `trainer/templates/`.
"""

from __future__ import annotations

from trainer.report.page import WrittenReport, write_report
from trainer.report.parts import ReportParts

__all__ = ["ReportParts", "WrittenReport", "write_report"]
