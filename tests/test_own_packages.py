"""The command starts with its own packages only: `scenes`, `generator` and `trainer` are names that others use too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stopdown import PACKAGES, foreign_package

ROOT = Path(__file__).parents[1]


def test_its_own_packages_are_known() -> None:
    assert foreign_package() is None


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_of_another_program_is_refused_with_what_to_uninstall(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    facts = tmp_path / f"{name}_of_others-0.0.36.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-of-others\nVersion: 0.0.36\n")
    (facts / "RECORD").write_text(f"{name}/__init__.py,,\n")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import stopdown"
    said = subprocess.run(
        [sys.executable, "-P", "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert said.returncode == 2 and said.stdout == ""
    assert said.stderr.count("\n") == 1
    assert f"pip uninstall {name}-of-others" in said.stderr and f"'{name}' is another program's" in said.stderr
