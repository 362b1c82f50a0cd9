"""Write docs/lineage.md from INTRODUCTION.md and the raw lines in results/.

Usage: python benchmarks/lineage/report.py        (after run.sh and forks.sh, or in the middle)
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftfl.forensics.doors import CELLS
from ftfl.report.figures import draw
from ftfl.report.intervals import summarise
from ftfl.report.styles import STYLES, slots

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import dig, read_lines, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "lineage.md"
FIGURES = PAGE.parent / "figures"
MARK = (
    "<!-- Written by benchmarks/lineage/report.py from benchmarks/lineage/INTRODUCTION.md and"
    " results; change those and run it. -->"
)
METHODS = ("mbpo", "m2ac", "macura", "infoprop", "mopo")
PAPER, REPAIRED, OURS = "residual, raw", "direct, unit", "innovation, unit"
SETTINGS = {
    ("rest", 0.0): "at rest",
    ("reward-unit", -7.0): "the reward in units of 2⁷",
    ("reward-unit", -10.0): "the reward in units of 2¹⁰",
    ("noise-count", 32.0): "32 nuisance channels of pure noise",
}
Row = dict[str, Any]
Cells = dict[tuple[str, str], list[Row]]
"""Rows of one setting by (method, cell)."""


def place(arm: str) -> tuple[str, str]:
    """Method and cell of an arm."""
    name, _, door = arm.partition("+")
    repaired = name.endswith("-ftfl") or name == "ftfl-h5"
    method = name.removesuffix("-ftfl").replace("ftfl-h5", "mbpo").replace("mbpo-h5", "mbpo")
    if name in ("mbpo-unit", "mbpo-direct", "ftfl"):
        method = "mbpo"
    return method, {
        (True, ""): REPAIRED, (False, ""): PAPER, (True, "innovation"): OURS,
        (False, "scale"): "residual, unit", (False, "target"): "direct, raw",
    }[repaired, door]  # fmt: skip


def grouped(rows: Iterable[Row]) -> Cells:
    """Rows by method and cell."""
    found: Cells = defaultdict(list)
    for row in rows:
        found[place(row["arm"])].append(row)
    return found


def number(value: float) -> str:
    """Three digits, and no exponent below a million."""
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def across(rows: list[Row], look: Callable[[Row], float | None]) -> str:
    """Median over seeds with the extremes; of one seed its number alone."""
    found = [v for row in rows if row["state"] == "done" and (v := look(row)) is not None]
    failed = sum(row["state"] != "done" for row in rows)
    alert = f" **{failed} failed**" if failed else ""
    if not found:
        return "–" + alert
    if len(found) == 1:
        return number(found[0]) + alert
    middle, low, high = np.median(found), min(found), max(found)
    return f"{number(middle)} ({number(low)} … {number(high)}){alert}"


def mean(rows: list[Row]) -> str:
    """Return's mean with its interval."""
    found = [row["return"] for row in rows if row["state"] == "done"]
    failed = sum(row["state"] != "done" for row in rows)
    if not found:
        return "–"
    seen = summarise(found)
    width = "" if seen.half_width is None else f" ± {number(seen.half_width)}"
    return f"{number(seen.mean)}{width} ({seen.n})" + (f" **{failed} failed**" if failed else "")


def by_cell(cells: Cells, show: Callable[[list[Row]], str], methods: Iterable[str]) -> str:
    """Methods down, cells across."""
    run = [m for m in methods if any(m == method for method, _ in cells)]
    columns = [*CELLS, *([OURS] if any(c == OURS for _, c in cells) else [])]
    return table(
        ["", *columns], ([m, *(show(cells.get((m, c), [])) for c in columns)] for m in run)
    )


def sight(cells: Cells) -> str:
    """What screens see, in the two cells that matter, a line a method."""
    reads = (
        ("rows kept", "rollout/kept_share"),
        ("order with reward error", "autopsy/screen_sight/order_with_reward_error"),
        ("order with state error", "autopsy/screen_sight/order_with_state_error"),
        ("reward R², all rows", "autopsy/screen_sight/reward_r2_all"),
        ("reward R², stored", "autopsy/screen_sight/reward_r2_stored"),
    )
    rows = [
        [f"{m}, {c}", *(across(cells.get((m, c), []), lambda r, p=p: _read(r, p))
                        for _, p in reads)]
        for m in METHODS[1:] for c in (PAPER, REPAIRED) if (m, c) in cells
    ]  # fmt: skip
    return table(["", *(name for name, _ in reads)], rows)


def _read(row: Row, path: str) -> float | None:
    return row.get(path, dig(row, path))


def account(cells: Cells) -> str:
    """Terms of the critic account, in the cells that matter."""
    base = "autopsy/critic_account/smaller_twin/"
    reads = ("truth", "bias", "critic_fit", "reward_model", "next_state_model", "penalty")
    rows = [
        [f"{m}, {c}", *(across(cells.get((m, c), []), lambda r, k=k: dig(r, base + k))
                        for k in reads)]
        for m in METHODS for c in (PAPER, REPAIRED, OURS) if (m, c) in cells
    ]  # fmt: skip
    return table(["", "true value", *(k.replace("_", " ") for k in reads[1:])], rows)


def along_the_branch(rows: list[Row]) -> str:
    """Skill of the first and of the last imagined step."""
    found = [r["autopsy"].get("rollout_error") for r in rows if r["state"] == "done"]
    skills = [[step[0] for step in f["median_skill"]] for f in found if f]
    if not skills:
        return "–"
    first, *_, last = np.median(skills, axis=0)
    return f"{number(first)} → {number(last)}"


def curve(cells: Cells) -> str:
    """What each seed loses, by method and cell."""
    slot = slots(list(CELLS))

    def paint(axes: Axes) -> None:
        for number_, cell in enumerate(CELLS):
            style = STYLES[slot[cell]]
            for at, method in enumerate(METHODS):
                lost = [-r["return"] for r in cells.get((method, cell), []) if r["state"] == "done"]
                x = at + 0.18 * (number_ - 1.5)
                axes.plot([x] * len(lost), lost, ".", color=style.light, ms=4, alpha=0.5)
                if lost:
                    axes.plot([x], [np.median(lost)], style.marker, color=style.light, ms=6,
                              label=cell if at == 0 else None)  # fmt: skip
        axes.set_yscale("log")
        axes.set_xticks(range(len(METHODS)), METHODS)
        axes.set_ylabel("−return (reward, log)")
        axes.legend(frameon=False, fontsize=7, ncols=2)

    return draw(paint)


def probes() -> list[str]:
    """The part on probes."""
    lines = read_lines(HERE / "results" / "probes.jsonl")
    newest = {(r["dial"], r["level"], r["arm"], r["seed"]): r for r in lines}
    parts = []
    for (dial, level), words in SETTINGS.items():
        rows = [r for (d, x, _, _), r in sorted(newest.items()) if (d, x) == (dial, level)]
        if not rows:
            continue
        cells, name = grouped(rows), f"{dial}@{level:g}"
        figure = f"lineage-{dial}{level:g}.svg"
        (FIGURES / figure).write_text(curve(cells), encoding="utf-8")
        parts += [
            f"### {name}: {words}",
            f"![What each seed loses, by method and target cell](figures/{figure})",
            "Return, mean ± 95 % half-width (seeds):",
            by_cell(cells, mean, METHODS),
            "Return, median (smallest … largest seed):",
            by_cell(cells, lambda r: across(r, lambda row: row["return"]), METHODS),
            "R² of drawn rewards on rows the model never saw, before any penalty, median (range):",
            by_cell(cells, lambda r: across(
                r, lambda row: dig(row, "autopsy/reward_fidelity/replay_drawn/r2")), METHODS),
            "What the screen sees, median over seeds (range):", sight(cells),
            "Critic account in the task's reward, median over seeds (range):", account(cells),
        ]  # fmt: skip
    return ["## On probes", *parts] if parts else []


def forks() -> list[str]:
    """The part on forks of a mid-training agent."""
    lines = read_lines(HERE / "results" / "forks.jsonl")
    groups: dict[tuple[str, int, int], list[Row]] = defaultdict(list)
    for row in lines:
        groups[row["task"], row["at"], row["steps"]].append(
            row | {"return": float(np.mean([v for _, v in row["returns"]]))}
        )
    parts = []
    for (task, at, steps), rows in sorted(groups.items()):
        if len({r["arm"] for r in rows}) == 1:
            continue  # nothing to compare with
        plain = [r for r in rows if r["arm"] == "sac"]
        cells = grouped(r for r in rows if r["arm"] != "sac")
        parts += [
            f"### dmc/{task}, forks of SAC at {at:,} steps, {steps:,} steps on",
            f"SAC itself at the same number of updates: {mean(plain)}. Return over the fork's"
            " evaluations, mean ± 95 % half-width (seeds):",
            by_cell(cells, mean, METHODS),
            "R² of drawn rewards on rows the model never saw, median (range):",
            by_cell(cells, lambda r: across(
                r, lambda row: dig(row, "autopsy/reward_fidelity/replay_drawn/r2")), METHODS),
            "Skill over persistence of imagined states against the simulator's, median over"
            " channels, at the first step of a branch → at its last, median over seeds:",
            by_cell(cells, along_the_branch, METHODS),
            "Largest |Q| over what the task's rewards allow, median over seeds (range):",
            by_cell(cells, lambda r: across(
                r, lambda row: dig(row, "autopsy/critic_health/q_over_bound")), METHODS),
            "What the screen sees (no rows: no screen was run):", sight(cells),
            "Critic account in the task's reward:", account(cells),
        ]  # fmt: skip
    return ["## Forks of a mid-training agent", *parts] if parts else []


def main() -> None:
    """The whole page."""
    introduction = (HERE / "INTRODUCTION.md").read_text(encoding="utf-8").rstrip()
    text = "\n\n".join([MARK, introduction, *probes(), *forks()]) + "\n"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
