"""Probes, ``probe/rest`` and ``probe/DIAL@LEVEL``: one small task in which one property turns.

A point mass is pushed to the origin and held there. A dial changes what the *model* must predict.
The agent looks through `Probe` (``EnvSpec.view``), which turns the dial back, and so meets the same
task at every level, to the bit: positions and velocities are read off in ticks of 2⁻¹², and what is
added to them is a whole number of ticks. Formulas and what is held fixed: docs/probes.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from ftfl.envs.spec import EnvSpec
from ftfl.errors import FtflError, unknown
from ftfl.termination import never
from ftfl.types import Step

STEPS = 50
SECONDS = 0.1
TICK = 2.0**-12
PUSH, DRAG = 2.0, 0.5
"""Acceleration at full action, and how much of the velocity is lost in a second."""
AMPLITUDE = 4.0
"""Of the carrier of ``autocorrelation``: most of what its channels show."""
Level: TypeAlias = int | float
_EXTRAS = 1
"""Domain of the generator of added channels: the mass has its own, so that none disturbs it."""
_OUTSIDE = "--reward-unit 2**LEVEL turns the reward's unit on probe/rest, as on any task"


@dataclass(frozen=True)
class Probe:
    """A setting of all dials, and the agent's view under it (a `types.View`)."""

    unit: float = 1.0
    """Every channel is reported times this power of two."""
    jump: float = 0.0
    """Added to the position channel where the position is not negative."""
    carrier: float = 0.0
    """Amplitude of a known oscillation added to both channels; it is a pair of channels itself."""
    turn: float = 0.0
    """Radians the carrier advances in a step."""
    turning: int = 0
    """Added pairs (cos, sin) of channels that oscillate by themselves, each at its own speed."""
    noise: int = 0
    """Added channels of independent Gaussian noise."""
    noise_std: float = 1.0
    noise_mean: float = 0.0
    spikes: int = 0
    """Added channels that are 1 with probability ``spike_share`` and else 0, independently."""
    spike_share: float = 0.5

    dim = 2

    def __call__(self, obs: Any) -> Any:
        """Turn the dial back: position and velocity, (..., 2), of an observation (..., O)."""
        shown = obs[..., :2] * (1.0 / self.unit)
        if self.carrier:
            shown = shown - self.carrier * obs[..., 2:4]
        if self.jump:
            xp = np if isinstance(obs, np.ndarray) else jnp
            lowered = xp.where(shown[..., :1] > self.jump / 2, shown[..., :1] - self.jump,
                               shown[..., :1])  # fmt: skip
            shown = xp.concatenate([lowered, shown[..., 1:]], axis=-1)
        return shown

    def reward(self, obs: Any, action: Any, next_obs: Any) -> Any:
        """The reward as a function of observations (a `types.RewardFn`)."""
        return reward(self(next_obs))

    @property
    def names(self) -> tuple[str, ...]:
        """One name per channel."""
        carriers = ("carrier[cos]", "carrier[sin]") if self.carrier else ()
        added = (("turning", 2 * self.turning), ("noise", self.noise), ("spikes", self.spikes))
        return (
            "position", "velocity", *carriers,
            *(f"{name}[{i}]" for name, count in added for i in range(count)),
        )  # fmt: skip


def reward(state: Any) -> Any:
    """Pay 0 at rest in the origin and less elsewhere: −(x² + v²/8)/4, of states (..., 2)."""
    return -0.25 * (state[..., 0] ** 2 + 0.125 * state[..., 1] ** 2)


def move(state: np.ndarray, action: float) -> np.ndarray:
    """One step of the mass, (2,) float64: position and velocity to the next tick."""
    velocity = state[1] + SECONDS * (PUSH * action - DRAG * state[1])
    return ticks(np.array([state[0] + SECONDS * velocity, velocity]))


def ticks(value: np.ndarray) -> np.ndarray:
    """The nearest whole number of ticks, as an encoder reads."""
    return np.round(np.asarray(value, np.float64) / TICK) * TICK


class ProbeEnvironment:
    """An adapter (see `envs.guard`) of one probe."""

    def __init__(self, name: str):
        """``name`` is what follows ``probe/``; an unknown dial or level is an `FtflError`."""
        task, probe = find_probe(name)
        self.probe = probe
        self._max_episode_steps = STEPS
        self._steps = 0
        self._state = np.zeros(2)
        self._phase = 0.0
        self._phases = np.zeros(0)
        self._random = np.random.default_rng(0)
        self.spec = EnvSpec(
            task=task,
            obs_dim=len(probe.names),
            act_dim=1,
            max_episode_steps=STEPS,
            termination=never,
            learned_termination=False,
            reward_fn=probe.reward,
            replayable=True,
            seconds_per_step=SECONDS,
            obs_names=probe.names,
            # At rest the agent sees the very observation: nothing stands between.
            view=None if probe == Probe() else probe,
        )

    def reset(self, seed: int) -> np.ndarray:
        """Start at rest, somewhere within 1.5 of the origin."""
        start = np.random.default_rng(seed).uniform(-1.5, 1.5)
        self._random = np.random.default_rng((seed, _EXTRAS))
        self._state, self._steps = ticks(np.array([start, 0.0])), 0
        self._phase = self._random.uniform(0, 2 * math.pi)
        self._phases = self._random.uniform(0, 2 * math.pi, self.probe.turning)
        return self._obs()

    def step(self, action: np.ndarray) -> Step:
        """Push for a tenth of a second; only the clock ends an episode."""
        self._state = move(self._state, float(action[0]))
        self._steps += 1
        late = self._steps >= self._max_episode_steps
        return Step(self._obs(), float(reward(self._state)), False, late)

    def render(self) -> np.ndarray:
        """Probes have no picture."""
        raise FtflError(f"{self.spec.task} has no picture: a probe is numbers only.")

    def close(self) -> None:
        """Nothing to give back."""

    def simulator_warnings(self) -> np.ndarray | None:
        """There is no simulator behind it."""
        return None

    def _obs(self) -> np.ndarray:
        probe, shown, added = self.probe, self._state.copy(), []
        if probe.jump and shown[0] >= 0:
            shown[0] += probe.jump
        if probe.carrier:
            phase = self._phase + probe.turn * self._steps
            carrier = ticks(np.array([math.cos(phase), math.sin(phase)]))
            shown += probe.carrier * carrier
            added.append(carrier)
        if probe.turning:
            speeds = np.geomspace(0.1, 1.0, probe.turning)
            phases = self._phases + speeds * self._steps
            added.append(np.stack([np.cos(phases), np.sin(phases)], axis=1).ravel())
        if probe.noise:
            draws = self._random.standard_normal(probe.noise)
            added.append(probe.noise_mean + probe.noise_std * draws)
        if probe.spikes:
            added.append(self._random.random(probe.spikes) < probe.spike_share)
        return (probe.unit * np.concatenate([shown, *added])).astype(np.float32)


@dataclass(frozen=True)
class Dial:
    """One property, its named levels, and what a level means."""

    summary: str
    level: str
    """What the number after @ is."""
    levels: tuple[Level, ...]
    """Those that benchmarks turn to."""
    low: Level
    high: Level
    make: Callable[[Level], Probe]
    whole: bool = True

    def at(self, name: str, level: float) -> Probe:
        """The probe of a level; one that is not allowed is an `FtflError`."""
        if not self.low <= level <= self.high or (self.whole and level != round(level)):
            kind = "a whole number" if self.whole else "a number"
            raise FtflError(
                f"probe/{name}@{level:g} has no such level: give {kind} from {self.low:g} to"
                f" {self.high:g}, the {self.level}."
            )
        return self.make(level)


DIALS: dict[str, Dial] = {
    "channel-unit": Dial(
        "both channels in another unit", "power of two they are multiplied by",
        (-6, -3, 3, 6, 9), -20, 20, lambda k: Probe(unit=2.0**k),
    ),
    "noise-count": Dial(
        "channels of pure noise, std 1, that no model can predict", "number of them",
        (2, 8, 32, 64, 128), 1, 512, lambda n: Probe(noise=int(n)),
    ),
    "noise-scale": Dial(
        "8 channels of pure noise, of another scale", "power of two that is their std",
        (-6, -3, 0, 3, 6), -20, 20, lambda k: Probe(noise=8, noise_std=2.0**k),
    ),
    "autocorrelation": Dial(
        "the agent's two channels ride on a known oscillation of amplitude 4, faster or slower",
        "lag-1 autocorrelation κ of that oscillation",
        (-0.9, -0.5, 0, 0.5, 0.9, 0.99), -1, 1,
        lambda kappa: Probe(carrier=AMPLITUDE, turn=math.acos(kappa)), whole=False,
    ),
    "slow": Dial(
        "the agent's two channels ride on a known, nearly constant offset (κ → 1)",
        "power of two that is the offset's amplitude",
        (0, 2, 4, 6, 8), 0, 10, lambda k: Probe(carrier=2.0**k, turn=2.0**-9),
    ),
    "jump": Dial(
        "the position channel jumps at the goal", "height of the jump",
        (1, 4, 16, 64, 256), 1, 1024, lambda height: Probe(jump=float(height)),
    ),
    "predictable": Dial(
        "channels that oscillate by themselves and can be predicted: reward share 1/D",
        "number of pairs of them",
        (1, 4, 16, 32, 64), 1, 256, lambda n: Probe(turning=int(n)),
    ),
    "faint": Dial(
        "16 channels that are 1 but for a faint noise: standardising blows it up",
        "power of two that is the noise's std",
        (-20, -16, -12, -8, -4), -24, 0,
        lambda k: Probe(noise=16, noise_mean=1.0, noise_std=2.0**k),
    ),
    "rare": Dial(
        "8 channels that are 0 but for rare spikes of 1: standardised, a spike is huge",
        "power of two that is a spike's probability",
        (-10, -8, -6, -4, -2), -14, -1,
        lambda k: Probe(spikes=8, spike_share=2.0**k),
    ),
}  # fmt: skip
"""By name. The tenth dial, the reward's unit, is an option of every task: ``--reward-unit``."""


def list_probe_tasks() -> list[str]:
    """``probe/rest``, and every dial at every named level."""
    turned = [f"probe/{name}@{level:g}" for name, dial in DIALS.items() for level in dial.levels]
    return ["probe/rest", *turned]


def find_probe(name: str) -> tuple[str, Probe]:
    """The canonical name and the setting of ``rest`` or ``DIAL@LEVEL``."""
    dial, at, text = name.replace("_", "-").partition("@")
    if dial == "rest" and not at:
        return "probe/rest", Probe()
    if dial == "reward-unit":
        raise FtflError(f"probe/{name} is an option and no task: {_OUTSIDE}.")
    if dial not in DIALS:
        raise unknown("task", f"probe/{name}", list_probe_tasks())
    levels = ", ".join(f"@{level:g}" for level in DIALS[dial].levels)
    try:
        level = float(text)
    except ValueError:
        raise FtflError(
            f"probe/{name} needs a level, the {DIALS[dial].level}: probe/{dial}@LEVEL with LEVEL a"
            f" number, such as {levels}."
        ) from None
    return f"probe/{dial}@{level:g}", DIALS[dial].at(dial, level)
