"""What if the model were right? A fork's updates on transitions made by the simulator itself.

    python benchmarks/findings/simulator.py RUN --arms simulator mbpo mbpo/states mbpo/reward

From one checkpoint of a run (RUN: a folder that `run.py parents` keeps) every arm makes the same
updates of the same agent, on the same real rows and from the same pool of starts (a model's draws
take random numbers as well, so that arms with and without one draw other starts from the second
step on); only where synthetic transitions come from differs:

    sac            none: real rows alone, as many updates
    simulator      the simulator, led back to real states and given the policy's actions
    PRESET         the preset's model, fitted to the replay as in training, again every 250 steps
    PRESET/states  the model's next observation, with the simulator's reward
    PRESET/reward  the simulator's next observation, with the model's reward
    PRESET/mean    the drawn elite's mean of both, without the noise of its draw
    PRESET/elites  the mean of all elites' means
    PRESET/NAME    the model in the channels whose names begin so (position, touch…), the simulator
                   in all else
    PRESET@N       with N updates at the first fit instead of the profile's 500 (PRESET@N/… too)

The real replay stays as it is at the checkpoint, or with --collect grows by one step of the policy
before every step's updates, as in training (and so do the starts). Rollouts are one step long.
Starts are drawn from --starts states, spread over --episodes whole episodes that are spread over
the run. Each was left, led back to, and had to give the stored transition bit for bit; those that
did not are counted and not used. Tasks of dm_control only: their simulator's state is one array
(MuJoCo's integration state). One line per arm and seed in results/simulator.jsonl; what stands
there is skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from ftfl import replay
from ftfl.config import Config
from ftfl.envs.make import make_task
from ftfl.envs.snapshots import lift_time_limit
from ftfl.envs.spec import Environment
from ftfl.errors import FtflError
from ftfl.forensics.groundtruth import choose_rows
from ftfl.forensics.learned import make_agent, make_world_model
from ftfl.forensics.subject import Subject
from ftfl.store.segments import Stored
from ftfl.training import state as run_state
from ftfl.training.evaluate import episode_seed, evaluate
from ftfl.training.fork import changed_config
from ftfl.training.learn import Learner, make_learner
from ftfl.training.state import RunState
from ftfl.types import Transition

sys.path.append(str(Path(__file__).resolve().parents[1]))
from lines import add_line, read_lines, rounded
from run import UPDATES_A_STEP

RESULTS = Path(__file__).parent / "results" / "simulator.jsonl"
BRANCHES = 250
"""Synthetic transitions a step; 250 steps of them are kept, as in the laptop profile."""
REFIT_EVERY = 250
_COLLECTED = 2  # keeps the seeds of collected episodes apart from training's and evaluation's
_WHOLE = mujoco.mjtState.mjSTATE_INTEGRATION


class Arm(NamedTuple):
    """PRESET@N/PART, taken apart."""

    preset: str
    first_updates: int | None
    part: str

    @classmethod
    def read(cls, name: str) -> Arm:
        """From the command line; "simulator" is a part without a model."""
        whole, _, part = name.partition("/")
        preset, _, updates = whole.partition("@")
        return cls(preset, int(updates) if updates else None, part)


def physics_of(env: Any) -> Any:
    """dm_control's, of an environment that may be wrapped."""
    return env.inner.physics if hasattr(env, "inner") else env.physics


def state_of(env: Environment) -> np.ndarray:
    """MuJoCo's integration state."""
    physics = physics_of(env)
    model, data = physics.model.ptr, physics.data.ptr
    state = np.empty(mujoco.mj_stateSize(model, _WHOLE))
    mujoco.mj_getState(model, data, state, _WHOLE)
    return state


class Starts:
    """Real states of a run that the simulator can be led back to."""

    def __init__(self, subject: Subject, env: Environment, count: int, episodes: int):
        self.env = env
        rows = choose_rows(subject, count, episodes)
        self.obs: list[np.ndarray] = []
        self.states: list[np.ndarray] = []
        self.dropped = 0
        for index in np.unique(subject.episode[rows]):
            episode = subject.episodes[index]
            first = subject.rows.obs[episode.start]
            seed = next((s for s in episode.seeds if np.array_equal(env.reset(s), first)), None)
            mine = rows[subject.episode[rows] == index]
            if seed is None:
                self.dropped += len(mine)
                continue
            found = []
            for row in range(episode.start, int(mine[-1]) + 1):
                if row in mine:
                    found.append((row, state_of(env)))
                env.step(subject.rows.action[row])
            for row, state in found:
                self.add(state, Transition(*(np.asarray(x)[row] for x in subject.rows)))

    def copy(self) -> Starts:
        """The same starts, to which more may be added."""
        more = copy.copy(self)
        more.obs, more.states = [*self.obs], [*self.states]
        return more

    def add(self, state: np.ndarray, row: Transition) -> None:
        """The start of one real transition, if the simulator can be led back to it."""
        told = self.step(state, row.action)
        if np.array_equal(told[0], row.next_obs) and np.float32(told[1]) == row.reward:
            self.obs.append(row.obs)
            self.states.append(state)
        else:
            self.dropped += 1

    def step(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float, bool]:
        """Next observation, reward and end from a state."""
        physics = physics_of(self.env)
        model, data = physics.model.ptr, physics.data.ptr
        mujoco.mj_setState(model, data, state, _WHOLE)
        mujoco.mj_step1(model, data)  # dm_control steps on from positions and velocities
        told = self.env.step(action)
        return told.obs, told.reward, told.terminated

    def play(self, which: np.ndarray, obs: np.ndarray, action: np.ndarray) -> Transition:
        """One step from each of these starts (NumPy)."""
        told = [self.step(self.states[i], a) for i, a in zip(which, action, strict=True)]
        next_obs, reward, end = (np.array(x) for x in zip(*told, strict=True))
        return Transition(obs, action, reward.astype(np.float32), next_obs.astype(np.float32), end)


def begin(subject: Subject, config: Config, seed: int) -> RunState:
    """The parent's agent and replay, with fresh randomness, model and synthetic replay."""
    new = run_state.init(config, subject.spec)
    rows = {name: np.asarray(value) for name, value in subject.rows._asdict().items()}
    return dataclasses.replace(
        new, agent=jax.tree.map(jnp.copy, subject.state.agent), key=jax.random.key(seed),
        real=run_state.ring(new.real, Stored(len(rows["reward"]), rows)),
        holdout=jnp.copy(subject.state.holdout), env_steps=jnp.copy(subject.state.env_steps),
    )  # fmt: skip


class Collector:
    """The policy's own steps, which go into the replay and become starts, as in training."""

    def __init__(self, env: Environment, seed: int):
        self.env, self.seed = env, seed
        self.episodes, self.rewarded = 0, 0
        self.obs: np.ndarray | None = None

    def step(self, learner: Learner, state: RunState, starts: Starts) -> RunState:
        """One real step of the policy."""
        if self.obs is None:
            self.obs = self.env.reset(episode_seed(self.seed, self.episodes, _COLLECTED))
            self.episodes += 1
        before = state_of(self.env)
        action = np.asarray(learner.act(state, self.obs))
        told = self.env.step(action)
        row = Transition(
            self.obs, action, np.float32(told.reward), told.obs, np.bool_(told.terminated)
        )
        starts.add(before, row)
        self.rewarded += told.reward > 0.5
        self.obs = None if told.terminated or told.truncated else told.obs
        return learner.observe(state, row)


def run(
    subject: Subject, starts: Starts, name: str, seed: int, steps: int, branches: int,
    collector: Collector | None,
) -> dict[str, Any]:  # fmt: skip
    """Train one arm, and tell what became of it."""
    arm = Arm.read(name)
    if arm.part not in ("", "states", "reward", "mean", "elites"):
        channels(subject, arm.part)
    parent = dataclasses.replace(subject.config, profile="laptop")
    changes: dict[str, Any] = {"sac.updates_per_step": UPDATES_A_STEP}
    if arm.preset != "sac":
        changes |= {"rollouts.per_step": branches, "rollouts.length": (0, 1, 1, 1)}
    algo = "mbpo" if arm.preset == "simulator" else arm.preset
    config = changed_config(parent, algo, changes, subject.config.steps + steps)
    learner = make_learner(config, subject.spec, rollouts=False)
    state = begin(subject, config, seed)
    insert = jax.jit(replay.insert, donate_argnums=0)
    generator = np.random.default_rng(seed)
    starts = starts.copy()
    line: dict[str, Any] = {
        "arm": name, "seed": seed, "steps": steps, "branches": branches,
        "starts": len(starts.obs), "starts_dropped": starts.dropped,
    }  # fmt: skip
    fitted: dict[str, float] = {}
    returns = [[0, score(learner, config, state, seed)]]
    trace, errors = [], []
    for step in range(steps):
        if collector:
            state = collector.step(learner, state, starts)
        if arm.preset not in ("sac", "simulator") and step % REFIT_EVERY == 0:
            state, fitted = refit(learner, subject, config, state, arm, first=step == 0)
        if arm.preset != "sac":
            rows, error = synthetic(starts, state, config, subject, arm, branches, generator)
            errors.append(error)
            state = dataclasses.replace(state, synthetic=insert(state.synthetic, rows))
        state, told = learner.learn(state)
        if (step + 1) % (steps // 4) == 0:
            returns.append([step + 1, score(learner, config, state, seed)])
            trace.append([step + 1, *(float(told[k]) for k in
                         ("agent/q_mean_scaled", "agent/temperature"))])  # fmt: skip
    line |= {"returns": returns, "q_and_temperature": trace}
    if collector:
        line |= {"collected": steps, "collected_rewards_above_half": int(collector.rewarded),
                 "starts_dropped": starts.dropped}  # fmt: skip
    if errors:
        late = errors[-REFIT_EVERY:]
        line["last_steps"] = {k: float(np.mean([e[k] for e in late])) for k in late[0]}
    return line | ({"model": fitted} if fitted else {})


def refit(
    learner: Learner, subject: Subject, config: Config, state: RunState, arm: Arm, *, first: bool
) -> tuple[RunState, dict[str, float]]:
    """Fit the model as training does, or longer at first."""
    if first and arm.first_updates:
        assert config.dynamics is not None
        longer = dataclasses.replace(config.dynamics, max_updates=arm.first_updates,
                                     early_stopping=False)  # fmt: skip
        learner = make_learner(dataclasses.replace(config, dynamics=longer), subject.spec)
    state, told = learner.fit(state)
    names = ("model/reward_r2", "model/skill_over_persistence", "model/updates_count")
    return state, {k: float(told[k]) for k in names if k in told}


def synthetic(
    starts: Starts,
    state: RunState,
    config: Config,
    subject: Subject,
    arm: Arm,
    branches: int,
    generator: np.random.Generator,
) -> tuple[Transition, dict[str, float]]:
    """Transitions of one step by the current policy, and how far the model's are from true."""
    which = generator.integers(len(starts.obs), size=branches)
    obs = np.stack([starts.obs[i] for i in which])
    action_noise = generator.standard_normal((branches, subject.spec.act_dim), np.float32)
    agent = make_agent(state.agent, config)
    action, log_density = agent.act(obs, action_noise)
    true = starts.play(which, obs, action)

    def entropy_at(states: np.ndarray) -> float:
        return -float(agent.act(states, action_noise)[1].mean())  # the same noise: paired

    error = {
        "true_reward": float(true.reward.mean()), "entropy": -float(log_density.mean()),
        "entropy_next_true": entropy_at(true.next_obs),
    }  # fmt: skip
    if arm.preset == "simulator":
        return Transition(*map(jnp.asarray, true)), error
    assert state.dynamics is not None
    model = make_world_model(state.dynamics, config, subject.spec)
    noise = model.noise(generator, branches)
    told = model.imagine(obs, action, None if arm.part in ("mean", "elites") else noise)
    drawn = (np.arange(branches), generator.integers(model.elites, size=branches))
    next_obs, reward = told.next_obs[drawn], told.reward[drawn].astype(np.float32)
    if arm.part == "elites":
        next_obs, reward = told.next_obs.mean(axis=1), told.reward.mean(axis=1, dtype=np.float32)
    terminated = told.terminated[drawn]
    wrong, still = (np.square(x - true.next_obs) for x in (next_obs, obs))
    error |= {
        "reward": float(reward.mean()), "entropy_next": entropy_at(next_obs),
        "reward_rmse": float(np.sqrt(np.square(reward - true.reward).mean())),
        "skill": float(1 - np.median(wrong.mean(axis=0) / still.mean(axis=0))),
    }  # fmt: skip
    if arm.part in ("", "mean", "elites"):
        made = true._replace(next_obs=next_obs, reward=reward, terminated=terminated)
    elif arm.part == "states":
        made = true._replace(next_obs=next_obs, terminated=terminated)
    elif arm.part == "reward":
        made = true._replace(reward=reward)
    else:
        some = channels(subject, arm.part)
        made = true._replace(next_obs=np.where(some, next_obs, true.next_obs))
    return Transition(*map(jnp.asarray, made)), error


def channels(subject: Subject, name: str) -> np.ndarray:
    """Which entries of an observation (O,) have names that begin so."""
    names = subject.spec.obs_names or ()
    some = np.array([entry.startswith(name) for entry in names])
    if not some.any():
        kinds = sorted({entry.partition("[")[0] for entry in names})
        raise FtflError(
            f"/{name} names no part of {subject.spec.task}: give states, reward, mean, elites, or"
            f" channels: {', '.join(kinds)}."
        )
    return some


def score(learner: Learner, config: Config, state: RunState, seed: int) -> float:
    """Mean return of the deterministic policy over three episodes."""
    with contextlib.closing(make_task(config.task)) as env:
        played = evaluate(
            env, lambda obs: np.asarray(learner.mode(state.agent.actor, obs)), seed, episodes=3
        )
    return float(played.returns.mean())


def main() -> None:
    """Read the options, skip what is done, do the rest."""
    parser = argparse.ArgumentParser(description="A fork's updates with the simulator as the model")
    parser.add_argument("run", type=Path, help="kept parent, TASK@STEP")
    parser.add_argument("--arms", nargs="+", default=["sac", "simulator", "mbpo", "ftfl"])
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--collect", action="store_true", help="a real step before every step")
    parser.add_argument("--branches", type=int, default=BRANCHES)
    parser.add_argument("--starts", type=int, default=4_000)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    try:
        subject = Subject.load(args.run)
        task, _, at = args.run.name.partition("@")
        asked = (args.steps, args.branches, args.steps if args.collect else 0)
        done = {(r["task"], r["at"], r["arm"], r["seed"], r["steps"], r.get("branches", BRANCHES),
                 r.get("collected", 0)) for r in read_lines(args.results)}  # fmt: skip
        todo = [(seed, arm) for seed in args.seeds for arm in args.arms
                if (task, int(at), arm, seed, *asked) not in done]  # fmt: skip
        if not todo:
            return
        make = functools.partial(make_task, subject.config.task)
        with contextlib.closing(make()) as env, contextlib.closing(make()) as played:
            lift_time_limit(env)
            starts = Starts(subject, env, args.starts, args.episodes)
            print(f"{len(starts.obs)} starts, {starts.dropped} dropped", flush=True)
            for seed, arm in todo:
                begun = time.monotonic()
                collector = Collector(played, seed) if args.collect else None
                line = {"task": task, "at": int(at)} | run(
                    subject, starts, arm, seed, args.steps, args.branches, collector
                )
                line["seconds"] = round(time.monotonic() - begun)
                add_line(args.results, rounded(line))
                print(arm, seed, line["returns"], line.get("last_steps"), line["seconds"],
                      flush=True)  # fmt: skip
    except FtflError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; give the same command again to go on.")


if __name__ == "__main__":
    main()
