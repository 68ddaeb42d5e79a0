"""What no label table of a version may say: another type than the schema's, a value that is none, a value against its law."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from generator.recipe.schema import Recipe
from generator.store.labels import label_schema
from scenes.axes import AXES, UnitLaw

LAW_TOLERANCE = 1e-6  # relative; plans hold nine significant digits


def label_faults(labels: pa.Table, recipes: Sequence[Mapping[str, Any]] = ()) -> Iterator[str]:
    """Yield what is wrong with labels, one phrase per column; each names a clip. Columns that are not Stopdown's may hold
    anything. The unit law is known where all clips come from one recipe.
    """
    axes = tuple(axis for axis in AXES if {AXES[axis].column, f"{axis}_control"} & set(labels.column_names))
    types = list(_type_faults(labels, axes))
    yield from types
    if not types:
        recipe = _recipe(recipes)
        for axis in axes:
            yield from _axis_faults(labels, axis, None if recipe is None else recipe.law(axis))


def _type_faults(labels: pa.Table, axes: tuple[str, ...]) -> Iterator[str]:
    for axis in axes:
        for name in (AXES[axis].column, f"{axis}_control"):
            if name not in labels.column_names:
                yield f"there are labels of {axis}, and no column {name}"
    for field in label_schema(axes, two_parts=True):
        if field.name in labels.column_names:
            kind = labels.schema.field(field.name).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if kind != field.type and not (field.type == pa.string() and pa.types.is_large_string(kind)):
                yield f"column {field.name} is {kind}, not {field.type}"


def _axis_faults(labels: pa.Table, axis: str, law: UnitLaw | None) -> Iterator[str]:
    column = AXES[axis].column
    values, controls = (labels[name].to_numpy() for name in (column, f"{axis}_control"))
    given = [~labels[name].is_null().to_numpy() for name in (column, f"{axis}_control")]

    def fault(wrong: np.ndarray[Any, np.dtype[np.bool_]], words: str) -> Iterator[str]:
        if wrong.any():
            at = int(np.argmax(wrong))
            said = f"{column} {_word(values[at])} at control {_word(controls[at])}"
            more = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
            yield f"clip {labels['clip_id'][at].as_py()} has {said}: {words}{more}"

    yield from fault(given[0] != given[1], "a label has both or neither")
    both = given[0] & given[1]
    with np.errstate(all="ignore"):
        additive = AXES[axis].default_law.additive
        number = both & np.isfinite(values) & (additive | (values > 0))
        yield from fault(both & ~number, f"a value is a {'finite' if additive else 'positive'} number")
        inside = both & (np.abs(controls) <= 1.0)
        yield from fault(both & ~inside, "a control lies in -1 to 1")
        if law is not None:
            expected = law.values(controls)
            apart = np.abs(values - expected) > LAW_TOLERANCE * np.abs(expected) + law.slack(LAW_TOLERANCE)
            yield from fault(number & inside & apart, f"the law has {law}")


def _word(value: float) -> str:
    return "nothing" if np.isnan(value) else f"{value:.9g}"


def _recipe(recipes: Sequence[Mapping[str, Any]]) -> Recipe | None:
    if len(recipes) != 1:
        return None
    try:
        return Recipe.model_validate(recipes[0])
    except ValidationError:  # of other people's data, or of an earlier Stopdown
        return None
