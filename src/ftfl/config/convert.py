"""A configuration as data: JSON round trip, dotted names, changes, differences, content hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ftfl.config.checks import check
from ftfl.config.fields import Config
from ftfl.errors import FtflError, unknown


def to_dict(config: Config) -> dict[str, Any]:
    """Plain JSON data: nested dictionaries, lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(data: Mapping[str, Any]) -> Config:
    """The inverse of ``to_dict``; an unknown or misplaced field is an error."""
    return _build(Config, data, "")


def _build(cls: type, data: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    for name in data:
        if name not in hints:
            raise unknown("configuration field", prefix + name, [prefix + h for h in hints])
    return cls(**{n: _value(hints[n], v, f"{prefix}{n}") for n, v in data.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [h for h in typing.get_args(hint) if h is not types.NoneType]
        return None if value is None else _value(inner[0], value, name)
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        check(isinstance(value, Mapping), name, value, "must be a group of fields")
        return _build(typing.cast(type, hint), value, name + ".")
    if typing.get_origin(hint) is tuple:
        check(isinstance(value, list | tuple), name, value, "must be a list")
        kinds = typing.get_args(hint)
        if kinds[-1] is not Ellipsis:
            check(len(value) == len(kinds), name, value, f"must have {len(kinds)} numbers")
        return tuple(_value(kinds[0], v, name) for v in value)
    if hint is float:
        ok = isinstance(value, int | float) and not isinstance(value, bool)
        check(ok, name, value, "must be a number")
        return float(value)
    if hint in (int, bool, str):
        ok = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
        kind = {int: "a whole number", bool: "true or false", str: "text"}[hint]
        check(ok, name, value, f"must be {kind}")
    return value


def flatten(config: Config) -> dict[str, Any]:
    """Every value by its dotted name, e.g. ``dynamics.target``; an absent group is one None."""
    return dict(_walk(config, ""))


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value


def replace(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with dotted fields changed; unknown names and impossible values are errors."""
    data = dataclasses.asdict(config)
    names = flatten(config)
    for name, value in changes.items():
        *groups, leaf = name.split(".")
        node: Any = data
        for group in groups:
            if group in node and node[group] is None:
                raise FtflError(
                    f"{name} was given, but algorithm {config.algo!r} has no {group};"
                    " choose a model-based one (see `ftfl list algos`)."
                )
            if group not in node:
                raise unknown("configuration field", name, names)
            node = node[group]
        if leaf not in node:
            raise unknown("configuration field", name, names)
        node[leaf] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    return from_dict(data)


def difference(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted fields in which two configurations differ, with both values."""
    fa, fb = flatten(a), flatten(b)
    return {
        name: (fa.get(name), fb.get(name))
        for name in sorted(fa.keys() | fb.keys())
        if fa.get(name) != fb.get(name)
    }


def content_hash(config: Config) -> str:
    """Twelve hex digits that name the configuration: equal configurations, equal hash."""
    text = json.dumps(to_dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
