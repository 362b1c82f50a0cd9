"""Our SAC updates on request: a line in, seconds of 20 updates out."""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp

from ftfl import presets, replay
from ftfl.envs.spec import EnvSpec
from ftfl.training import state as run_state
from ftfl.training.learn import make_learner
from ftfl.types import Transition

OBS, ACT, BATCH, UPDATES, ROWS = 15, 4, 256, 20, 20_000


def main() -> None:
    changes = {"sac.updates_per_step": UPDATES, "sac.batch_size": BATCH, "steps": ROWS,
               "sac.precision": sys.argv[1]}  # fmt: skip
    config = presets.build("made-up", "sac", "paper", changes)
    spec = EnvSpec(
        task="made-up", obs_dim=OBS, act_dim=ACT, max_episode_steps=None, termination=None,
        learned_termination=False, reward_fn=None, replayable=False, seconds_per_step=None,
        obs_names=(),
    )  # fmt: skip
    learner, state = make_learner(config, spec), run_state.init(config, spec)
    keys = jax.random.split(jax.random.key(0), 4)
    rows = Transition(
        jax.random.normal(keys[0], (ROWS, OBS)),
        jnp.tanh(jax.random.normal(keys[1], (ROWS, ACT))),
        jax.random.normal(keys[2], (ROWS,)),
        jax.random.normal(keys[3], (ROWS, OBS)),
        jnp.zeros(ROWS, bool),
    )
    state = dataclasses.replace(state, real=jax.jit(replay.insert)(state.real, rows))
    for _ in sys.stdin:
        start = time.perf_counter()
        state, _ = learner.learn(state)
        jax.block_until_ready(state.agent)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
