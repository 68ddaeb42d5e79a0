"""The base of every section of a recipe: frozen, unknown keys and values of another kind refused."""

from __future__ import annotations

import typing
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator


class Section(BaseModel):
    """A section: frozen, unknown keys, infinities and NaN refused, and true or false where a number belongs.

    `added_later` names keys that earlier recipes did not have. They are left out of plans while they have their default,
    so that plans of recipes which do not use them keep their bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    added_later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            name: part
            for name, part in tree.items()
            if name not in self.added_later or getattr(self, name) != fields[name].default
        }

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, tree: Any) -> Any:
        """Refuse `seed = true`, which pydantic would take for 1."""
        if isinstance(tree, dict):
            for name, value in tree.items():
                field = cls.model_fields.get(str(name))
                if field is not None and _holds_boolean(value) and not _admits(field.annotation):
                    shown = list(value) if isinstance(value, tuple) else value
                    raise ValueError(f"{name} = {str(shown).lower()}: true and false are no numbers; give a number")
        return tree


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_boolean, value.values()))
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_boolean, value)))


def _admits(annotation: Any) -> bool:
    """Whether an annotation has a place for true and false; sections inside it check their own."""
    if annotation in (bool, Any) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return True
    return any(_admits(part) for part in typing.get_args(annotation))
