"""What every group of fields refuses: values that are not numbers of their kind, or not allowed."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, Literal

from ftfl.errors import FtflError


def check(ok: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value in one sentence: the field, what was given, what is allowed."""
    if not ok:
        raise FtflError(f"{name} was given as {value!r}, but {allowed}.")


def positive(owner: object, prefix: str, *names: str) -> None:
    """Numbers that must be above 0."""
    for name in names:
        value = getattr(owner, name)
        check(value > 0 and math.isfinite(value), prefix + name, value, "must be above 0")


def not_negative(owner: object, prefix: str, *names: str) -> None:
    """Numbers that must be 0 or more."""
    for name in names:
        value = getattr(owner, name)
        check(value >= 0 and math.isfinite(value), prefix + name, value, "must be 0 or more")


def sane(owner: object, prefix: str) -> None:
    """Every number finite, every choice one of its literals."""
    for f in dataclasses.fields(typing.cast(Any, owner)):
        value = getattr(owner, f.name)
        for number in value if isinstance(value, tuple) else (value,):
            finite = not isinstance(number, float) or math.isfinite(number)
            check(finite, prefix + f.name, value, "must be finite")
    hints = typing.get_type_hints(type(owner))
    for name, hint in hints.items():
        if typing.get_origin(hint) is Literal:
            allowed = typing.get_args(hint)
            value = getattr(owner, name)
            check(value in allowed, prefix + name, value, f"must be one of {', '.join(allowed)}")
