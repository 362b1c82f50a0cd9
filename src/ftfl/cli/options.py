"""Command-line options, made from the configuration's own fields, types and docstrings.

Plain argparse, told to answer misuse with one sentence: every dotted field of ``Config`` is an
option, its default is what preset and profile say, and a wrong name gets its near misses.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ftfl import config as cfg
from ftfl.config import Config
from ftfl.config.aliases import ALIASES
from ftfl.errors import FtflError, unknown

NOT_OPTIONS = frozenset({"algo", "profile", "task.name", "seed"})
"""Fields that have an argument of their own."""
PRECISIONS = ("sac.precision", "dynamics.precision")
"""What --precision stands for."""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are an ``FtflError`` with near misses."""

    def __init__(self, verb: str, description: str, **kwargs: Any):
        super().__init__(
            prog=f"ftfl {verb}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        """One sentence instead of argparse's usage dump."""
        raise FtflError(f"{message}; see `{self.prog} --help`.")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """All arguments; an unknown option is named with its near misses."""
        known, rest = self.parse_known_args(list(argv))
        if rest:
            wrong = rest[0].split("=")[0]
            near = difflib.get_close_matches(wrong, self._option_string_actions, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"see `{self.prog} --help`."
            kind = "option" if wrong.startswith("-") else "argument"
            raise FtflError(f"unknown {kind} {wrong!r}: {hint}")
        return known


class _SetAll(argparse.Action):
    """One option for several fields."""

    def __init__(self, names: Sequence[str], **kwargs: Any):
        self.names = names
        super().__init__(**kwargs)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        for name in self.names:
            setattr(namespace, name, values)


@dataclasses.dataclass(frozen=True)
class Field:
    """One configuration field as an option."""

    name: str
    hint: Any
    doc: str


def fields() -> dict[str, Field]:
    """Every dotted configuration field with its type and docstring."""
    found: dict[str, Field] = {}

    def walk(cls: type, prefix: str) -> None:
        docs = _docstrings(cls)
        for name, hint in typing.get_type_hints(cls).items():
            inner = _optional(hint)
            if dataclasses.is_dataclass(inner):
                walk(typing.cast(type, inner), f"{prefix}{name}.")
            else:
                found[prefix + name] = Field(prefix + name, hint, docs.get(name, ""))

    walk(Config, "")
    return found


def add_config_options(parser: argparse.ArgumentParser, config: Config) -> None:
    """Add an option for every field of ``config`` that has a value to change."""
    values = cfg.flatten(config)
    groups: dict[str, Any] = {}
    precisions = [name for name in PRECISIONS if name in values]
    parser.add_argument(
        "--precision", action=_SetAll, names=precisions, default=_UNSET, metavar="float32|bf16",
        help=f"sets {' and '.join(precisions)}",
    )  # fmt: skip
    for name, field in fields().items():
        group_name = name.rpartition(".")[0]
        if name in NOT_OPTIONS or name not in values:
            continue
        if group_name not in groups:
            title = f"{group_name} settings" if group_name else "run settings"
            groups[group_name] = parser.add_argument_group(title)
        _add(groups[group_name], field, values[name])


def changes(namespace: argparse.Namespace) -> dict[str, Any]:
    """Dotted fields the user set, with their values."""
    return {k: v for k, v in vars(namespace).items() if k in fields() and v is not _UNSET}


def parse_value(name: str, text: str) -> Any:
    """The value that ``text`` is for the configuration field ``name``; lists by commas.

    Raises:
        FtflError: no such field, or the text is not of its type.
    """
    known = fields()
    if name not in known:
        raise unknown("configuration field", name, known)
    hint = _optional(known[name].hint)
    optional = hint is not known[name].hint
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        if typing.get_origin(hint) is tuple:
            return [_parser(typing.get_args(hint)[0])(part) for part in text.split(",")]
        return _parser(hint if hint in (int, float) else str, optional)(text)
    except (ValueError, KeyError) as error:
        raise FtflError(f"{name} was given as {text!r}, which is not a value of it.") from error


_UNSET = argparse.SUPPRESS


def _add(group: Any, field: Field, default: Any) -> None:
    names = [*filter(None, [ALIASES.get(field.name)]), "--" + field.name.replace("_", "-")]
    doc = " ".join(field.doc.split()).replace("%", "%%")
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    text = f"{doc} [{shown}]".strip()
    hint = _optional(field.hint)
    common = {"dest": field.name, "default": _UNSET, "help": text}
    if hint is bool:
        group.add_argument(*names, action=argparse.BooleanOptionalAction, **common)
    elif typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        group.add_argument(*names, nargs="+", type=_parser(kind), metavar="N", **common)
    elif typing.get_origin(hint) is typing.Literal:
        choices = "|".join(typing.get_args(hint))
        group.add_argument(*names, type=str, metavar=choices, **common)
    else:
        optional = hint is not field.hint
        group.add_argument(
            *names, type=_parser(hint, optional), metavar=_METAVARS.get(hint, "TEXT"), **common
        )


_METAVARS = {int: "N", float: "X", str: "TEXT"}


def _parser(kind: Any, optional: bool = False) -> Any:
    def parse(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        if kind is int:
            return whole_number(text)
        return number(text) if kind is float else text

    # argparse names the type in its message.
    parse.__name__ = {int: "whole number", float: "number"}.get(kind, "text")
    return parse


def whole_number(text: str) -> int:
    """``20000``, ``20_000`` or ``2e4``."""
    value = float(text)
    if not math.isfinite(value) or value != int(value):
        raise ValueError(text)
    return int(value)


whole_number.__name__ = "whole number"  # argparse names the type in its message


def at_least(least: int) -> Callable[[str], int]:
    """A parser of whole numbers that refuses smaller ones."""

    def parse(text: str) -> int:
        try:
            value = whole_number(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(
                f"{text!r} was given, but it must be a whole number of {least} or more"
            )
        return value

    return parse


def number(text: str) -> float:
    """A decimal, or a power such as ``2**-10`` (the unit dial is exact at powers of two)."""
    base, power, exponent = text.partition("**")
    return float(base) ** float(exponent) if power else float(text)


def _optional(hint: Any) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(h for h in typing.get_args(hint) if h is not types.NoneType)
    return hint


def _docstrings(cls: type) -> dict[str, str]:
    """Strings that follow the fields of a dataclass in its source."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for node, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            docs[node.target.id] = str(after.value.value)
    return docs
