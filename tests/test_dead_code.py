"""Code that nothing uses does not stay: a function, class or method of the product is used by the product, not by tests alone.

vulture looks in the sources for names that are defined and never used. Benchmarks, examples and tests are no part of them: what
only they call belongs to them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

vulture = pytest.importorskip("vulture", reason='vulture is not installed; run pip install -e ".[dev]"')

ROOT = Path(__file__).parents[1]
PRODUCT = ("scenes", "generator", "trainer", "stopdown.py", "blender_addons")
KINDS = ("function", "class", "method", "property")  # attributes are Blender's, torch's and PyAV's own; fields are data

# The libraries that call what these decorators mark.
DECORATORS = ["@field_validator", "@model_validator", "@model_serializer", "@*.command"]

# Who calls what the product itself does not: name, and why it stays.
CALLED_BY_OTHERS = {
    "generator/__init__.py": {"__getattr__": "Python's way to import names when they are asked for"},
    "generator/console/streams.py": {"rich_proxied_file": "rich reads it"},
    "generator/console/terminal.py": {"on_broken_pipe": "rich calls it"},
    "generator/recipe/load.py": {"parse_recipe": "a recipe from text, for programs; the commands read files"},
    "generator/monitor/board_app.py": {
        "compose": "Textual calls it",
        "on_mount": "Textual calls it",
        "action_look": "Textual calls it, by the key's name",
        "action_toggle_trouble": "Textual calls it, by the key's name",
    },
    "blender_addons/stopdown/build_job.py": {"modal": "Blender calls it"},
    "blender_addons/stopdown/datasets.py": {"draw_item": "Blender calls it"},
    "blender_addons/stopdown/recipe_file.py": {"invoke": "Blender calls it"},
    "trainer/pipelines/lora_calls.py": {
        "unload_lora_weights": "a call of diffusers' pipelines, which people make",
        "enable_lora": "a call of diffusers' pipelines, which people make",
        "from_pipe": "a call of diffusers' pipelines, which people make",
    },
}

# What people call in their own programs. A page shows each, or it goes.
DOCUMENTED = {
    "generator/versions/reading/dataset.py": {"shuffled": "README.md"},
    "generator/pairs/dataset_pairs.py": {"DatasetPairs": "docs/pairs.md"},
    "generator/pairs/pair_files.py": {"read_pair_files": "docs/pairs.md", "check_formats": "docs/pairs.md"},
}


def unused(*paths: Path) -> set[tuple[str, str]]:
    """Return the file and the name of each function, class and method below the paths that nothing there uses."""
    finder = vulture.Vulture(ignore_decorators=DECORATORS)
    finder.scavenge([str(path) for path in paths])
    return {(str(item.filename), str(item.name)) for item in finder.get_unused_code() if item.typ in KINDS}


def test_the_product_uses_every_function_class_and_method_of_its_own() -> None:
    found = {(str(Path(path).relative_to(ROOT)), name) for path, name in unused(*(ROOT / part for part in PRODUCT))}
    allowed = {(path, name) for names in (CALLED_BY_OTHERS, DOCUMENTED) for path, reasons in names.items() for name in reasons}
    assert not (dead := sorted(found - allowed)), (
        f"nothing in the product uses these; delete them, or move them to tests: {dead}"
    )
    assert not (gone := sorted(allowed - found)), f"no longer needed in the lists of this test: {gone}"


@pytest.mark.parametrize(("name", "page"), [pair for names in DOCUMENTED.values() for pair in names.items()])
def test_what_is_there_for_the_programs_of_others_is_shown_on_a_page(name: str, page: str) -> None:
    assert re.search(rf"\b{name}\b", (ROOT / page).read_text(encoding="utf-8")), f"{page} does not show {name}"


def test_a_function_that_only_a_test_calls_is_named(tmp_path: Path) -> None:
    product = tmp_path / "product.py"
    product.write_text("def used(): ...\ndef dead(): used()\nclass Alone:\n    def method(self): ...\n")
    (tmp_path / "test_product.py").write_text("from product import dead\n\ndead()\n")
    assert unused(product) == {(str(product), name) for name in ("dead", "Alone", "method")}
