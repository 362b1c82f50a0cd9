"""Advice, read beside the run it is given for: what the run has already, and what it cannot have.

Instruments name every option that mends what they found. Which of them are news depends on the run,
so this is said in one place, for all of them.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from ftfl.config import Config
from ftfl.config.aliases import ALIASES

_FIELDS = {alias: field for field, alias in ALIASES.items()}
_OPTION = re.compile(
    r"--(?P<name>[a-z][a-z0-9.-]*[a-z0-9])(?: (?P<value>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?))?"
)


QUIETER = (
    "--target residual with --scale unit makes a draw's noise a part of the change, not of the"
    " channel, and beyond it nothing is known to help; a floor by the change"
    " (--dynamics.logvar-floor change) did not where it was tried (probe/slow, quadruped-walk)"
)
"""What mends draws whose noise is larger than the step they predict, and what does not."""


def for_run(advice: str, config: Config, reward_known: bool | None) -> str:
    """The advice with a remark behind every option that the run has, or cannot have.

    Args:
        advice: in plain words, with options as on the command line, say ``--scale unit``.
        config: the run's.
        reward_known: the task comes with a reward function; None: nobody can tell here.
    """

    def remarked(found: re.Match[str]) -> str:
        remark = _remark(found["name"], found["value"], config, reward_known)
        if remark is None:
            return found[0]
        # A word behind an option that takes no value is only the sentence going on.
        end = len(found[0]) if remark.of_value else len("--" + found["name"])
        return f"{found[0][:end]} ({remark.words}){found[0][end:]}"

    return _OPTION.sub(remarked, advice)


@dataclasses.dataclass(frozen=True)
class _Remark:
    words: str
    of_value: bool


def _remark(
    name: str, value: str | None, config: Config, reward_known: bool | None
) -> _Remark | None:
    path = _FIELDS.get("--" + name, name.replace("-", "_"))
    now = _field(config, path)
    if now is None:
        return None
    if isinstance(now, bool):
        return _Remark("this run has it", False) if now else None
    if isinstance(now, str) or (value is not None and re.fullmatch(r"[0-9.]+", value)):
        if path == "dynamics.reward_model" and value == "given" and reward_known is False:
            return _Remark("not here: the task has no reward function", True)
        same = value is not None and (value == now if isinstance(now, str) else float(value) == now)
        return _Remark("this run has it", True) if same else None
    return _Remark(f"now {now:g}", False) if isinstance(now, int | float) else None


def _field(config: Config, path: str) -> Any:
    """The value at a path such as ``dynamics.scale``; None where the run has no such part."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
