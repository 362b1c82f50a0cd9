"""What each part of a training step costs on this machine, against its own matrix products.

A component is timed as training runs it: the same compiled functions, donated state, one thread
on one core (``measure`` runs in a process that ``cli.speed`` pins). Agent updates and model
updates cannot be called alone, so each is the difference of two timed calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ftfl import config as cfg
from ftfl import replay
from ftfl.bench import flops
from ftfl.bench.peak import matmul_peak
from ftfl.config import Config
from ftfl.envs.make import make_task
from ftfl.envs.spec import Environment
from ftfl.rollouts.generate import Ends, generate
from ftfl.store.checkpoint import CheckpointStore
from ftfl.training import saving
from ftfl.training import state as run_state
from ftfl.training.learn import make_learner
from ftfl.training.progress import Progress
from ftfl.training.state import RunState
from ftfl.types import Transition

ROWS = 20_000
"""Real transitions in the replay while timing: random actions in the task."""
_FEWER, _MORE = 10, 40
"""Model updates of the two refits whose difference is timed."""


@dataclass(frozen=True)
class Component:
    """One part of a training step."""

    median_ms: float
    """Of one call."""
    calls_per_step: float
    ms_per_step: float
    share: float
    """Of an environment step and all it pays for."""
    gflops: float | None
    """Matrix products per second, in 10⁹ operations; None: it has none to speak of."""
    share_of_matmul_peak: float | None


@dataclass(frozen=True)
class Speed:
    """What ``ftfl speed`` reports of one process."""

    components: dict[str, Component]
    steps_per_second: float
    """Environment steps with everything they pay for, once training has begun."""
    matmul_peak_gflops: dict[str, float]
    """Of a plain matrix product on this core, by the type of its operands."""
    gflop_per_step: float


def measure(config: Config, seconds: float = 2.0) -> Speed:
    """Time every component of ``config`` on its task.

    Args:
        config: what would be trained; its number of steps does not matter.
        seconds: timed per component, after compiling; at least five calls.

    Raises:
        FtflError: the task cannot be made or does not go with the algorithm.
    """
    config = cfg.replace(config, {"steps": max(config.steps, ROWS)})
    with contextlib.closing(make_task(config.task)) as env:
        return _Bench(config, env, seconds).run()


class _Bench:
    """The state that timed calls hand on to each other."""

    def __init__(self, config: Config, env: Environment, seconds: float):
        self.config, self.env, self.seconds = config, env, seconds
        self.dims = env.spec.obs_dim, env.spec.act_dim
        self.learner = make_learner(config, env.spec)
        self.transition, rows = _play(env, 200)
        self.state = _filled(run_state.init(config, env.spec), rows)
        self.peak = {name: matmul_peak(name) for name in self._precisions()}

    def run(self) -> Speed:
        config = self.config
        timed = {
            "act": (self._act(), 1.0, flops.act(config, *self.dims), "float32"),
            "env_step": (self._env_step(), 1.0, None, ""),
            "insert": (self._insert(), 1.0, None, ""),
        }
        updates = config.sac.updates_per_step
        if config.dynamics is not None and config.rollouts is not None:
            each, fixed = self._fit()
            model, every = config.dynamics, config.dynamics.train_every
            timed["ensemble_update"] = (
                each, model.max_updates / every,
                flops.ensemble_update(config, *self.dims), model.precision,
            )  # fmt: skip
            timed["refit_overhead"] = (fixed, 1 / every, None, "")
            work = flops.rollouts(config, *self.dims, config.rollouts.length[2])
            batches = config.rollouts.every
            timed["rollouts"] = (self._rollouts(), 1 / batches, work * batches, "float32")
        timed["sac_update"] = (
            self._updates() / updates, updates,
            flops.sac_update(config, *self.dims), config.sac.precision,
        )  # fmt: skip
        timed["checkpoint"] = (self._checkpoint(), 1 / config.checkpoint_every, None, "")
        total = sum(seconds * calls for seconds, calls, *_ in timed.values())
        work = sum(calls * (count or 0) for _, calls, count, _ in timed.values())
        parts = {name: self._component(total, *part) for name, part in timed.items()}
        return Speed(parts, 1 / total, self.peak, work / 1e9)

    def _component(
        self, total: float, seconds: float, calls: float, work: int | None, precision: str
    ) -> Component:
        rate = None if work is None else work / seconds / 1e9
        return Component(
            median_ms=1e3 * seconds,
            calls_per_step=calls,
            ms_per_step=1e3 * seconds * calls,
            share=seconds * calls / total,
            gflops=rate,
            share_of_matmul_peak=None if rate is None else rate / self.peak[precision],
        )

    def _precisions(self) -> set[str]:
        model = self.config.dynamics
        return {"float32", self.config.sac.precision, *([model.precision] if model else [])}

    def _median(self, call: Callable[[], Any], seconds: float | None = None) -> float:
        """Median seconds of a call; the first two (compiling, settling) do not count."""
        for _ in range(2):
            jax.block_until_ready(call())
        taken: list[float] = []
        end = time.perf_counter() + (self.seconds if seconds is None else seconds)
        while time.perf_counter() < end or len(taken) < 5:
            start = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - start)
        return float(np.median(taken))

    # Components, in the order of a step.

    def _act(self) -> float:
        return self._median(
            lambda: np.asarray(self.learner.act(self.state, self.transition.obs)), self.seconds / 4
        )

    def _env_step(self) -> float:
        env, rng = self.env, np.random.default_rng(0)
        env.reset(0)
        actions = rng.uniform(-1, 1, (1_000, self.dims[1])).astype(np.float32)
        start, done = time.perf_counter(), 0
        for action in actions:
            result = env.step(action)
            done += 1
            if result.terminated or result.truncated:
                env.reset(done)
        return (time.perf_counter() - start) / done

    def _insert(self) -> float:
        def call() -> Any:
            self.state = self.learner.observe(self.state, self.transition)
            return self.state.env_steps

        return self._median(call, self.seconds / 4)

    def _fit(self) -> tuple[float, float]:
        """Seconds of one model update, and of what a refit costs besides."""
        assert self.config.dynamics is not None
        taken = {}
        for count in (_FEWER, _MORE):
            model = dataclasses.replace(
                self.config.dynamics, max_updates=count, early_stopping=False, best_weights=False,
                check_every=count,
            )  # fmt: skip
            learner = make_learner(dataclasses.replace(self.config, dynamics=model), self.env.spec)

            def call(learner: Any = learner) -> Any:
                self.state, metrics = learner.fit(self.state)
                return metrics

            taken[count] = self._median(call)
        each = (taken[_MORE] - taken[_FEWER]) / (_MORE - _FEWER)
        return each, max(taken[_FEWER] - _FEWER * each, 0.0)

    def _rollouts(self) -> float:
        ends = Ends(self.env.spec.termination, self.env.spec.reward_fn)

        def imagine(state: RunState) -> RunState:
            assert state.dynamics is not None
            assert state.synthetic is not None
            assert state.screen is not None
            key = jax.random.fold_in(state.key, state.synthetic.cursor)
            synthetic, screen, _ = generate(
                key, state.agent.actor, state.dynamics, state.real, state.synthetic, state.screen,
                state.env_steps, ends, self.config,
            )  # fmt: skip
            return dataclasses.replace(state, synthetic=synthetic, screen=screen)

        compiled = jax.jit(imagine, donate_argnums=0)

        def call() -> RunState:
            self.state = compiled(self.state)
            return self.state

        return self._median(call)

    def _updates(self) -> float:
        """All agent updates of a step, their batches drawn from what the rollouts have left."""
        learner = make_learner(self.config, self.env.spec, rollouts=False)

        def call() -> Any:
            self.state, metrics = learner.learn(self.state)
            return metrics

        return self._median(call)

    def _checkpoint(self) -> float:
        with tempfile.TemporaryDirectory() as folder:
            store, progress = CheckpointStore(Path(folder)), Progress()
            progress.rewards.count = ROWS
            start = time.perf_counter()
            saving.save(store, self.state, progress)
            return time.perf_counter() - start


def _play(env: Environment, steps: int) -> tuple[Transition, Transition]:
    """One real transition, and many (B, …) from random actions."""
    rng = np.random.default_rng(0)
    obs, rows = env.reset(0), []
    for seed, action in enumerate(
        rng.uniform(-1, 1, (steps, env.spec.act_dim)).astype(np.float32), start=1
    ):
        result = env.step(action)
        rows.append((obs, action, np.float32(result.reward), result.obs,
                     np.bool_(result.terminated)))  # fmt: skip
        obs = env.reset(seed) if result.terminated or result.truncated else result.obs
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return Transition(*cast(Any, rows[0])), Transition(*cast(Any, columns))


def _filled(state: RunState, rows: Transition) -> RunState:
    """The state with ``ROWS`` real transitions: the played ones, over and over."""
    count = rows.reward.shape[0]
    slots = np.arange(ROWS) % count
    batch = jax.tree.map(lambda x: jnp.asarray(x[slots]), rows)
    return dataclasses.replace(state, real=jax.jit(replay.insert)(state.real, batch))


def main(argv: Sequence[str]) -> int:
    """Entry point of the measuring process: ``CONFIG_JSON SECONDS CORE``; JSON on stdout."""
    from ftfl.training.cores import pin

    pin(int(argv[2]))
    speed = measure(cfg.from_dict(json.loads(argv[0])), float(argv[1]))
    print(json.dumps(dataclasses.asdict(speed)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
