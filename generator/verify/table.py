"""The verify report as a terminal table."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from generator.console.terminal import Console
from generator.verify.findings import AxisReport, VerifyReport
from scenes.axes import AXES

MOST_LISTED = 12


def print_report(report: VerifyReport, console: Console) -> None:
    """Print the verdict, one line per axis with errors in its unit, and the clips and scenes that fail, worst first."""
    table = Table(title=f"{escape(report.name)}: {report.clips} clips, {report.scenes} scenes", title_justify="left")
    for heading in ("axis", "read", "median error", "bar", "worst", "rank", "bar", ""):
        table.add_column(heading, justify="left" if heading in ("axis", "") else "right", no_wrap=True)
    for axis in report.axes:
        table.add_row(*_cells(axis))
    console.print(table)
    for check in report.truth or ():
        verdict = "[green]pass[/]" if check.worst <= check.bar else "[red]FAIL[/]"
        words = f"worst {check.worst:.3g} {check.unit}, bar {check.bar:g}, {check.scenes} scenes"
        console.print(f"truth: {check.name}: {words} {verdict}", highlight=False)
    for axis in report.axes:
        if axis.unproven:
            console.print(escape(axis.unproven), style="dim", soft_wrap=True)
        elif axis.too_small:
            console.print(f"{axis.axis}: {axis.too_small} of {axis.clips} clips show too little to be judged", style="dim")
    by_clip = {(entry.axis, entry.clip_id): entry for entry in report.measurements}
    for axis in report.axes:
        _print_listed(
            console,
            f"{axis.axis}: clips whose own error is past the median's bar, {axis.median_bar:g} {axis.unit}",
            [
                f"{clip_id}  labelled {AXES[axis.axis].format(entry.labelled)}, read {AXES[axis.axis].format(entry.measured)}, "
                f"error {entry.error:+.3f} {axis.unit}"
                for clip_id in axis.clips_past_bar
                if (entry := by_clip[axis.axis, clip_id]).measured is not None and entry.error is not None
            ],
        )
        _print_listed(
            console,
            f"{axis.axis}: clips that could not be read",
            [f"{clip_id}  {by_clip[axis.axis, clip_id].note}" for clip_id in axis.clips_unread],
        )
        _print_listed(
            console,
            f"{axis.axis}: scenes with a rank correlation below {axis.rank_bar:g}",
            [
                f"{rank.scene_id}  {rank.correlation:.3f} over {rank.readings} readings"
                for rank in sorted(axis.ranks, key=lambda rank: rank.correlation)
                if rank.scene_id in axis.scenes_past_bar
            ],
        )
    _print_listed(console, "problems", [f"{problem.where}  {problem.message}" for problem in report.problems])
    console.print("[green]verified[/]" if report.passed else f"[red]not verified[/]: {escape('; '.join(failures(report)))}")


def failures(report: VerifyReport) -> list[str]:
    """Return why a report does not pass, one phrase per reason; empty when it passes."""
    reasons = [f"{len(report.problems)} problems with files or labels"] if report.problems else []
    for axis in report.axes:
        if axis.accepted_without_proof:
            continue
        if axis.median_error is None:
            reasons.append(f"{axis.axis}: no clip could be judged")
        elif axis.median_error > axis.median_bar:
            reasons.append(f"{axis.axis}: median error {axis.median_error:.3g} {axis.unit} is past {axis.median_bar:g}")
        if not axis.reads_enough:
            reasons.append(f"{axis.axis}: the probe could not read {axis.unreadable} of {axis.judged + axis.unreadable} clips")
        if axis.scenes_past_bar:
            reasons.append(f"{axis.axis}: {len(axis.scenes_past_bar)} scenes out of order")
    return reasons


def _cells(axis: AxisReport) -> tuple[str, ...]:
    median = "none" if axis.median_error is None else f"{axis.median_error:.3f} {axis.unit}"
    worst = "none" if axis.worst_error is None else f"{axis.worst_error:.3f} {axis.unit}"
    rank = "none" if axis.lowest_rank is None else f"{axis.lowest_rank:.3f}"
    verdict = "[red]FAIL[/]"
    if axis.passed:
        verdict = "[yellow]accepted[/]" if axis.accepted_without_proof else "[green]pass[/]"
    read = f"{axis.judged}/{axis.judged + axis.unreadable}"
    return (axis.axis, read, median, f"{axis.median_bar:g}", worst, rank, f"{axis.rank_bar:g}", verdict)


def _print_listed(console: Console, title: str, lines: list[str]) -> None:
    if lines:
        console.print(f"[bold]{escape(title)}[/]")
        for line in lines[:MOST_LISTED]:
            console.print(f"  {escape(line)}", soft_wrap=True, highlight=False)
        if len(lines) > MOST_LISTED:
            console.print(f"  and {len(lines) - MOST_LISTED} more (--json lists all)")
