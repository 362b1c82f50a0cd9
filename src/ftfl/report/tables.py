"""Tables of final numbers: one row an arm, one row a seed, and what the arms do differently."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ftfl.config import Config, difference, flatten
from ftfl.report.curves import Arm, Seed, last_value
from ftfl.report.intervals import METHOD, Summary, summarise
from ftfl.report.parts import Cell, Table
from ftfl.sinks.table import duration, number

RETURN = "eval/return_mean_reward"
_REWARD_R2 = "model/reward_r2"
_SYNTHETIC = "rollout/synthetic_reward_mean_reward"
_REAL = "rollout/real_reward_mean_reward"
_NONE = "–"


def final_table(arms: Sequence[Arm]) -> Table:
    """One row an arm: the last evaluation of every seed, and how the model saw reward.

    Failed and unfinished seeds count with their last value and are named in the notes.
    """
    rows = []
    for arm in arms:
        returns = summarise(last_value(seed, RETURN) for seed in arm.seeds)
        rows.append(
            (
                arm.label,
                _seeds_cell(arm),
                _return_cell(returns),
                _range_cell(returns),
                _spread_cell(arm, _REWARD_R2),
                _spread_cell(arm, _SYNTHETIC),
                _spread_cell(arm, _REAL),
                _seconds_cell(arm),
            )
        )
    return Table(
        "Final results per arm",
        (
            "arm",
            "seeds",
            "return, last evaluation (reward)",
            "worst to best seed (reward)",
            "reward R² (share)",
            "synthetic mean reward (reward)",
            "real mean reward (reward)",
            "wall time per seed",
        ),
        tuple(rows),
        tuple(_notes(arms)),
    )


def seed_table(arms: Sequence[Arm]) -> Table:
    """One row a seed, failed ones included, with what each last recorded."""
    rows = []
    for arm in arms:
        for seed in arm.seeds:
            evaluation = seed.last(RETURN)
            rows.append(
                (
                    Cell(arm.label, seed.name),
                    Cell(seed.state, seed.message, alert=seed.failed),
                    _progress(seed),
                    Cell(
                        _number(evaluation and evaluation[1]),
                        f"at step {evaluation[0]:,}" if evaluation else "never evaluated",
                    ),
                    _number(_value(seed, _REWARD_R2)),
                    _number(_value(seed, _SYNTHETIC)),
                    _number(_value(seed, _REAL)),
                    _duration(seed.seconds),
                )
            )
    return Table(
        "Every seed",
        (
            "seed",
            "state",
            "environment steps",
            "return, last evaluation (reward)",
            "reward R² (share)",
            "synthetic mean reward (reward)",
            "real mean reward (reward)",
            "wall time",
        ),
        tuple(rows),
        ("n = 1 in every row; a return is the mean over the episodes of one evaluation.",),
    )


def difference_table(arms: Sequence[Arm]) -> Table:
    """The configuration fields in which arms differ; labels and the seed left out.

    Where an arm lacks a whole group (SAC has no dynamics model), the group is one row, and its
    fields are listed only where the arms that have it differ.
    """
    known = [(arm, seed.config) for arm in arms for seed in arm.seeds[:1] if seed.config]
    configs = [config for _, config in known]
    names = {name for config in configs[1:] for name in difference(configs[0], config)}
    names |= {name.rpartition(".")[0] for name in names if "." in name}
    rows = []
    for name in sorted(names - {"algo", "profile", "seed"}):
        values = [_setting(config, name) for config in configs]
        present = {value for value in values if value != _NONE}
        if len(present) > 1:
            rows.append((name, *values))
    notes = [f"{arm.label}: no readable configuration." for arm in arms if arm not in
             [known_arm for known_arm, _ in known]]  # fmt: skip
    for arm in arms:
        mixed = _mixed(arm)
        if mixed:
            notes.append(
                f"{arm.label}: its seeds do not share one configuration, they differ in"
                f" {', '.join(mixed)}; the column shows the first seed's."
            )
    if not rows:
        notes.append("The arms differ in no field but their seeds.")
    columns = ("field", *(arm.label for arm, _ in known))
    return Table("What differs between the arms", columns, tuple(rows), tuple(notes))


def _setting(config: Config, name: str) -> str:
    flat = flatten(config)
    if name in flat:
        return "none" if flat[name] is None else _plain(flat[name])
    # An absent group is one None under the group's own name; elsewhere its fields stand for it.
    return "present" if any(key.startswith(f"{name}.") for key in flat) else _NONE


def _mixed(arm: Arm) -> list[str]:
    configs = [seed.config for seed in arm.seeds if seed.config]
    names = {name for config in configs[1:] for name in difference(configs[0], config)}
    return sorted(names - {"seed"})


def _notes(arms: Sequence[Arm]) -> list[str]:
    notes = [
        f"Return: mean over seeds ± {METHOD}, each seed by its last evaluation; other columns:"
        " mean over seeds of the last value, with the smallest and the largest.",
    ]
    if any(len(arm.seeds) == 2 for arm in arms):
        notes.append(
            "With n = 2 the interval is 12.7 times as wide as the distance between the seeds:"
            " two seeds hardly tell anything about a third."
        )
    for arm in arms:
        if arm.note:
            notes.append(f"{arm.label}: {arm.note}")
        doubled = Counter(seed.number for seed in arm.seeds if seed.number is not None)
        for seed_number, times in doubled.items():
            if times > 1:
                notes.append(
                    f"{arm.label}: seed {seed_number} is there {times} times; runs of one seed"
                    " are not independent, so n and the interval claim too much."
                )
        for seed in arm.seeds:
            if not seed.ended or math.isnan(last_value(seed, RETURN)):
                notes.append(_unfinished(arm, seed))
    return notes


def _unfinished(arm: Arm, seed: Seed) -> str:
    evaluation = seed.last(RETURN)
    if evaluation is None:
        counted = "it was never evaluated and is not in the mean"
    elif math.isnan(evaluation[1]):
        counted = f"its last evaluation, at step {evaluation[0]:,}, was not finite and is not in"
        counted += " the mean"
    else:
        counted = f"it counts with its last evaluation, at step {evaluation[0]:,}"
    message = f" ({seed.message.rstrip('.')})" if seed.message else ""
    return f"{arm.label} {seed.name}: {seed.state} at step {_progress(seed)}{message}; {counted}."


def _progress(seed: Seed) -> str:
    total = f" of {seed.config.steps:,}" if seed.config else ""
    return f"{seed.env_steps:,}{total}"


def _seeds_cell(arm: Arm) -> Cell:
    states = Counter(seed.state for seed in arm.seeds if not seed.ended)
    detail = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return Cell(str(len(arm.seeds)), detail, alert=any(seed.failed for seed in arm.seeds))


def _of(summary: Summary) -> str:
    total = summary.n + summary.missing
    return f"n = {summary.n}" if not summary.missing else f"n = {summary.n} of {total}"


def _return_cell(summary: Summary) -> Cell:
    if summary.n == 0:
        return Cell(_NONE, _of(summary))
    if summary.half_width is None:
        return Cell(_number(summary.mean), f"{_of(summary)}: no interval")
    return Cell(f"{_number(summary.mean)} ± {_number(summary.half_width)}", _of(summary))


def _range_cell(summary: Summary) -> Cell:
    if summary.n == 0:
        return Cell(_NONE, _of(summary))
    return Cell(_range(summary, _number), _of(summary))


def _spread_cell(arm: Arm, metric: str) -> Cell:
    if all(seed.last(metric) is None for seed in arm.seeds):
        return Cell(_NONE)
    return _mean_cell(summarise(last_value(seed, metric) for seed in arm.seeds), _number)


def _seconds_cell(arm: Arm) -> Cell:
    return _mean_cell(summarise(seed.seconds for seed in arm.seeds), _duration)


def _mean_cell(summary: Summary, show: Callable[[float], str]) -> Cell:
    if summary.n == 0:
        return Cell("not finite", _of(summary), alert=True)
    spread = f"; {_range(summary, show)}" if summary.n > 1 else ""
    return Cell(show(summary.mean), f"{_of(summary)}{spread}")


def _range(summary: Summary, show: Callable[[float], str]) -> str:
    if summary.n == 1:
        return show(summary.mean)
    return f"{show(summary.smallest)} to {show(summary.largest)}"


def _value(seed: Seed, metric: str) -> float | None:
    last = seed.last(metric)
    return None if last is None else last[1]


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return number(value).replace("-", "−") if math.isfinite(value) else "not finite"


def _duration(seconds: float) -> str:
    return duration(seconds) if math.isfinite(seconds) else _NONE


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
