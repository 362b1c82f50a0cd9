"""Write docs/taxonomy.md: MDP structure → failure mode → remedy, and how often that is right.

Usage: python benchmarks/taxonomy/report.py

Reads what diagnose saw (results/structure.jsonl), and runs that were really trained: the probe grid
(benchmarks/probes), the core's benchmark (benchmarks/core) and forks (benchmarks/findings).
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.forensics.foresight import recommend

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent
sys.path.append(str(BENCHMARKS))
import autopsies  # noqa: E402
from lines import read_lines, table  # noqa: E402

PAGE = BENCHMARKS.parent / "docs" / "taxonomy.md"
MARK = (
    "<!-- Written by benchmarks/taxonomy/report.py from benchmarks/taxonomy/INTRODUCTION.md and"
    " measured results; change those and run it. -->"
)
CELLS = ("mbpo", "mbpo-unit", "mbpo-direct", "ftfl")
OURS = "mbpo-innovation"
FAILS = 2.0
"""A cell fails on a probe where its median seed loses this many times what SAC's worst does."""
MADE_ON = ("reward-unit", "channel-unit", "slow")
"""Dials that were looked at when rules of diagnose were made: no test of them."""
AGAINST_FTFL = {"slow-channels", "slow-channels-below-floor", "intermittent-channels",
                "near-constant-channels"}  # fmt: skip
"""Findings that speak against direct, unit targets."""
LARGE_V = 1e4
Row = dict[str, Any]
Predictor = Callable[[Row], "bool | None"]


def short(value: float | None) -> str:
    """Two digits."""
    if value is None:
        return "–"
    return f"{value:.2g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.0e}"


Place = tuple[str, float]
"""A task, and the power of two of its reward's unit."""


def place_of(line: Row) -> Place:
    """Of a line of structure.jsonl."""
    return line["task"], float(np.round(np.log2(line["unit"])))


def trained() -> dict[Place, dict[str, list[float]]]:
    """Returns of finished probe runs by arm; the newest of a repeated run."""
    newest: dict[tuple, Row] = {}
    for row in read_lines(BENCHMARKS / "probes" / "results" / "runs.jsonl"):
        newest[row["dial"], row["level"], row["arm"], row["seed"]] = row
    found: dict[Place, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (dial, level, arm, _), row in newest.items():
        if row["state"] != "done":
            continue
        if dial in ("rest", "reward-unit"):
            place = ("probe/rest", float(level))
        else:
            place = (f"probe/{dial}@{level:g}", 0.0)
        found[place][arm].append(row["return"])
    return found


def outcomes(returns: dict[str, list[float]], worst_sac: float) -> dict[str, bool]:
    """Whether each cell fails; cells with fewer than three seeds are left out."""
    return {
        cell: float(np.median(returns[cell])) < FAILS * worst_sac
        for cell in (*CELLS, OURS) if len(returns.get(cell, [])) >= 3
    }  # fmt: skip


def dial_of(line: Row) -> str:
    """The dial of a probe's line."""
    if line["unit"] != 1:
        return "reward-unit"
    return line["task"].removeprefix("probe/").partition("@")[0]


FITTED = 0.5
"""A short fit speaks against a cell below this R² of drawn rewards (`ftfl diagnose --fit`). States
are left out: channels of noise have no skill by construction."""
TARGETS = {"mbpo": "residual, raw", "ftfl": "direct, unit"}


def fits() -> dict[Place, dict[str, Row]]:
    """Short fits by cell."""
    lines = read_lines(HERE / "results" / "fits.jsonl")
    return {place_of(line): line["cells"] for line in lines}


def badly_fitted(cell: str, known: dict[Place, dict[str, Row]]) -> Predictor:
    """A predictor from short fits; None where there is none."""

    def predict(line: Row) -> bool | None:
        found = known.get(place_of(line), {}).get(TARGETS[cell])
        return None if found is None else found["reward"] < FITTED

    return predict


FITS = fits()
PREDICTORS: dict[str, dict[str, Predictor]] = {
    "mbpo": {
        "diagnose recommends another preset": lambda r: recommended(r) not in ("mbpo", None),
        "a short fit of the cell": badly_fitted("mbpo", FITS),
        "V > 10⁴": lambda r: r["dynamics_over_reward"][0] > LARGE_V,
        "always": lambda r: True,
    },
    "ftfl": {
        "diagnose warns of ftfl": lambda r: bool(
            AGAINST_FTFL & {n for n, s in r["findings"].items() if s != "info"}
        ),
        "a short fit of the cell": badly_fitted("ftfl", FITS),
        "V > 10⁴": lambda r: r["dynamics_over_reward"][0] > LARGE_V,
        "always": lambda r: True,
    },
}


def calibration(lines: list[Row], runs: dict, worst: float) -> str:
    """Hits and false alarms on probes, those that rules were made on apart from the others."""
    rows = []
    for cell, predictors in PREDICTORS.items():
        for name, predicts in predictors.items():
            entry = [f"{cell} fails", name]
            for made_on in (True, False):
                cases = []
                for line in lines:
                    if not line["task"].startswith("probe/") or dial_of(line) == "rest":
                        continue
                    truth = outcomes(runs.get(place_of(line), {}), worst).get(cell)
                    told = predicts(line)
                    if None not in (truth, told) and (dial_of(line) in MADE_ON) == made_on:
                        cases.append((told, truth))
                hits = sum(p and t for p, t in cases)
                alarms = sum(p and not t for p, t in cases)
                fails = sum(t for _, t in cases)
                entry.append(f"{hits} of {fails} found, {alarms} of {len(cases) - fails} false")
            rows.append(entry)
    return table(
        ["what happens", "predicted by", f"dials rules were made on ({', '.join(MADE_ON)})",
         "other dials"], rows,
    )  # fmt: skip


def verified(line: Row, runs: dict, worst: float) -> str:
    """What training said of each cell on a probe."""
    found = runs.get(place_of(line), {})
    told = outcomes(found, worst)
    if not told:
        return "predicted only"
    return "; ".join(
        f"{cell} {'**fails**' if bad else 'learns'} ({np.median(found[cell]):.3g})"
        for cell, bad in told.items()
    )


def core() -> dict[str, str]:
    """What the core's benchmark says of tasks, by task: last three evaluations over seeds."""
    curves: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with open(BENCHMARKS / "core" / "results" / "curves.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves[row["task"], row["name"], row["seed"]].append(float(row["return_mean"]))
    seeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (task, name, _), values in curves.items():
        seeds[task, name].append(float(np.mean(values[-3:])))
    told: dict[str, list[str]] = defaultdict(list)
    for (task, name), values in sorted(seeds.items()):
        if name in ("sac", *CELLS):
            told[task].append(f"{name} {np.median(values):.0f} (n = {len(values)})")
    # SAC alone says nothing of synthetic data.
    return {task: "; ".join(words) for task, words in told.items() if len(words) > 1}


CONTROLS = ("sac", "mbpo-h5", "mbpo-h5+scale", "mbpo-h5+target", "ftfl-h5", "ftfl-h5+innovation")
"""Arms of the lineage's forks that screen nothing."""


def forked() -> dict[str, str]:
    """What forks of SAC say, by task: medians of last evaluations."""
    lines = read_lines(BENCHMARKS / "findings" / "results" / "forks.jsonl")
    lineage = read_lines(BENCHMARKS / "lineage" / "results" / "forks.jsonl")
    lines += [row for row in lineage if row["arm"] in CONTROLS]
    seen: dict[tuple[str, int, int], dict[str, dict[int, float]]] = {}
    for row in lines:
        arms = seen.setdefault((row["task"], row["at"], row["steps"]), defaultdict(dict))
        arms[row["arm"]][row["seed"]] = row["returns"][-1][1]
    told: dict[str, list[str]] = defaultdict(list)
    for (task, at, steps), arms in sorted(seen.items()):
        if len(arms) == 1:
            continue  # nothing to compare with
        words = (f"{a} {np.median(list(v.values())):.0f} ({len(v)})" for a, v in arms.items())
        told[f"dmc/{task}"].append(
            f"fork at {at // 1000}k, {steps:,} steps on (seeds): {', '.join(words)}"
        )
    return {task: "; ".join(words) for task, words in told.items()}


def recommended(line: Row) -> str | None:
    """What `ftfl diagnose` recommends for these findings, by today's rule."""
    return recommend(line["findings"], "cannot-tell-yet" in line["findings"]).preset


def structure(line: Row) -> list[str]:
    """The measured columns every table shows."""
    v = line["dynamics_over_reward"]
    shown = short(v[0]) if line["reward_rows"] >= 10 else f"({short(v[0])})"
    modes = [n for n, s in line["findings"].items() if s != "info"]
    remedy = recommended(line) or "cannot tell yet"
    ends = f"{line['terminated_share']:.1%} of steps" if line["terminated_share"] else "never"
    return [
        str(line["outputs"]), shown, short(line["reward_std"][0]),
        f"{line['reward_rows']:.0f}", short(line["kappa_median"]),
        short(line["change_over_std_median"]), ends,
        ", ".join(modes) or "none", remedy,
    ]  # fmt: skip


HEAD = ("D", "V", "std of r", "steps that carry r", "κ", "change / std", "ends",
        "predicted failure modes", "recommended", "verified by training")  # fmt: skip


def main() -> None:
    """The whole page."""
    lines = read_lines(HERE / "results" / "structure.jsonl")
    runs = trained()
    worst = min(runs["probe/rest", 0.0]["sac"])
    real = core()
    for task, words in forked().items():
        real[task] = "; ".join(filter(None, (real.get(task), words)))
    tasks = [r for r in lines if not r["task"].startswith("probe/")]
    probes = [r for r in lines if r["task"].startswith("probe/")]
    said = sum(r["task"] in real for r in tasks)
    sure = sum(set(CELLS) <= outcomes(runs.get(place_of(r), {}), worst).keys() for r in probes)
    introduction = (HERE / "INTRODUCTION.md").read_text(encoding="utf-8").rstrip()
    parts = [
        MARK, introduction,
        "## How often the predictions are right",
        f"On probes, where what fails was seen: a cell fails where its median seed loses more than"
        f" {FAILS:g} times what SAC's worst seed does ({worst:.2f}).",
        calibration(lines, runs, worst),
        (HERE / "VERDICT.md").read_text(encoding="utf-8").rstrip(),
        "## How often an autopsy is right",
        "Runs one by one, which fail below the same return. What is marked (info) is not told as a"
        " warning.",
        autopsies.calibration(FAILS * worst),
        "On forks of one agent: how many were warned of, with a model, and SAC's beside them. On"
        " hopper-stand the outcome needs no threshold: every fork with a model lost the agent or"
        " learned nothing where SAC learned; SAC's did not.",
        autopsies.of_forks(),
        "So a half-trained agent's loss is told, and a solved agent's mostly not: at 300k rewards"
        " are known, the critic still orders states, and next states alone lose the agent within"
        " 1,000 steps. `ftfl autopsy --full` finds such a loss by letting the agent go on. On the"
        " other two tasks SAC's own critic is warned of as well, rightly (at ten updates a step it"
        " fails by itself): there a warning does not say that the model is to blame, which is what"
        " a fork on real rows alone is for.",
        (HERE / "VERDICT_AUTOPSY.md").read_text(encoding="utf-8").rstrip(),
        "## Tasks",
        f"{said} of {len(tasks)} verified by training, the rest predicted only. V in brackets:"
        " fewer than ten steps carry the reward, so its size is not known.",
        table(["task", *HEAD], ([r["task"], *structure(r), real.get(r["task"], "predicted only")]
                                for r in tasks)),
        "## Probes",
        f"{sure} of {len(probes)} verified by training in all four cells, five seeds each; in"
        " brackets the median seed's return (SAC: "
        f"{np.median(runs['probe/rest', 0.0]['sac']):.3g}).",
        table(["probe", *HEAD], (
            [r["task"] + (f" --reward-unit 2**{np.log2(r['unit']):.0f}" if r["unit"] != 1 else ""),
             *structure(r), verified(r, runs, worst)] for r in probes)),
    ]  # fmt: skip
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
