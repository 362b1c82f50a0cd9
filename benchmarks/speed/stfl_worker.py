"""Seconds of STFL's SAC and ensemble updates at paper sizes, on all cores it may use.

    git clone https://github.com/CLeARoboticsLab/STFL && cd STFL && git checkout 244c775
    python -m venv env && env/bin/pip install jax==0.4.30 jaxlib==0.4.30 "flax<0.9" "optax<0.2.4" \\
        "numpy<2" tensorflow_probability gym==0.23.1 tqdm
    PYTHONPATH=. env/bin/python …/benchmarks/speed/stfl_worker.py

Their own classes and compiled functions on made-up data (obs 15, act 4, batch 256); the ensemble
update is the difference of 40 and 10 updates, so that validation does not count. Rollouts and the
host's copies between buffers, which their training pays too, are left out in STFL's favour.
"""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxrl.agents.mbpo.mbpo_learner import MBPOLearner
from jaxrl.datasets import Batch, InputNormalizationParams

OBS, ACT, ROWS, MEMBERS = 15, 4, 256, 7


def batch(*shape):
    rng = np.random.default_rng(0)
    return Batch(
        observations=jnp.asarray(rng.normal(size=(*shape, OBS)), jnp.float32),
        actions=jnp.asarray(rng.uniform(-1, 1, (*shape, ACT)), jnp.float32),
        rewards=jnp.asarray(rng.normal(size=shape), jnp.float32),
        masks=jnp.ones(shape),
        next_observations=jnp.asarray(rng.normal(size=(*shape, OBS)), jnp.float32),
    )


def median(call, rounds):
    for _ in range(2):
        jax.block_until_ready(call())
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def main() -> None:
    learner = MBPOLearner(
        0, jnp.zeros((1, OBS)), jnp.zeros((1, ACT)), lambda o, a, n: False, num_seeds=1
    )
    one = lambda size: jnp.ones((1, size))  # noqa: E731
    units = InputNormalizationParams(
        obs_mu=0 * one(OBS), obs_std=one(OBS), act_mu=0 * one(ACT), act_std=one(ACT)
    )
    sac = batch(1, 20, ROWS)
    seconds = {
        "sac_update": median(lambda: (learner.update(sac, 20), learner.actor.params)[1], 15) / 20
    }
    validation, taken = batch(1, 1_000, MEMBERS), {}
    for count in (10, 40):
        data = batch(1, count, ROWS, MEMBERS)

        def call(data=data, count=count):
            learner.update_ensemble(data, validation, units, count)
            return learner.ensemble.params

        taken[count] = median(call, 7)
    seconds["ensemble_update"] = (taken[40] - taken[10]) / 30
    step = 20 * sum(seconds.values())
    print(json.dumps({k: round(1e3 * v, 3) for k, v in seconds.items()}
                     | {"ms_per_step": round(1e3 * step, 1),
                        "steps_per_second": round(1 / step, 3)}))  # fmt: skip


if __name__ == "__main__":
    main()
