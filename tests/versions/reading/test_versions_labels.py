"""A commit takes no false labels and no caption from elsewhere; a check of a store finds what is gone, and only that."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from versions_support import built

from generator.recipe.load import parse_recipe
from generator.recipe.plan import make_plan
from generator.remotes.base import open_remote
from generator.store.label_check import label_faults
from generator.versions.check import check
from generator.versions.commit_folder import commit_folder
from generator.versions.history.history import History
from generator.versions.sync.push import push
from generator.versions.sync.repair import repair_all
from generator.versions.working.restore import restore
from scenes.errors import InputError

COLUMN = "shutter_exposure_s"
RECIPE = """
name = "one"
[video]
width = 64
height = 64
[[pyramid]]
axes = ["shutter"]
family = ["flyby"]
layers = [3]
scenes_per_layer = 1
frames = [5]
"""


def edited(column: str, change: Callable[[list[float | None]], list[float | None]]) -> Callable[[pa.Table], pa.Table]:
    """Return what changes the values of a column."""

    def edit(table: pa.Table) -> pa.Table:
        index = table.column_names.index(column)
        return table.set_column(index, table.schema.field(index), pa.array(change(table[column].to_pylist()), pa.float64()))

    return edit


def first(value: float) -> Callable[[list[float | None]], list[float | None]]:
    """Return what puts a value in the place of the first that is there."""

    def change(values: list[float | None]) -> list[float | None]:
        at = next(at for at, before in enumerate(values) if before is not None)
        return [*values[:at], value, *values[at + 1 :]]

    return change


def text_column(table: pa.Table) -> pa.Table:
    """Return the table with an axis's values as text."""
    return table.set_column(table.column_names.index(COLUMN), COLUMN, table[COLUMN].cast(pa.string()))


FALSE = {
    "a value is a positive number": edited(COLUMN, first(-5.0)),
    "-5 at control": edited(COLUMN, first(-5.0)),
    "inf at control": edited(COLUMN, first(float("inf"))),
    "nothing at control": edited(COLUMN, first(float("nan"))),
    "a control lies in -1 to 1": edited("shutter_control", first(1.5)),
    "a label has both or neither": edited(COLUMN, lambda values: [None] * len(values)),
    "is string, not double": text_column,
    "no column shutter_control": lambda table: table.drop_columns(["shutter_control"]),
    "shows no clip": lambda table: table.slice(0, 0),
}


@pytest.mark.parametrize("words", FALSE)
def test_a_commit_takes_no_false_labels(tmp_path: Path, words: str) -> None:
    history, _, version = built(tmp_path / "ds")
    file = history.path / "labels.parquet"
    table = FALSE[words](pq.read_table(file))
    pq.write_table(table, file)
    if not table.num_rows:
        shutil.rmtree(history.path / "clips")
    with pytest.raises(InputError) as refused:
        commit_folder(history, "false")
    assert words in str(refused.value) and history.refs.head() == version.id


def test_labels_against_the_law_of_their_recipe_are_found() -> None:
    plan = make_plan(parse_recipe(RECIPE, source="one.toml"))
    clips = [clip for clip in plan.clips if "shutter" in clip.axes]
    recipe = plan.recipe.model_dump(mode="json")
    rows = {"clip_id": [c.clip_id for c in clips], COLUMN: [c.values["shutter"] for c in clips]}
    rows["shutter_control"] = [clip.controls["shutter"] for clip in clips]
    assert list(label_faults(pa.table(rows), [recipe])) == []
    wrong = pa.table({**rows, COLUMN: [rows[COLUMN][0] * 1.01, *rows[COLUMN][1:]]})
    assert [fault for fault in label_faults(wrong, [recipe]) if "the law has neutral" in fault and clips[0].clip_id in fault]


def test_a_caption_is_no_symbolic_link(tmp_path: Path) -> None:
    history, clips, version = built(tmp_path / "ds")
    secret = tmp_path / "secret"
    secret.write_text("what no caption says\n")
    text = history.path / "clips" / f"{next(iter(clips))}.txt"
    text.unlink()
    text.symlink_to(secret)
    with pytest.raises(InputError, match="symbolic link"):
        commit_folder(history, "linked")
    assert history.refs.head() == version.id


def test_what_is_gone_is_found_and_comes_back(tmp_path: Path) -> None:
    history, _, version = built(tmp_path / "ds")
    (tmp_path / "store").mkdir()
    push(history, open_remote(str(tmp_path / "store")))
    assert check(History.open(tmp_path / "store")).clean  # a store that shows no version lacks none of its files
    record = next((history.root / "records").glob("??/*.json"))
    gone = [history.root / "plan.json", history.root / "working.json", record]
    for path in gone:
        path.unlink()
    found = {damage.path for damage in check(history).damages}
    assert found == {str(path.relative_to(history.path)) for path in gone}
    repaired, _ = repair_all(history, open_remote(str(tmp_path / "store")))
    assert repaired.repaired == (str(record.relative_to(history.path)),)
    restore(history, version.id)
    assert check(history).clean
