"""The extension's zip, built and installed once, and a dataset of the same recipe by `stopdown build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from extension_support import RECIPE, build_zip, copied_sources, fresh_user, in_blender, stopdown


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def zip_file(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_zip(sources, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(zip_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a Blender user folder with the extension installed, and what was seen while it was; do not change it."""
    user = tmp_path_factory.mktemp("blender") / "user"
    user.mkdir()
    return user, in_blender("install", user, zip_file)


@pytest.fixture
def user(installed: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """Return a Blender user folder of one's own with the extension installed."""
    return fresh_user(installed[0], tmp_path)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with tiny.toml and the dataset that `stopdown build` makes of it."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "tiny.toml").write_text(RECIPE)
    made = stopdown("build", "tiny.toml", "--out", "dataset", "--workers", "1", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def own(installed: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a .blend that was marked and built in the panel, and what was seen on the way."""
    folder = tmp_path_factory.mktemp("own")
    user = fresh_user(installed[0], folder)
    in_blender("hostile_file", user, folder / "shot.blend", folder)
    return folder, in_blender("custom_blend", user, folder / "shot.blend", folder / "dataset", folder)
