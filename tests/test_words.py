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
    r"(?i)\b(un)?sealed\b|_sealed\b|sealed_": "checksummed",
    r"(?i)\bproven\b|put_proven|proven_bytes": "verified",
    r"\bimport alone\b|\bdef alone\b": "exclusive_lock",
    r"(?i)\bpatience": "retry, timeout",
    r"\b(import|def) ahead\b": "prefetch",
    r"\b[Bb]eat(s|er|ers)?\b|\bBeat[A-Z]|write_beat": "heartbeat",
    r"disk_map": "spill map",
    r"own_scene\b|OwnScene|\b[Ss]cenes? of (one's|your) own": "custom .blend",
    r"\bMarks\b|\bMarked\b|\bMarking\b|(read|write|with|blend)_marks|\bmarks_(of|path)\b": "annotation (of a .blend)",
    r"\bMarkRecord\b|\b(reading|reference)\.marks\b": "detection (of a probe)",
    r"\bsow(n|s|ing)?\b|\bplant(ed|s|ing)?\b": "build",
    r"\bSettled\b": "normalised",
    r"\bEvidence\b|\bevidence[,)]|\bevidence: (Mapping|dict)": "record reference",
    r"(?i)\bjournal\b": "metrics log",
    r"(?i)\bstudio\b|\bBorrowed|\bborrow": "preview pipeline",
    r"(?i)\bworkshop\b|_workshop\b|\bshop\b": "sweep",
    r"\bRunPlace\b|self\.place\b": "run context",
    r"\bconclud(e|ing)\b|compare_cells|run_cells|\bCell(Report|Facts)\b": "aggregate; run of a grid",
    r"/(comparing|measuring|concluding|matrix|polish|compact|whole|turning|work|watch|prior)\.py": "a noun for the file",
    r"(?i)contradiction": "counterfactual noise",
    r"(?i)\bpolish": "decoder fine-tune",
    r"(?i)\bcompact(ed|s|ing)?\b": "latent PCA",
    r"\bDescent\b": "hybrid optimizer",
    r"(?i)\bdecisive": "fingerprint",
    r"\bprior_(table|lines)\b|\bclass (Fast|Slow)\b|\bFastSet\b|fast_features|\.slow\b": "drift, FEP, SVP",
    r"evaluate\.fast\b|settings\.fast\b|\bfast(:| =) (FepSet|Sequence|true|false)|--no-fast\b|_fast_videos\b": "FEP",
    r"\bmake_watchers\b": "make_callbacks",
    r"\.stops\(": "distance()",
    r"class Snapshot\b": "Dataset",
    r"(?i)\bclips? (that )?lacks?\b|\bwhat lacks\b|\bwhat it takes\b|\btake[ns]? up\b|_taken_up\b": "missing, cost, resumed",
}

# Where a word is meant otherwise: path, what stands in the line, and why.
PERMITTED = (
    (
        r"^(scenes|generator|trainer|examples|docs|benchmarks|README|ARCHITECTURE)",
        r"(?i)\bstudio\b(?!\.open)",
        "a scene family",
    ),
    (r".", r"DiffSynth-Studio", "the name of a program"),
    (r"shutter/axis\.py", r"no number of edges beats", "the verb"),
    (r"trainer/(config/|evaluation/results)", r'"contradiction"', "the former name of a setting, read for one version"),
    (r"trainer/commands/evaluate(_options)?\.py", r"--no-fast", "the former name of an option, read for one version"),
    (r"trainer/tiny/", r"[\"`]polish[\"`]", "the former name of a stage, whose folders and settings are read"),
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
    found = [
        f"{path}: the file's name" for path in texts() if (hit := word.search(path)) and not permitted(path, path, hit.group())
    ]
    for path in texts():
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), start=1):
            for match in word.finditer(line):
                if not permitted(path, line, match.group()):
                    found.append(f"{path}:{number}: {line.strip()[:100]}")
    assert not found, f"write {instead}:\n" + "\n".join(found)


# Where an axis may be named: its physics, the families that show it, published numbers of others, the camera's own settings.
NAMES_AN_AXIS = {
    "generator/export/presets.py": "the published law of each axis",
    "generator/recipe/estimate.py": "what a render with blur costs",
    "generator/recipe/label_proof.py": "the shutter's closed form in a custom .blend",
    "generator/render/single.py": "the cast of an exported .blend",
    "generator/verify/findings.py": "the shutter's short blurs",
    "trainer/evaluation/published_numbers.py": "published numbers of each axis",
    "trainer/formats/published.py": "the published law of each axis",
    "trainer/generation/sampler.py": "an example in a docstring",
    "trainer/methods/control/generate.py": "an example in a docstring",
    "trainer/tiny/shared/coverage.py": "closed forms of the tiny backbone's world",
    "blender_addons/stopdown/live.py": "the camera's own settings behind the sliders",
}


def test_an_axis_is_named_by_hand_only_where_its_physics_is() -> None:
    """Options, choices, schema and forms are made from `AXES`; a new axis has no other place to be written into."""
    axis = re.compile(r"""['"](shutter|aperture|temperature)['"]""")
    files = [path for path in texts() if path.endswith(".py") and not path.startswith(("scenes/", "examples/", "benchmarks/"))]
    found = {path for path in files if axis.search((ROOT / path).read_text(encoding="utf-8"))}
    assert found <= NAMES_AN_AXIS.keys(), f"made from AXES instead: {sorted(found - NAMES_AN_AXIS.keys())}"
    assert found == NAMES_AN_AXIS.keys(), f"no longer needed here: {sorted(NAMES_AN_AXIS.keys() - found)}"
