"""Write docs/findings.md from INTRODUCTION.md and the raw lines in results/.

Usage: python benchmarks/findings/report.py        (after run.py, or in the middle of it)
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftfl.forensics.doors import CELLS, TO_CELLS
from ftfl.forensics.foresight_fit import PRESETS
from ftfl.forensics.instruments.attribution import SEEN
from ftfl.report.drawing import draw
from ftfl.report.intervals import t_half_width
from ftfl.report.styles import STYLES, slots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from lines import dig, moment_of, of_parent, read_lines, table  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "findings.md"
FIGURES = PAGE.parent / "figures"
MARK = (
    "<!-- Written by benchmarks/findings/report.py from benchmarks/findings/INTRODUCTION.md and"
    " results; change those and run it. -->"
)
ARMS = ("sac", "mbpo", "mbpo-unit", "mbpo-direct", "ftfl")
FORK_STEPS = 10_000
"""Of the forks in the grid."""
UPDATES = 500
"""Of a refit, unless its title says otherwise."""
Row = dict[str, Any]


def shown(estimate: Any) -> str:
    """Value and interval of an estimate in a line."""
    if estimate is None:
        return "–"
    value, low, high = estimate
    if low is None:
        return f"{value:.3g}"
    return f"{value:.3g} [{low:.2g}, {high:.2g}]"


def judged(line: Row) -> bool:
    """Whether the rewards of the stretches held apart vary at all."""
    return line["numbers"].get("held_out_reward_variance_share", 1.0) >= SEEN


def all_refits() -> list[Row]:
    """Refits in the order of the page; doors that were opened later join the first line."""
    found: dict[tuple[Any, ...], Row] = {}
    for line in read_lines(HERE / "results" / "refits.jsonl"):
        key = line["task"], line["at"], line["numbers"]["updates"], line.get("nll_beta", 0.0)
        numbers = found.setdefault(key, line)["numbers"]
        numbers["doors"] = {**line["numbers"]["doors"], **numbers["doors"]}
    return [found[key] for key in sorted(found)]


def usual_refits() -> list[Row]:
    """Refits of the usual number of updates by the likelihood."""
    return [r for r in all_refits()
            if not r.get("nll_beta") and r["numbers"]["updates"] == UPDATES]  # fmt: skip


def along_training(lines: list[Row], look: str, label: str) -> str:
    """One measure of the four cells' refits, moment by moment: an SVG document."""
    moments = [line["at"] for line in lines]
    slot = slots([PRESETS[cell] for cell in CELLS])

    def paint(axes: Axes) -> None:
        for number, cell in enumerate(CELLS):
            style = STYLES[slot[PRESETS[cell]]]
            found = [(moments.index(line["at"]), *line["numbers"]["cells"][cell][look])
                     for line in lines if look == "state_use" or judged(line)]  # fmt: skip
            x, value, low, high = np.array(found).T
            axes.errorbar(
                x + 0.08 * (number - 1.5), value, [value - low, high - value],
                marker=style.marker, ms=5, lw=1, color=style.light, label=cell,
            )  # fmt: skip
        if look != "state_use":
            axes.set_yscale("symlog", linthresh=1.0)
            axes.axhline(0.0, color=STYLES[0].light, lw=0.8)
            axes.set_ylim(top=1.1)
        axes.set_xlim(-0.4, len(moments) - 0.6)
        axes.set_xticks(range(len(moments)), [
            f"{line['at'] // 1000}k\n({line['parent_returns'][-1][1]:.0f})" for line in lines
        ])  # fmt: skip
        axes.set_xlabel("steps of SAC (its return)")
        axes.set_ylabel(label)
        axes.legend(frameon=False, fontsize=7, ncols=4, loc="lower left", columnspacing=0.8,
                    handletextpad=0.3, bbox_to_anchor=(-0.05, 1.0))  # fmt: skip

    return draw(paint)


def moments() -> list[str]:
    """How refits of the four cells fare as SAC trains, a pair of figures a task."""
    lines = usual_refits()
    parts = []
    for task in sorted({line["task"] for line in lines}):
        mine = sorted((r for r in lines if r["task"] == task), key=lambda r: r["at"])
        for name, look, label, words in (
            ("reward", "reward_r2_drawn", "R² of drawn rewards", "how well each cell's draws know"
             " the reward as SAC trains; below 0 is worse than its mean (logarithmic below −1)"),
            ("states", "state_use", "use of drawn states", "how much better than assuming that"
             " nothing moves each cell's draws are, mean over channels"),
        ):  # fmt: skip
            file = f"findings-{name}-{task}.svg"
            (FIGURES / file).write_text(along_training(mine, look, label), encoding="utf-8")
            parts.append(f"![dmc/{task}: {words}](figures/{file})")
    seeds = "Refits from scratch, 500 updates; marks are means over three seeds of *one* replay, "
    return ["## As SAC trains", seeds + "bars 95 % t intervals.", "\n".join(parts)]


def kinds() -> list[str]:
    """Use of drawn states by kind of channel, averaged over a task's moments."""
    rows = []
    lines = usual_refits()
    for task in sorted({line["task"] for line in lines}):
        mine = [line["numbers"] for line in lines if line["task"] == task]
        kind = [name.partition("[")[0] for name in mine[0]["names"]]
        for one in dict.fromkeys(kind):
            which = [i for i, name in enumerate(kind) if name == one]
            skill = {cell: [[n["cells"][cell]["skill_drawn"][i] or 0.0 for i in which]
                            for n in mine] for cell in CELLS}  # fmt: skip
            use = (f"{np.clip(skill[cell], 0, 1).mean():.2f}" for cell in CELLS)
            rows.append([task, one.replace("_", " "), str(len(which)), *use])
    meaning = (
        "Use of drawn states in the refits of 500 updates, by kind of channel: mean over channels,"
        " seeds and moments, where less than nothing counts as nothing."
    )
    return ["## By kind of channel", meaning, table(["task", "kind", "n", *CELLS], rows)]


def refits() -> list[str]:
    """Cells and doors on SAC's own replays."""
    lines = all_refits()
    if not lines:
        return []
    parts = ["## Refits on SAC's replay",
             "R² of drawn rewards, R² of a member's mean, and use of drawn states (mean over"
             " channels of skill over persistence, where less than nothing counts as nothing), on"
             " stretches of time held apart: mean over seeds [95 % t interval]."]  # fmt: skip
    for line in lines:
        numbers = line["numbers"]
        arms = {**numbers["cells"], **{f"residual, raw + {k}": v for k, v in
                                       numbers["doors"].items() if k not in TO_CELLS}}  # fmt: skip
        looks = {"R² of draws": "reward_r2_drawn", "R² of a member": "reward_r2_member",
                 "use of states": "state_use"}  # fmt: skip
        if not judged(line):
            looks = {"use of states": "state_use"}
        parts += [
            f"### dmc/{line['task']}, {line['at']:,} steps of SAC"
            + (f", with nll_beta {line['nll_beta']:g}" if line.get("nll_beta") else "")
            + ("" if numbers["updates"] == UPDATES else f", {numbers['updates']:,} updates"),
            f"{line['rows']:,} rows, std of the reward {line['reward_std']:.3g}; SAC's last"
            f" evaluation {line['parent_returns'][-1][1]:.3g}; {numbers['updates']:,} updates,"
            f" {len(numbers['seeds'])} seeds."
            + ("" if judged(line) else
               " Rewards of the stretches held apart do not vary: not judged."),
            table(["model", *looks],
                  [[name, *(shown(arm[k]) for k in looks.values())] for name, arm in arms.items()]),
        ]  # fmt: skip
    return parts


def by_arm(name: str) -> list[tuple[tuple[str, int, int, int], dict[str, list[Row]]]]:
    """Lines of a results file: by task, moment, length and parent, and there by arm."""
    groups: dict[tuple[str, int, int, int], dict[str, list[Row]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in read_lines(HERE / "results" / f"{name}.jsonl"):
        groups[moment_of(row)][row["arm"]].append(row)
    return sorted(groups.items())


def returns_by_arm(arms: dict[str, list[Row]], before: float | None) -> str:
    """Both evaluations of every fork, arm by arm: an SVG document."""
    slot = slots(list(arms))

    def paint(axes: Axes) -> None:
        for at, (arm, rows) in enumerate(arms.items()):
            style = STYLES[slot[arm]]
            for number, row in enumerate(rows):
                told = [value for _, value in row["returns"]]
                x = at + 0.22 * (number - (len(rows) - 1) / 2) + 0.05 * np.arange(len(told))
                axes.plot(x, told, marker=style.marker, ms=5, lw=1, color=style.light)
        if before is not None:
            axes.axhline(before, color=STYLES[0].light, lw=0.8, ls="--")
        axes.set_xticks(range(len(arms)), arms, rotation=20)
        axes.set_ylim(bottom=0.0)
        axes.set_ylabel("return (reward)")

    return draw(paint)


def parents() -> dict[tuple[str, int, int], float]:
    """The last return of the agent that was forked or whose replay was refitted, by parent."""
    refitted = {(r["task"], r["at"], 1): r["parent_returns"][-1][1]
                for r in read_lines(HERE / "results" / "refits.jsonl")}  # fmt: skip
    forked = {(r["task"], r["at"], r["parent"]): r["parent_return"]
              for r in read_lines(HERE / "results" / "forks.jsonl") if "parent" in r}  # fmt: skip
    return refitted | forked


def grid() -> str:
    """What became of the agent: last returns moment by moment, and arms against one another."""
    before = parents()
    groups = [(task, at, parent, arms) for (task, at, steps, parent), arms in by_arm("forks")
              if steps == FORK_STEPS]  # fmt: skip
    rows = [
        [f"{task}, {at // 1_000}k{of_parent(parent)}", f"{before[task, at, parent]:.0f}",
         *(", ".join(f"{last_return(r):.0f}" for r in arms.get(arm, [])) or "–" for arm in ARMS)]
        for task, at, parent, arms in groups
    ]  # fmt: skip
    agents: dict[str, list[dict[str, float]]] = defaultdict(list)
    for task, _, _, arms in groups:
        for seed in {r["seed"] for rows in arms.values() for r in rows}:
            agents[task].append({arm: last_return(r) for arm, rows in arms.items()
                                 for r in rows if r["seed"] == seed})  # fmt: skip
    pairs = [(arm, base) for base in ("mbpo", "sac") for arm in ARMS[1:] if arm != base]
    against = table(
        ["paired difference", *agents],
        [[f"{arm} − {base}", *(difference(mine, arm, base) for mine in agents.values())]
         for arm, base in pairs],
    )  # fmt: skip
    return "\n\n".join([table(["forked from", "its return", *ARMS], rows), against])


def last_return(row: Row) -> float:
    """Of a fork."""
    return row["returns"][-1][1]


def difference(agents: list[dict[str, float]], arm: str, base: str) -> str:
    """Last return of the same agent in one arm less that in another: mean ± 95 % t interval."""
    told = np.array([a[arm] - a[base] for a in agents if arm in a and base in a])
    if not len(told):
        return "–"
    half = t_half_width(told)
    spread = "" if half is None else f" ± {float(half):.0f}"
    return f"{round(told.mean())}{spread} (n = {len(told)})".replace("-", "−")


def forks() -> list[str]:
    """The same agent, five ways on."""
    parts = []
    before = parents()
    account = "autopsy/critic_account/smaller_twin/"
    looks = {
        "last return": last_return,
        "skill of draws": lambda r: dig(r, "autopsy/rollout_error/median_skill"),
        "skill of the mean": lambda r: dig(
            r, "autopsy/rollout_error/median_skill_of_mean_one_step"
        ),
        "R² of draws": lambda r: dig(r, "autopsy/reward_fidelity/replay_drawn/r2"),
        "slope ρ": lambda r: dig(r, "autopsy/reward_fidelity/replay/slope"),
        "shift b": lambda r: dig(r, "autopsy/reward_fidelity/replay/shift_reward"),
        "noise": lambda r: dig(r, "autopsy/reward_fidelity/replay_drawn/noise_reward"),
        "α": lambda r: r.get("agent/temperature"),
        "critic: bias": lambda r: dig(r, account + "bias"),
        "critic fit": lambda r: dig(r, account + "critic_fit"),
        "reward model": lambda r: dig(r, account + "reward_model"),
        "next-state model": lambda r: dig(r, account + "next_state_model"),
    }
    for (task, at, steps, parent), arms in by_arm("forks"):
        rows = [
            [arm, *(", ".join("–" if (v := look(r)) is None else f"{v:.3g}" for r in arms[arm])
                    for look in looks.values())]
            for arm in [*(a for a in ARMS if a in arms), *sorted(arms.keys() - set(ARMS))]
        ]  # fmt: skip
        title = f"### dmc/{task}, forks at {at:,} steps, {steps:,} steps on"
        parts.append(title + of_parent(parent))
        compared = {arm: arms[arm] for arm in ARMS if arm in arms}
        if len(compared) > 1:
            mine = "" if parent == 1 else f"-parent-{parent}"
            file = f"findings-forks-{task}-{at}-{steps}{mine}.svg"
            figure = returns_by_arm(compared, before.get((task, at, parent)))
            (FIGURES / file).write_text(figure, encoding="utf-8")
            parts.append("![Evaluations half-way and at the end, joined, a line a seed; dashed:"
                         f" the agent before](figures/{file})")  # fmt: skip
        parts.append(table(["arm (a number a seed)", *looks], rows))
    return ["## Forks", *parts] if parts else []


def simulators() -> list[str]:
    """The simulator in the model's place, wholly or in part."""
    parts = []
    for (task, at, steps, _), arms in by_arm("simulator"):
        rows = []
        for arm, found in arms.items():
            found = sorted(found, key=lambda r: r["seed"])
            told = [", ".join(f"{v:.0f}" for _, v in r["returns"][1:]) for r in found]
            late = [r.get("last_steps", {}) for r in found]
            means = [np.mean([v for _, v in r["returns"][1:]]) for r in found]
            rows.append([arm, ", ".join(f"{mean:.0f}" for mean in means), " / ".join(told), *(
                ", ".join(f"{x[k]:.2g}" for x in late if k in x) or "–"
                for k in ("skill", "reward_rmse")),
                *(", ".join(f"{r['q_and_temperature'][-1][entry]:.2g}" for r in found)
                  for entry in (1, 2)),
                ", ".join(f"{x['entropy']:.3g}" for x in late if "entropy" in x) or "–",
            ])  # fmt: skip
        after = ", ".join(f"{step:,}" for step, _ in next(iter(arms.values()))[0]["returns"][1:])
        parts += [
            f"### dmc/{task} at {at:,} steps, {steps:,} steps of ten updates"
            + (", with real steps" if any("collected" in r for f in arms.values() for r in f)
               else ""),
            table(["synthetic transitions by", "mean return", f"after {after} (seeds by /)",
                   "skill over persistence", "error of rewards (rms)", "mean Q", "α",
                   "entropy (nats)"], rows),
        ]  # fmt: skip
    meaning = (
        "The same updates of the same agent on transitions of one step from the same real starts,"
        " whose outcome is told by the simulator or by a model fitted to the run's replay."
        " `/states`: next observations by the model, rewards by the simulator; `/reward`: the"
        " reverse; `/mean`: an elite's mean instead of a draw; `/position` and so on: those"
        " channels by the model, all else by the simulator; `@N`: N updates at the first fit."
        " Skill (median over channels; 1: exact, 0: as good as assuming that nothing moves) and"
        " the error of rewards are those of the model's whole predictions in the last 250 steps,"
        " on the policy's own actions; so is the policy's entropy at the starts."
        " With real steps: the policy's own join replay and starts,"
        " one a step, as in training."
    )
    return ["## The simulator as the model", meaning, *parts] if parts else []


def of_kind(rows: list[Row], kind: str, *names: str) -> list[str]:
    """Numbers of a kind of channel, their mean over seeds."""
    return [f"{np.mean([r['kinds'][kind][name] for r in rows]):.2g}" for name in names]


def noise() -> list[str]:
    """What models draw, beside what happened."""
    parts = []
    for (task, at, *_), arms in by_arm("noise"):
        told = next(iter(arms.values()))
        rows = [
            [kind, *of_kind(told, kind, "std", "change", "largest_real"),
             *(" / ".join(of_kind(found, kind, "noise", "error_of_mean", "largest_drawn"))
               for found in arms.values())]
            for kind in told[0]["kinds"]
        ]  # fmt: skip
        parts += [
            f"### dmc/{task} at {at:,} steps: what models draw",
            "Models fitted once, as at the beginning of a fork; the newest"
            f" {told[0]['rows']:,} real transitions; seeds: {len(told)} (their mean), in the"
            " channels' own units. Noise: a draw"
            " less its mean (rms); error: of the mean (rms); largest: absolute value of any.",
            table(["channels", "std", "change in a step", "largest real",
                   *(f"{arm}: noise / error / largest" for arm in arms)], rows),
        ]  # fmt: skip
    return parts


def every_instrument() -> list[str]:
    """What all instruments said of one real run, and of SAC beside it."""
    lines = read_lines(HERE / "results" / "every_instrument.jsonl")
    if not lines:
        return []
    rows = [[line["label"], f["severity"], f["name"], f["sentence"].replace("|", "\\|")]
            for line in lines for f in line["findings"]]  # fmt: skip
    names = list(dict.fromkeys(name for line in lines for name in line["numbers"]))
    silent = [f"{line['label']}: {name.replace('_', ' ')} ({why})"
              for line in lines for name, why in line["not_measured"].items()]  # fmt: skip
    return [
        "## Every instrument on a real run",
        f"{lines[0]['task']}, profile probe, seed 0, {lines[0]['step']:,} steps"
        f" (`every_instrument.py`): {len(names)} instruments measured"
        f" ({', '.join(name.replace('_', ' ') for name in names)}); not measured:"
        f" {'; '.join(silent) or 'nothing'}. All numbers are in the raw lines. What was found:",
        table(["run", "severity", "finding", "in words"], rows),
    ]


def main() -> None:
    """The whole page."""
    introduction = (HERE / "INTRODUCTION.md").read_text(encoding="utf-8").rstrip()
    parts = [
        MARK,
        introduction.replace("<!-- grid of forks -->", grid()),
        *moments(),
        *kinds(),
        *refits(),
        *forks(),
        *simulators(),
        *noise(),
        *every_instrument(),
    ]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
