"""Write docs/taxonomy.md: MDP structure → failure mode → remedy, and how often that is right.

Usage: python benchmarks/taxonomy/report.py

Reads what diagnose saw (results/structure.jsonl), and runs that were really trained: the probe grid
(benchmarks/probes), the core's benchmark (benchmarks/core) and forks (benchmarks/findings).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ftfl.forensics.foresight import Recommendation, recommend
from ftfl.forensics.foresight_fit import CELL_OF, UNLEARNED, overrule

HERE = Path(__file__).parent
BENCHMARKS = HERE.parent
sys.path.append(str(BENCHMARKS))
import autopsies  # noqa: E402
import trained  # noqa: E402
from counting import (  # noqa: E402
    Place,
    Row,
    dmc_fails,
    hits_and_alarms,
    large_v,
    place_of,
    place_of_run,
)  # fmt: skip
from lines import counted, read_lines, table  # noqa: E402
from trained import CELLS, FAILS  # noqa: E402

PAGE = BENCHMARKS.parent / "docs" / "taxonomy.md"
MARK = (
    "<!-- Written by benchmarks/taxonomy/report.py from benchmarks/taxonomy/INTRODUCTION.md and"
    " measured results; change those and run it. -->"
)
OURS = "mbpo-innovation"
MADE_ON = ("reward-unit", "channel-unit", "slow")
"""Dials that were looked at when rules of diagnose were made: no test of them."""
AFTER = ("predictable", "faint", "noise-count@128", "rare@-8", "rare@-4", "rare@-2")
"""Where no raw line of mbpo or ftfl was there when the short fit's rule was committed (0e3232d)."""
AGAINST_FTFL = {"slow-channels", "slow-channels-below-floor", "intermittent-channels",
                "near-constant-channels"}  # fmt: skip
"""Findings that speak against direct, unit targets."""
Predictor = Callable[[Row], "bool | None"]


def short(value: float | None) -> str:
    """Two digits."""
    if value is None:
        return "–"
    return f"{value:.2g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.0e}"


def probe_runs() -> dict[Place, dict[str, list[float]]]:
    """Returns of finished probe runs by arm; the newest of a repeated run."""
    newest: dict[tuple, Row] = {}
    for row in read_lines(BENCHMARKS / "probes" / "results" / "runs.jsonl"):
        newest[row["dial"], row["level"], row["arm"], row["seed"]] = row
    found: dict[Place, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in newest.values():
        if row["state"] == "done":
            found[place_of_run(row)][row["arm"]].append(row["return"])
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


def fits() -> dict[Place, dict[str, Row]]:
    """Short fits by cell."""
    lines = read_lines(HERE / "results" / "fits.jsonl")
    return {place_of(line): line["cells"] for line in lines}


FITS = fits()


def badly_fitted(
    cell: str, below: float = UNLEARNED, of: tuple[str, ...] = ("reward",)
) -> Predictor:
    """A predictor from short fits; None where there is none."""

    def predict(line: Row) -> bool | None:
        found = FITS.get(place_of(line), {}).get(CELL_OF[cell])
        return None if found is None else min(found[name] for name in of) < below

    return predict


def warns_of_mbpo(line: Row) -> bool | None:
    """Whether diagnose recommends another preset; None where it cannot tell."""
    preset = recommended(line)
    return None if preset is None else preset != "mbpo"


def warns_of_ftfl(line: Row) -> bool | None:
    """Whether diagnose finds what speaks against direct, unit targets, or recommends SAC."""
    preset = recommended(line)
    warned = AGAINST_FTFL & {n for n, s in line["findings"].items() if s != "info"}
    return None if preset is None else bool(warned) or preset == "sac"


DIAGNOSE: dict[str, Predictor] = {"mbpo": warns_of_mbpo, "ftfl": warns_of_ftfl}
SIMPLE: dict[str, Predictor] = {
    "simple rule: V > 10⁴": large_v,
    "simple rule: DMC fails": lambda line: dmc_fails(line["task"]),
    "simple rule: always": lambda line: True,
}


def predictors(cell: str) -> dict[str, Predictor]:
    """All that is counted on probes."""
    short = "a short fit of the cell, reward R²"
    return {
        {"mbpo": "diagnose recommends another preset", "ftfl": "diagnose warns of ftfl"}[cell]:
            DIAGNOSE[cell],
        f"{short} < ½": badly_fitted(cell),
        f"{short} < 0.3": badly_fitted(cell, 0.3),
        f"{short} < 0.7": badly_fitted(cell, 0.7),
        "the same as first committed, R² or use of states < ½":
            badly_fitted(cell, of=("reward", "state_use")),
        **SIMPLE,
    }  # fmt: skip


def recommended_with_fit(line: Row) -> str | None:
    """What `ftfl diagnose --fit` recommends."""
    before = recommended(line)
    if before is None:
        return None
    middle = {cell: told["reward"] for cell, told in FITS[place_of(line)].items()}
    return overrule(Recommendation(before, ""), middle).preset


def starts(probes: list[Row], runs: dict, worst: float) -> str:
    """What becomes of an agent that starts with a recommended preset, or with one of our own."""
    picks: dict[str, Callable[[Row], str | None]] = {
        "`ftfl diagnose`": recommended,
        "`ftfl diagnose --fit`": recommended_with_fit,
        **{f"{cell} everywhere": lambda line, cell=cell: cell for cell in (*CELLS, "sac")},
    }
    after = [r for r in probes if r["task"].removeprefix("probe/").startswith(AFTER)]
    rows = []
    for name, pick in picks.items():
        entry = [name]
        for some in (probes, after):
            told: dict[str, int] = defaultdict(int)
            for line in some:
                ends, preset = outcomes(runs[place_of(line)], worst), pick(line)
                learns = any(not ends[cell] for cell in CELLS)
                if preset == "sac":
                    told["gives up" if learns else "spares"] += 1
                elif preset is not None:
                    told["fails" if ends[preset] else "learns"] += 1
            entry += [str(told[what]) for what in ("learns", "spares", "fails", "gives up")]
        rows.append(entry)
    ends = ("it learns", "it is sac, and all four cells fail", "**it fails**",
            "**it is sac, and some cell learns**")  # fmt: skip
    return table(["start with", *ends, *(f"{end} (trained after)" for end in ends)], rows)


def calibration(lines: list[Row], runs: dict, worst: float) -> str:
    """Hits and false alarms on probes, those that rules were made on apart from the others."""
    lines = [r for r in lines if r["task"].startswith("probe/") and dial_of(r) != "rest"]
    others = [r for r in lines if dial_of(r) not in MADE_ON]
    after = [r for r in others if r["task"].removeprefix("probe/").startswith(AFTER)]
    sets = ([r for r in lines if dial_of(r) in MADE_ON], others, after)
    rows = []
    for cell in DIAGNOSE:
        for name, predicts in predictors(cell).items():
            entry = [f"{cell} fails", name]
            for some in sets:
                ends = [outcomes(runs.get(place_of(r), {}), worst).get(cell) for r in some]
                cases = zip(map(predicts, some), ends, strict=True)
                entry.append(hits_and_alarms(case for case in cases if None not in case))
            rows.append(entry)
    return table(
        ["what happens", "predicted by", f"dials rules were made on ({', '.join(MADE_ON)})",
         "other dials", "of these: trained after the short fit's rule was committed"], rows,
    )  # fmt: skip


def ended(line: Row, runs: dict, worst: float) -> str:
    """What training said of each cell on a probe."""
    found = runs.get(place_of(line), {})
    told = outcomes(found, worst)
    if not told:
        return "–"
    return "; ".join(
        f"{cell} {'**fails**' if bad else 'learns'} ({np.median(found[cell]):.3g})"
        for cell, bad in told.items()
    )


def hold(line: Row, bad: dict[str, bool]) -> trained.Tested:
    """Diagnose's predictions on a line against outcomes."""
    return trained.hold(
        {cell: predicts(line) for cell, predicts in DIAGNOSE.items()}, recommended(line), bad
    )


def said_and_ended(tasks: list[Row], real: dict[str, list[trained.Moment]]) -> str:
    """What simple rules and diagnose say of tasks that were trained, beside what happened."""

    def mark(right: bool | None) -> str:
        return {True: "right", False: "**miss**", None: "not tested"}[right]

    rows = []
    for line in tasks:
        ends = trained.ends(real.get(line["task"], []))
        if not ends:
            continue
        found = hold(line, trained.fails(real[line["task"]]))
        entry = [
            line["task"],
            f"{'fails' if large_v(line) else 'learns'} (V = {spread(line)})",
            "fails" if dmc_fails(line["task"]) else "learns",
        ]
        for cell, right in (("mbpo", found.mbpo), ("ftfl", found.ftfl)):
            warned = "warned of" if DIAGNOSE[cell](line) else "not warned of"
            bad, of = ends[cell]
            entry += [f"{warned}: {mark(right)}", f"fails at {bad} of {of}"]
        preset = recommended(line)
        rows.append([*entry, f"{preset}: {mark(found.recommended)}"])
    return table(
        ["task", "V > 10⁴ says", "“DMC fails” says", "diagnose of mbpo", "mbpo, trained",
         "diagnose of ftfl", "ftfl, trained", "diagnose recommends"], rows,
    )  # fmt: skip


def task_counts(tasks: list[Row], bad: dict[str, dict[str, bool]]) -> str:
    """Hits and false alarms on tasks that were trained."""
    rows = []
    for cell, diagnoses in DIAGNOSE.items():
        for name, predicts in {"diagnose": diagnoses, **SIMPLE}.items():
            told = [(predicts(x), bad[x["task"]][cell]) for x in tasks if cell in bad[x["task"]]]
            rows.append([f"{cell} fails", name, hits_and_alarms(t for t in told if None not in t)])
    return table(["what happens", "predicted by", "tasks"], rows)


def spread(line: Row) -> str:
    """V with its interval over episodes."""
    value, low, high = map(short, line["dynamics_over_reward"])
    return f"{value} [{low}, {high}]"


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
        "predicted failure modes", "recommended", "trained", "verified by training")  # fmt: skip
INTERVALS = "In brackets: 95 % intervals of the share, by Wilson's score."


def verdict(line: Row, bad: dict[str, bool]) -> str:
    """Whether training tests a row's predictions, and which of them are misses."""
    found = hold(line, bad)
    if not found.verified:
        return "no"
    told = {"of mbpo": found.mbpo, "of ftfl": found.ftfl, "recommended": found.recommended}
    misses = [name for name, right in told.items() if right is False]
    return f"yes; **wrong**: {', '.join(misses)}" if misses else "yes; right"


def scores(found: list[trained.Tested]) -> str:
    """How many predictions of tested rows were right."""

    def score(name: str) -> str:
        marks = [mark for test in found if (mark := getattr(test, name)) is not None]
        return counted(sum(marks), len(marks))

    return (
        f"right of mbpo in {score('mbpo')}, of ftfl in {score('ftfl')}, in the preset recommended"
        f" in {score('recommended')}"
    )


def task_words(tasks: list[Row], bad: dict[str, dict[str, bool]]) -> str:
    """What verified means here, and how many rows are."""
    found = [test for r in tasks if (test := hold(r, bad[r["task"]])).verified]
    return (
        f"**{len(found)} of {len(tasks)} rows are verified by training, misses among them; the rest"
        " are predicted only.** A row counts as verified where training tests what it says: the"
        " recommended preset and an alternative were both trained, or an arm that it warns of was."
        " An arm *fails* where its median last return is below half of what SAC's worst seed has"
        f" (of costs: where it loses more than {FAILS:g} times as much, as on probes; where no SAC"
        " was trained, the best cell stands for it), at more than half of the moments with an"
        " outcome. A moment has none where SAC's worst fork stays below"
        f" {trained.LEARNED:g} of 1,000: nothing was learned that synthetic data could have lost."
        " To recommend a cell is right where that cell does not fail, to recommend sac where all"
        " cells do. An arm that is not warned of and fails is a miss as well. All of these returns"
        " were known when this rule was written."
        f" Diagnose was {scores(found)}."
    )


def probe_words(probes: list[Row], bad: list[dict[str, bool]], sac: float) -> str:
    """How many levels of probes are verified, and how many predictions were right."""
    found = [hold(line, ends) for line, ends in zip(probes, bad, strict=True)]
    verified_rows = sum(
        test.verified and set(CELLS) <= ends.keys() for test, ends in zip(found, bad, strict=True)
    )
    always = (f"{cell} {sum(not ends[cell] for ends in bad)}" for cell in CELLS)
    return (
        f"**{verified_rows} of {len(probes)} rows are verified by training** by the same rule, in"
        " all four cells, five seeds each. The issue behind this page asks for eight verified rows:"
        " these are they, the tasks above are fewer. Misses among them are counted as misses:"
        f" diagnose was {scores(found)}. One cell at all levels learns in: {', '.join(always)}. In"
        f" brackets in the table: the median seed's return (SAC: {sac:.3g})."
    )


def main() -> None:
    """The whole page."""
    lines = read_lines(HERE / "results" / "structure.jsonl")
    runs = probe_runs()
    sac = runs["probe/rest", 0.0]["sac"]
    worst = min(sac)
    real = trained.moments()
    tasks = [r for r in lines if not r["task"].startswith("probe/")]
    probes = [r for r in lines if r["task"].startswith("probe/")]
    bad = {r["task"]: trained.fails(real.get(r["task"], [])) for r in tasks}
    bad_probes = [outcomes(runs.get(place_of(r), {}), worst) for r in probes]
    learned, dials = autopsies.examined()

    def text(name: str) -> str:
        return (HERE / name).read_text(encoding="utf-8").rstrip()

    parts = [
        MARK, text("INTRODUCTION.md"),
        "## How often the predictions are right",
        f"On probes, where what fails was seen: a cell fails where its median seed loses more than"
        f" {FAILS:g} times what SAC's worst seed does ({worst:.2f}). A case is a level of a dial."
        f" {INTERVALS} Levels of one dial resemble each other, so in truth they are wider.",
        calibration(lines, runs, worst),
        "And what one starts with, at the same levels; on the right those"
        f" {sum(r['task'].removeprefix('probe/').startswith(AFTER) for r in probes)} that were"
        " trained after the short fit's rule was committed:",
        starts(probes, runs, worst),
        text("VERDICT.md"),
        "## How often an autopsy is right",
        "Runs one by one, which fail below the same return. –: never said there. What is marked"
        f" (info) is not told as a warning. {INTERVALS} *They say less than they seem to*, for"
        f" they take runs for independent: the {len(learned)} runs are"
        f" {autopsies.alike(learned, FAILS * worst)};"
        f" the {len(dials)} are {autopsies.alike(dials, FAILS * worst)}.",
        autopsies.calibration(FAILS * worst),
        "On forks of one agent: how many were warned of, with a model, and SAC's beside them"
        " (intervals as above, and with less right: forks of a row share one parent). On"
        " hopper-stand the outcome needs no threshold: every fork with a model lost the agent or"
        " learned nothing where SAC learned; SAC's did not.",
        autopsies.of_forks(),
        "So a half-trained agent's loss is told, and a solved agent's mostly not: at 300k rewards"
        " are known, the critic still orders states, and next states alone lose the agent within"
        " 1,000 steps. `ftfl autopsy --full` finds such a loss by letting the agent go on. On the"
        " other two tasks SAC's own critic is warned of as well, rightly (at ten updates a step it"
        " fails by itself): there a warning does not say that the model is to blame, which is what"
        " a fork on real rows alone is for.",
        text("VERDICT_AUTOPSY.md"),
        "## Tasks",
        task_words(tasks, bad),
        said_and_ended(tasks, real),
        task_counts(tasks, bad),
        text("VERDICT_TASKS.md"),
        "V in brackets: fewer than ten steps carry the reward, so its size is not known.",
        table(["task", *HEAD], (
            [r["task"], *structure(r),
             "; ".join(m.tell() for m in real.get(r["task"], [])) or "–",
             verdict(r, bad[r["task"]])] for r in tasks)),
        "## Probes",
        probe_words(probes, bad_probes, float(np.median(sac))),
        table(["probe", *HEAD], (
            [r["task"] + (f" --reward-unit 2**{np.log2(r['unit']):.0f}" if r["unit"] != 1 else ""),
             *structure(r), ended(r, runs, worst), verdict(r, ends)]
            for r, ends in zip(probes, bad_probes, strict=True))),
    ]  # fmt: skip
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
