"""Does attribution name the cause? Data and models with exactly one, and with none; all doors open.

    python benchmarks/attribution/known_causes.py             # results/causes.jsonl, a line a case
    python benchmarks/attribution/known_causes.py --page      # README.md from these lines

Every case is made of the same kind of rows, stationary channels in episodes and a reward that is a
function of them, and one thing that spoils a small model of it. `ftfl.forensics` is asked what it
asks of a run: all four cells and every door alone, equal updates, three seeds. Two draws of the
data a case. Which door is the cause was written down before the first run, of the last two cases
after the others had run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ftfl import presets
from ftfl.config import DynamicsConfig
from ftfl.forensics.instruments.attribution import LOST, attribution
from ftfl.types import Transition

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, read_lines, table

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "causes.jsonl"
DRAWS = (0, 1)
EPISODES, STEPS, UPDATES = 40, 50, 1_000


def channels(kappas: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Stationary channels s′ = κ s + √(1 − κ²) a, std 1: states, actions and next states (N, O)."""
    rows: list[tuple[np.ndarray, ...]] = []
    for _ in range(EPISODES):
        state = generator.normal(size=kappas.size)
        for _ in range(STEPS):
            action = generator.normal(size=kappas.size)
            after = kappas * state + np.sqrt(1 - kappas**2) * action
            rows.append((state, action, after))
            state = after
    return tuple(map(np.stack, zip(*rows, strict=True)))


def transitions(obs: np.ndarray, action: np.ndarray, reward: np.ndarray, after: np.ndarray):
    """As float32 rows."""
    arrays = [np.asarray(x, np.float32) for x in (obs, action, reward, after)]
    return Transition(*arrays, np.zeros(len(reward), bool))


def plain(generator: np.random.Generator) -> Transition:
    """Two channels, a reward of std 1 that is linear in them: nothing is wrong."""
    obs, action, after = channels(np.array([0.9, 0.8]), generator)
    return transitions(obs, action, (obs[:, 0] + obs[:, 1]) / np.sqrt(2), after)


def small_reward(generator: np.random.Generator) -> Transition:
    """The reward in a unit of 2⁻¹²."""
    rows = plain(generator)
    return rows._replace(reward=rows.reward * np.float32(2.0**-12))


def slow(generator: np.random.Generator) -> Transition:
    """Two channels that hardly move in a step."""
    obs, action, after = channels(np.array([0.9995, 0.999]), generator)
    return transitions(obs, action, np.tanh(action[:, 0]), after)


def noisy_reward(generator: np.random.Generator) -> Transition:
    """Half of the reward's variance is noise: no model can know it, and draws repeat it."""
    rows = plain(generator)
    noise = generator.normal(size=len(rows.reward))
    return rows._replace(reward=((rows.reward + noise) / np.sqrt(2)).astype(np.float32))


def rare_reward(generator: np.random.Generator) -> Transition:
    """One row in forty pays, where a channel is far out."""
    obs, action, after = channels(np.array([0.9, 0.8]), generator)
    return transitions(obs, action, (obs[:, 0] > 1.96).astype(np.float64), after)


def crowded(generator: np.random.Generator) -> Transition:
    """Forty channels of bent shape beside a bent reward: one small trunk for all."""
    obs, action, _ = channels(np.full(40, 0.9), generator)
    mix = generator.normal(size=(40, 40)) / np.sqrt(40)
    after = obs + np.sin(2 * obs @ mix) + 0.3 * action
    return transitions(obs, action, np.sin(2 * obs[:, 0]) * np.sin(2 * obs[:, 1]), after)


def slow_and_noise(generator: np.random.Generator) -> Transition:
    """Two slow channels, and six without memory: each end suits one kind."""
    obs, action, after = channels(np.array([0.9995, 0.999, *[0.0] * 6]), generator)
    unseen = after.copy()
    unseen[:, 2:] = generator.normal(size=unseen[:, 2:].shape)
    return transitions(obs, action, np.tanh(action[:, 0]), unseen)


def noise_beside(generator: np.random.Generator) -> Transition:
    """Forty channels without memory beside the two of ``plain``, whose reward stays."""
    rows = plain(generator)
    draws = generator.normal(size=(2, len(rows.reward), 40))
    obs, after = (
        np.concatenate([x, d], axis=1)
        for x, d in zip((rows.obs, rows.next_obs), draws, strict=True)
    )
    return transitions(obs, rows.action, rows.reward, after)


@dataclass(frozen=True)
class Case:
    """One cause."""

    rows: Callable[[np.random.Generator], Transition]
    preset: str
    changes: dict[str, Any]
    what: str
    """``reward`` or ``state``: what it spoils; empty if nothing is wrong."""
    door: str
    """The door that undoes it."""

    def config(self) -> DynamicsConfig:
        """The spoilt model: small, so that a case takes minutes."""
        changes = {f"dynamics.{k}": v for k, v in self.changes.items()}
        small = {"dynamics.hidden": (64, 64), "dynamics.members": 3, "dynamics.elites": 2}
        config = presets.build("gym/Pendulum-v1", self.preset, "probe", small | changes).dynamics
        assert config is not None
        return config


CASES: dict[str, Case] = {
    "nothing, raw": Case(plain, "mbpo", {}, "", ""),
    "nothing, unit": Case(plain, "ftfl", {}, "", ""),
    "small reward": Case(small_reward, "mbpo", {}, "reward", "scale"),
    "slow channels, direct": Case(slow, "ftfl", {}, "state", "target"),
    "high floor": Case(plain, "mbpo-unit", {"logvar_min": -1.7}, "state", "floor"),
    "noisy reward": Case(noisy_reward, "mbpo-unit", {}, "reward", "mean-reward"),
    "rare reward": Case(rare_reward, "mbpo-unit", {}, "reward", "nll-beta"),
    "crowded trunk": Case(crowded, "mbpo-unit", {}, "reward", "separate-reward"),
    "slow channels and noise": Case(slow_and_noise, "mbpo-unit", {}, "state", "innovation"),
    "large steps": Case(plain, "mbpo-unit", {"learning_rate": 0.05}, "state", "small-steps"),
    # written after the ten above had run: see INTRODUCTION.md
    "noise in the trunk": Case(noise_beside, "mbpo-unit", {}, "reward", "separate-reward"),
    "steps rather large": Case(
        plain, "mbpo-unit", {"learning_rate": 0.02}, "reward", "small-steps"
    ),
}


def measure(name: str, draw: int) -> dict[str, Any]:
    """What attribution says of a case."""
    case, start = CASES[name], time.monotonic()
    rows = case.rows(np.random.default_rng(draw))
    found = attribution(rows, case.config(), UPDATES)
    gains = {
        what: {
            door: [round(float(x), 4) for x in (gain.value, gain.low, gain.high)]
            for door, gain in found.gains(what).items()
        }
        for what in ("reward", "state")
    }
    base = found.base
    return {
        "case": name,
        "draw": draw,
        "use": {
            "reward": round(float(base.reward_use.mean()), 4),
            "state": round(float(base.state_use.mean()), 4),
        },
        "gains": gains,
        "findings": {f.name: f.sentence for f in found.findings()},
        "seconds": round(time.monotonic() - start),
    }


def verdict(case: Case, line: dict[str, Any], gain: list[float] | None) -> str:
    """Whether the cause was named; what does no harm cannot be."""
    told = {n: t for n, t in line["findings"].items() if "-lost-by-" in n}
    if not case.what:
        return "**false alarm**" if told else "nothing named"
    assert gain is not None
    if f"{case.what}-lost-by-{case.door}" in told:
        return "named"
    if any(n.startswith(case.what) and case.door in text for n, text in told.items()):
        return "named beside another"
    if gain[0] < LOST:
        return "did no harm that its door undoes"
    return "**missed**: seeds too far apart" if gain[1] <= 0 else "**missed**"


def page() -> str:
    """README.md: what was named, beside what the cause was."""
    rows = []
    for name, case in CASES.items():
        for line in (r for r in read_lines(RESULTS) if r["case"] == name):
            found = [n for n in line["findings"] if "-lost-by-" in n or n.endswith("-repairs")]
            gain = line["gains"].get(case.what, {}).get(case.door)
            rows.append([
                name, f"{case.what}: {case.door}" if case.what else "–",
                f"{line['use']['reward']:.2f}, {line['use']['state']:.2f}",
                "–" if gain is None else f"{gain[0]:.2f} [{gain[1]:.2f}, {gain[2]:.2f}]",
                ", ".join(f"`{n}`" for n in found) or "–", verdict(case, line, gain),
            ])  # fmt: skip
    head = ["case", "cause", "use of reward, state", "gain of that door", "findings", "verdict"]
    text = (HERE / "INTRODUCTION.md").read_text(encoding="utf-8").rstrip()
    return f"{text}\n\n{table(head, rows)}\n"


def main() -> None:
    """Do what is missing, or write the page."""
    parser = argparse.ArgumentParser(description="Attribution where the cause is known")
    parser.add_argument("--page", action="store_true", help="write README.md")
    if parser.parse_args().page:
        (HERE / "README.md").write_text(page(), encoding="utf-8")
        return
    done = {(line["case"], line["draw"]) for line in read_lines(RESULTS)}
    for draw in DRAWS:
        for name in CASES:
            if (name, draw) not in done:
                line = measure(name, draw)
                add_line(RESULTS, line)
                print(name, draw, list(line["findings"]), line["seconds"], flush=True)


if __name__ == "__main__":
    main()
