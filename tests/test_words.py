"""The field's words, not ours: words that were given up do not come back, in code, messages, docs and file names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = (".py", ".md", ".toml", ".j2", ".js", ".css", ".yaml", ".svg")
TREES = ("scenes", "generator", "trainer", "stopdown.py", "blender_addons", "docs", "examples", "benchmarks", "README.md")
TREES += ("ARCHITECTURE.md", "CONTRIBUTING.md")  # CHANGELOG.md tells of earlier words

# What was written once, as a pattern, and what to write. A pattern is searched in texts and in paths.
WORDS = {
    r"(?i)\b(un)?sealed|_sealed\b": "checksummed",
    r"(?i)\bproven\b|put_proven|proven_bytes": "verified",
    r"\balone\((?!\))": "exclusive_lock",
    r"(?i)\bpatience": "retry, timeout",
    r"\bahead\(": "prefetch",
    r"\b[Bb]eat(s|er|ers)?\b|\bBeat[A-Z]|_beat\b": "heartbeat",
    r"disk_map": "spill map",
    r"own_scene|OwnScene|own scene\b|scenes? of (one's|your) own": "custom .blend",
    r"\bMarks\b|\bMarked\b|\bMarking\b|(read|write|with|blend)_marks|marks_(of|path)\b": "annotation (of a .blend)",
    r"\bMarkRecord\b|(reading|own|reference)\.marks\b": "detection (of a probe)",
    r"\bsow(n|s|ing)?\b|\bplant(ed|s|ing)?\b": "build",
    r"\bSettled\b": "normalised",
    r"\bEvidence\b|\bevidence:|\bevidence\(": "record reference",
    r"\bJournal\b|\bjournal\b": "metrics log",
    r"\bStudio\b|\bstudio\b|\bBorrowed|\bborrow": "preview pipeline",
    r"\bWorkshop\b|_workshop\b|\bshop\b": "sweep",
    r"\bconclud(e|ing)\b|compare_cells|run_cells|\bCellReport\b|\bCellFacts\b": "aggregate; run of a grid",
    r"(comparing|measuring|concluding|matrix|polish|compact|whole|turning|work|watch|prior)\.py": "a noun (see layout of the folder)",
    r"(?i)contradiction": "counterfactual noise",
    r"(?i)\bpolish": "decoder fine-tune",
    r"(?i)\bcompact(ed|s|ing)?\b(?! loop)": "latent PCA",
    r"\bDescent\b": "hybrid optimizer",
    r"(?i)\bdecisive": "fingerprint",
    r"\bprior_(table|lines)\b|\bclass (Fast|Slow)\b|\bFastSet\b|fast_features|def _prior\b": "drift, FEP, SVP",
    r"\.stops\(": "distance()",
    r"class Snapshot\b": "Dataset",
    r"(?i)\bclips? (that )?lacks?\b|\bwhat lacks\b|\bwhat it takes\b|\btaken up\b|\btakes? up\b|_taken_up\b": "missing clips, cost, resumed",
}

# Where a word is meant otherwise, by path and by what stands there, with the reason.
PERMITTED = (
    (
        r"scenes/|generator/recipe/|generator/render/|examples/|docs/|README|ARCHITECTURE",
        r"\bstudio\b|\bStudio:",
        "a scene family",
    ),
    (r".", r"DiffSynth-Studio|diffsynth\.studio", "the name of a program"),
    (r".", r"no number of edges beats", "the verb"),
)


def texts() -> list[str]:
    """Return the texts of the product and its docs, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *TREES], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for path in listed.stdout.decode().splitlines() if path.endswith(TEXTS) and (ROOT / path).is_file()]


def permitted(path: str, line: str, found: str) -> bool:
    """Return whether a word is meant otherwise where it stands."""
    return any(
        re.search(where, path) and any(found in one.group() for one in re.finditer(what, line)) for where, what, _ in PERMITTED
    )


@pytest.mark.parametrize(("pattern", "instead"), WORDS.items(), ids=lambda text: text[:30])
def test_a_word_that_was_given_up_stays_away(pattern: str, instead: str) -> None:
    word = re.compile(pattern)
    found = [f"{path}: the file's name" for path in texts() if word.search(path)]
    for path in texts():
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), start=1):
            for match in word.finditer(line):
                if not permitted(path, line, match.group()):
                    found.append(f"{path}:{number}: {line.strip()[:100]}")
    assert not found, f"write {instead}:\n" + "\n".join(found)
