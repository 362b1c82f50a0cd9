"""Write README.md and the dose-response curves from results/runs.jsonl.

Usage: python benchmarks/probes/report.py        (after run.py, or in the middle of it)

Thick lines are means over seeds, bars their Student-t 95 % intervals, dots single seeds; SAC is one
band, since its runs are the same to the bit at every level. Failed runs are named in the tables.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from run import ALGOS, LEVELS, RESULTS, read_lines

from ftfl.envs.probes import DIALS
from ftfl.forensics.evidence import mean_estimate
from ftfl.report.figures import draw
from ftfl.report.intervals import SMALLEST_BAND, summarise
from ftfl.report.styles import STYLES, slots

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
FIGURES = HERE / "results"
PAGE = HERE / "README.md"
TARGETS = ("residual, raw", "residual, unit", "direct, raw", "direct, unit")
AT_ZERO = ("reward-unit", "channel-unit")
"""Dials on which rest is the level 0, in its place among the others."""
SUMMARY = {name: dial.summary for name, dial in DIALS.items()} | {
    "reward-unit": "the reward's unit, as a power of two (`--reward-unit 2**LEVEL`)"
}

Runs = dict[tuple[str, str, str], list[dict[str, Any]]]
"""Rows by (dial, level as text, arm)."""


def load(path: Path) -> Runs:
    """Rows by cell; of a run that was repeated, the newest."""
    newest = {(r["dial"], f"{r['level']:g}", r["arm"], r["seed"]): r for r in read_lines(path)}
    runs: Runs = defaultdict(list)
    for (dial, level, arm, _), row in sorted(newest.items()):
        runs[dial, level, arm].append(row)
    return runs


def columns(dial: str, runs: Runs) -> list[str]:
    """Levels in order, rest among them."""
    found = {level for d, level, _ in runs if d == dial} | {f"{x:g}" for x in LEVELS[dial]}
    if dial in AT_ZERO:
        levels = sorted(found | {"0"}, key=float, reverse=dial == "reward-unit")
        return ["rest" if level == "0" else level for level in levels]
    return ["rest", *sorted(found, key=float)]


def cell(dial: str, level: str, arm: str, runs: Runs) -> list[dict[str, Any]]:
    """The rows behind one point."""
    if level == "rest" or arm == "sac":
        return runs.get(("rest", "0", arm), [])
    return runs.get((dial, level, arm), [])


def values(rows: list[dict[str, Any]], what: str) -> list[float]:
    """Finite values of finished runs."""
    return [row[what] for row in rows if row["state"] == "done" and row.get(what) is not None]


def text(rows: list[dict[str, Any]], what: str) -> str:
    """A table's cell: mean, interval, seeds, and what failed."""
    found = values(rows, what)
    failed = sum(row["state"] != "done" for row in rows)
    alert = f" **{failed} failed**" if failed else ""
    if not found:
        return ("–" if not rows else "") + alert
    seen = summarise(found)
    width = "" if seen.half_width is None else f" ± {seen.half_width:.2g}"
    return f"{seen.mean:.3g}{width} ({seen.n}){alert}"


def by_level(dial: str, what: str, arms: list[str], runs: Runs) -> str:
    """Levels across, arms down."""
    levels = columns(dial, runs)
    lines = ["| | " + " | ".join(levels) + " |", "|---" * (len(levels) + 1) + "|"]
    for arm in arms:
        cells = [text(cell(dial, level, arm, runs), what) for level in levels]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve(dial: str, runs: Runs) -> str:
    """The dose-response curve of one dial as SVG."""
    levels, slot = columns(dial, runs), slots(list(ALGOS))

    def paint(axes: Axes) -> None:
        baseline = values(cell(dial, "rest", "sac", runs), "return")
        if baseline:
            seen, colour = summarise(baseline), STYLES[slot["sac"]].light
            axes.axhline(seen.mean, color=colour, lw=1, ls="--")
            if seen.half_width is not None and seen.n >= SMALLEST_BAND:
                low, high = seen.mean - seen.half_width, seen.mean + seen.half_width
                axes.axhspan(low, high, color=colour, alpha=0.15, lw=0)
        for place, arm in enumerate(ALGOS[1:]):
            style, points = STYLES[slot[arm]], []
            for x, level in enumerate(levels):
                found = values(cell(dial, level, arm, runs), "return")
                at = x + 0.08 * (place - 2)
                axes.plot([at] * len(found), found, ".", color=style.light, ms=3, alpha=0.5)
                if found:
                    seen = summarise(found)
                    points.append((at, seen.mean))
                    if seen.half_width is not None and seen.n >= SMALLEST_BAND:
                        axes.errorbar(at, seen.mean, seen.half_width, color=style.light, lw=1)
            if points:
                axes.plot(*zip(*points, strict=True), color=style.light, marker=style.marker, ms=4)
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlabel("level")
        axes.set_ylabel("return (reward)")

    return draw(paint)


def errors_seen() -> list[str]:
    """One-step errors as the agent meets them, from seen_errors.py."""
    found: dict[tuple[str, float], dict[str, list[dict[str, Any]]]] = {}
    for line in read_lines(RESULTS.with_name("seen_errors.jsonl")):
        cells = found.setdefault((line["dial"], line["level"]), defaultdict(list))
        cells[line["cell"]].append(line)
    if not found:
        return []

    def median(lines: list[dict[str, Any]], what: str) -> str:
        return f"{np.median([line[what][0] for line in lines]):.2g}" if lines else "–"

    head = ["| | " + " | ".join(f"{c}: mean | draw" for c in TARGETS) + " |",
            "|---" * (2 * len(TARGETS) + 1) + "|"]  # fmt: skip
    rows = [
        f"| {dial}@{level:g} | "
        + " | ".join(
            f"{median(cells[c], 'mean_all_rms')} | {median(cells[c], 'draw_all_rms')}"
            for c in TARGETS
        )
        + " |"
        for (dial, level), cells in found.items()
    ]
    return [
        "## What the agent sees of one-step errors",
        "`python benchmarks/probes/seen_errors.py`: refits on 2,000 random steps, 3,000 updates,"
        " rms error of the position after the view has turned the dial back, in stds of the"
        " position, median of 3 seeds (ten where the next table has ten): of one elite's mean, and"
        " of its draw.",
        "\n".join(head + rows),
        *crossing(),
    ]


def crossing() -> list[str]:
    """Direct over residual targets under the carrier, paired over seeds."""
    errors: dict[tuple[float, str], dict[int, list[float]]] = defaultdict(dict)
    for line in read_lines(RESULTS.with_name("seen_errors.jsonl")):
        if line["dial"] == "autocorrelation":
            errors[line["level"], line["cell"]][line["seed"]] = line["mean_all_rms"]
    rows = []
    for kappa in sorted({level for level, _ in errors}):
        row = [f"{kappa:g}", f"{(2 * (1 - kappa)) ** -0.5:.2f}"]
        for scale in ("unit", "raw"):
            direct, residual = (errors[kappa, f"{t}, {scale}"] for t in ("direct", "residual"))
            seeds = sorted(direct.keys() & residual.keys())
            if len(seeds) < 2:
                row += ["–", "–", "–"]
                continue
            ratio = np.log(np.divide(*([of[s] for s in seeds] for of in (direct, residual))))
            for channel in ratio.T:
                told = mean_estimate(channel)
                value, low, high = np.exp([told.value, told.low, told.high])
                row.append(f"{value:.2f} [{low:.2f}, {high:.2f}]")
            row.append(str(len(seeds)))
        rows.append(row)
    if not rows:
        return []
    head = [
        "κ",
        "by target's std",
        "unit: position",
        "unit: velocity",
        "n",
        "raw: position",
        "raw: velocity",
        "n",
    ]
    return [
        "### Direct over residual targets, by κ of the carrier",
        "Error of one elite's mean under `autocorrelation`, direct ÷ residual: geometric mean over"
        " paired seeds [95 % t interval of the logarithm]; below 1 direct is better. By target's"
        " std: what it would be if errors were in proportion to it, 1/√(2(1 − κ)) (T10).",
        table(head, rows),
    ]


def on_laptop(runs: Runs) -> list[str]:
    """The points that the laptop profile was asked to confirm, beside the probe profile's."""
    large = load(RESULTS.with_name("laptop.jsonl"))
    if not large:
        return []
    rows = [
        f"| {dial}@{level} | {arm} | {text(found, 'return')} | {text(found, 'model/reward_r2')}"
        f" | {text(cell(dial, level, arm, runs), 'return')}"
        f" | {text(cell(dial, level, arm, runs), 'model/reward_r2')} |"
        for (dial, level, arm), found in large.items()
    ]
    return [
        "## Points on the laptop profile",
        "`run.py --profile laptop --seeds 0 1 2`: networks of the papers' size, a thousand steps"
        " after warm-up as above. Mean ± 95 % half-width (seeds).",
        "\n".join(["| point | arm | return, laptop | reward R² | return, probe | reward R² |",
                   "|---" * 6 + "|", *rows]),
    ]  # fmt: skip


def main() -> None:
    """All dials that have a run."""
    runs = load(RESULTS)
    rows = [row for cell_rows in runs.values() for row in cell_rows]
    parts = [(HERE / "INTRODUCTION.md").read_text(encoding="utf-8").rstrip()]
    seconds = sum(row["seconds"] or 0 for row in rows)
    failed = sum(row["state"] != "done" for row in rows)
    parts.append(
        f"So far {len(rows)} runs, {failed} of them failed, {seconds / 3600:.2f} h of wall clock;"
        " seconds are upper bounds where the machine was shared."
    )
    for dial in LEVELS:
        turned = sorted({arm for d, _, arm in runs if d == dial})
        if dial == "rest" or not turned:
            continue
        arms = [*ALGOS, *(arm for arm in turned if arm not in ALGOS)]
        (FIGURES / f"{dial}.svg").write_text(curve(dial, runs), encoding="utf-8")
        parts += [
            f"## {dial}", f"{SUMMARY[dial]}.",
            f"![Return over level of {dial}](results/{dial}.svg)",
            "Return, mean ± 95 % half-width (seeds):", by_level(dial, "return", arms, runs),
            "Reward R² of a single member on held-out rows:",
            by_level(dial, "model/reward_r2", [a for a in arms if a != "sac"], runs),
        ]  # fmt: skip
    parts += on_laptop(runs) + errors_seen()
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
