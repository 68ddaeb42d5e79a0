"""The results of an evaluation as Markdown, for the model card of an adapter's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from generator.io.atomic import write_atomic
from scenes.errors import InputError
from trainer.evaluation.results import EstimatedValue, EvaluationReport

START = "<!-- measured by stopdown evaluate -->"  # what follows is replaced by the next evaluation


def results_text(report: EvaluationReport) -> str:
    """Return a section of a model card: the verdict, accuracy by arm, drift from the backbone, and what the numbers rest on."""
    lines = ["## Measured control", "", *(f"- {line}" for line in report.verdict), ""]
    lines += _table(
        ("arm", "axis", "ρ", "measured per commanded", "median error", "resolution (c)", "read"),
        [
            (
                one.arm,
                one.axis,
                written(one.rho),
                written(one.slope),
                f"{written(one.median_error)} {one.unit}" if one.median_error.value is not None else "none",
                written(one.resolution),
                f"{100 * one.share_read:.0f} %",
            )
            for one in report.accuracy
        ],
    )
    if report.fep:
        lines += ["", "One denoising step, against the clean backbone:", ""]
        lines += _table(
            ("arm", "features", "SSF", "SS-FD", "DVS"),
            [(one.arm, one.extractor, f"{one.ssf:.3f}", f"{one.ss_fd:.3g}", f"{one.dvs:.2f}") for one in report.fep],
        )
    prompts = max(len(prompts) for prompts in report.prompts.values())
    lines += [
        "",
        f"{prompts} prompts ({report.prompts_from}), {report.settings['seeds']} seeds, controls {report.settings['controls']}",
    ]
    lines[-1] += ". In brackets: 95 % bootstrap intervals over prompts. Videos that a probe could not read are left out."
    lines += [f"{note[:1].upper()}{note[1:]}." for note in report.notes]
    return "\n".join([*lines, ""])


def put_on_card(adapter: Path, report: EvaluationReport) -> None:
    """Put the results into the README of an adapter's folder, in the place of earlier ones.

    Raises InputError where the folder has no README.
    """
    path = adapter / "README.md"
    if not path.is_file():
        raise InputError(f"adapter {adapter} has no README.md to put results on; save it with this version")
    own = path.read_text(encoding="utf-8").partition(START)[0].rstrip()
    write_atomic(path, f"{own}\n\n{START}\n{results_text(report)}".encode())


def written(number: EstimatedValue, digits: int = 2) -> str:
    """Return a number with its interval in brackets; `none` where nothing was measured."""
    if number.value is None:
        return "none"
    if number.low is None or number.high is None:
        return f"{number.value:.{digits}f}"
    return f"{number.value:.{digits}f} [{number.low:.{digits}f}, {number.high:.{digits}f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
