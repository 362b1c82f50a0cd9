"""Write docs/findings.md from INTRODUCTION.md and the raw lines in results/.

Usage: python benchmarks/findings/report.py        (after run.py, or in the middle of it)
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.forensics.doors import TO_CELLS
from ftfl.forensics.instruments.attribution import SEEN

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from lines import dig, read_lines, table  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "findings.md"
MARK = (
    "<!-- Written by benchmarks/findings/report.py from benchmarks/findings/INTRODUCTION.md and"
    " results; change those and run it. -->"
)
ARMS = ("sac", "mbpo", "mbpo-unit", "mbpo-direct", "ftfl")
Row = dict[str, Any]


def shown(estimate: Any) -> str:
    """Value and interval of an estimate in a line."""
    if estimate is None:
        return "–"
    value, low, high = estimate
    if low is None:
        return f"{value:.3g}"
    return f"{value:.3g} [{low:.2g}, {high:.2g}]"


def refits() -> list[str]:
    """Cells and doors on SAC's own replays."""
    lines = read_lines(HERE / "results" / "refits.jsonl")
    if not lines:
        return []
    parts = ["## Refits on SAC's replay",
             "R² of drawn rewards, R² of a member's mean, and use of drawn states (mean over"
             " channels of skill over persistence, where less than nothing counts as nothing), on"
             " stretches of time held apart: mean over seeds [95 % t interval]."]  # fmt: skip
    for line in sorted(lines, key=lambda r: (r["task"], r["at"], r.get("nll_beta", 0.0))):
        numbers = line["numbers"]
        arms = {**numbers["cells"], **{f"residual, raw + {k}": v for k, v in
                                       numbers["doors"].items() if k not in TO_CELLS}}  # fmt: skip
        judged = numbers.get("held_out_reward_variance_share", 1.0) >= SEEN
        looks = {"R² of draws": "reward_r2_drawn", "R² of a member": "reward_r2_member",
                 "use of states": "state_use"}  # fmt: skip
        if not judged:
            looks = {"use of states": "state_use"}
        parts += [
            f"### dmc/{line['task']}, {line['at']:,} steps of SAC"
            + (f", with nll_beta {line['nll_beta']:g}" if line.get("nll_beta") else ""),
            f"{line['rows']:,} rows, std of the reward {line['reward_std']:.3g}; SAC's last"
            f" evaluation {line['parent_returns'][-1][1]:.3g}; {numbers['updates']} updates,"
            f" {len(numbers['seeds'])} seeds."
            + ("" if judged else " Rewards of the stretches held apart do not vary: not judged."),
            table(["model", *looks],
                  [[name, *(shown(arm[k]) for k in looks.values())] for name, arm in arms.items()]),
        ]  # fmt: skip
    return parts


def by_arm(name: str) -> list[tuple[tuple[str, int, int], dict[str, list[Row]]]]:
    """Lines of a results file: by task, moment and length, and there by arm."""
    groups: dict[tuple[str, int, int], dict[str, list[Row]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in read_lines(HERE / "results" / f"{name}.jsonl"):
        groups[row["task"], row["at"], row["steps"]][row["arm"]].append(row)
    return sorted(groups.items())


def forks() -> list[str]:
    """The same agent, five ways on."""
    parts = []
    account = "autopsy/critic_account/smaller_twin/"
    looks = {
        "last return": lambda r: r["returns"][-1][1],
        "R² of draws": lambda r: dig(r, "autopsy/reward_fidelity/replay_drawn/r2"),
        "slope ρ": lambda r: dig(r, "autopsy/reward_fidelity/replay/slope"),
        "critic: bias": lambda r: dig(r, account + "bias"),
        "critic fit": lambda r: dig(r, account + "critic_fit"),
        "reward model": lambda r: dig(r, account + "reward_model"),
        "next-state model": lambda r: dig(r, account + "next_state_model"),
    }
    for (task, at, steps), arms in by_arm("forks"):
        rows = [
            [arm, *(", ".join("–" if (v := look(r)) is None else f"{v:.3g}" for r in arms[arm])
                    for look in looks.values())]
            for arm in [*(a for a in ARMS if a in arms), *sorted(arms.keys() - set(ARMS))]
        ]  # fmt: skip
        parts += [f"### dmc/{task}, forks at {at:,} steps, {steps:,} steps on",
                  table(["arm (a number a seed)", *looks], rows)]  # fmt: skip
    return ["## Forks", *parts] if parts else []


def simulators() -> list[str]:
    """The simulator in the model's place, wholly or in part."""
    parts = []
    for (task, at, steps), arms in by_arm("simulator"):
        rows = []
        for arm, found in arms.items():
            found = sorted(found, key=lambda r: r["seed"])
            told = [", ".join(f"{v:.0f}" for _, v in r["returns"][1:]) for r in found]
            late = [r.get("last_steps", {}) for r in found]
            means = [np.mean([v for _, v in r["returns"][1:]]) for r in found]
            rows.append([arm, ", ".join(f"{mean:.0f}" for mean in means), " / ".join(told), *(
                ", ".join(f"{x[k]:.2g}" for x in late if k in x) or "–"
                for k in ("skill", "reward_rmse")),
                ", ".join(f"{r['q_and_temperature'][-1][1]:.2g}" for r in found)])  # fmt: skip
        after = ", ".join(f"{step:,}" for step, _ in next(iter(arms.values()))[0]["returns"][1:])
        parts += [
            f"### dmc/{task} at {at:,} steps, {steps:,} steps of ten updates"
            + (", with real steps" if any("collected" in r for f in arms.values() for r in f)
               else ""),
            table(["synthetic transitions by", "mean return", f"after {after} (seeds by /)",
                   "skill over persistence", "error of rewards (rms)", "mean Q"], rows),
        ]  # fmt: skip
    meaning = (
        "The same updates of the same agent on transitions of one step from the same real starts,"
        " whose outcome is told by the simulator or by a model fitted to the run's replay."
        " `/states`: next observations by the model, rewards by the simulator; `/reward`: the"
        " reverse; `/mean`: an elite's mean instead of a draw; `/position` and so on: those"
        " channels by the model, all else by the simulator; `@N`: N updates at the first fit."
        " Skill (median over channels; 1: exact, 0: as good as assuming that nothing moves) and"
        " the error of rewards are those of the model's whole predictions in the last 250 steps,"
        " on the policy's own actions. With real steps: the policy's own join replay and starts,"
        " one a step, as in training."
    )
    return ["## The simulator as the model", meaning, *parts] if parts else []


def main() -> None:
    """The whole page."""
    introduction = (HERE / "INTRODUCTION.md").read_text(encoding="utf-8").rstrip()
    PAGE.write_text(
        "\n\n".join([MARK, introduction, *refits(), *forks(), *simulators()]) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
