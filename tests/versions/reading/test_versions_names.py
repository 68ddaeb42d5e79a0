"""Names that become file names: what is read from bytes agrees with the pattern that says what a name is."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.errors import DamagedError
from generator.versions.manifest.rows import ID_PATTERN, LOSSLESS, check_names

NAME = st.one_of(
    st.from_regex(ID_PATTERN, fullmatch=True),
    st.text(alphabet="aZ09._-/\\\n\0 é\u0430", max_size=8),
    st.integers(195, 205).map(lambda length: "x" * length),
)


def rows(ids: list[str | None], names: list[str] | None = None) -> pa.Table:
    lossless = [[(name, "0" * 64) for name in names or []]] * len(ids)
    return pa.table({"clip_id": pa.array(ids, pa.string()), "lossless": pa.array(lossless, LOSSLESS)})


def fits(names: list[str]) -> bool:
    return all(re.fullmatch(ID_PATTERN.strip("^$"), name) for name in names)


@given(names=st.lists(NAME, min_size=1, max_size=6, unique=True), start=st.integers(0, 5))
def test_ids_pass_exactly_where_the_pattern_does(names: list[str], start: int) -> None:
    ids = sorted(names, key=lambda name: name.encode())
    table = rows(ids).slice(start)  # a slice's offsets do not begin at zero
    if fits(ids[start:]):
        check_names(table, DamagedError)
    else:
        with pytest.raises(DamagedError, match="is not a clip id"):
            check_names(table, DamagedError)


@given(names=st.lists(NAME, min_size=1, max_size=6, unique=True))
def test_frame_names_pass_exactly_where_the_pattern_does(names: list[str]) -> None:
    if fits(names):
        check_names(rows(["a", "b"], names), DamagedError)
    else:
        with pytest.raises(DamagedError, match="is not a frame file name"):
            check_names(rows(["a", "b"], names), DamagedError)


def test_a_missing_id_is_refused() -> None:
    with pytest.raises(DamagedError, match="is not a clip id"):
        check_names(rows(["a", None]), DamagedError)
