"""Configurations: JSON round trip, and every one is either refused in a sentence or builds."""

import dataclasses
import json
import math

import jax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ftfl import config as cfg
from ftfl import presets
from ftfl.errors import FtflError
from ftfl.training import state as run_state
from helpers import spec

pytestmark = pytest.mark.usefixtures("quick_compiles")
many = settings(max_examples=150, deadline=None)
ALGOS = st.sampled_from(sorted(presets.PRESETS))
PROFILES = st.sampled_from(sorted(presets.PROFILES))
NAMES = sorted(cfg.flatten(cfg.Config()))

sizes = st.lists(st.integers(-1, 8), max_size=3)
values = st.one_of(
    st.integers(-2, 12),
    st.floats(-3, 3, allow_nan=False),
    st.sampled_from([0.0, 1.0, 1e-4, 1e9]),
    st.booleans(),
    st.none(),
    sizes,
    st.sampled_from(["residual", "direct", "raw", "unit", "nll", "joint", "given", "", "tanh"]),
)


@given(algo=ALGOS, profile=PROFILES, task=st.sampled_from(["gym/Hopper-v5", "dmc/hopper-hop"]))
@settings(deadline=None)
def test_presets_survive_json(algo, profile, task):
    config = presets.build(task, algo, profile)
    again = cfg.from_dict(json.loads(json.dumps(cfg.to_dict(config))))
    assert again == config
    assert cfg.content_hash(again) == cfg.content_hash(config)
    assert not cfg.difference(again, config)


@many
@given(algo=ALGOS, profile=PROFILES, changes=st.dictionaries(st.sampled_from(NAMES), values,
                                                             min_size=1, max_size=3))  # fmt: skip
def test_a_config_is_refused_in_one_sentence_or_round_trips(algo, profile, changes):
    try:
        config = presets.build("gym/Pendulum-v1", algo, profile, changes)
    except FtflError as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert "\n" not in refusal
        assert len(refusal) > 20
        return
    again = cfg.from_dict(json.loads(json.dumps(cfg.to_dict(config))))
    assert again == config
    assert hash(again) == hash(config)
    for name, value in cfg.flatten(config).items():
        assert not isinstance(value, list), f"{name} is a mutable list"
        if isinstance(value, float):
            assert math.isfinite(value), name


@settings(max_examples=20, deadline=None)
@given(algo=ALGOS, reward_model=st.sampled_from(["joint", "separate", "given"]),
       init=st.sampled_from(["per_member", "stacked", "truncated"]),
       hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3), learned=st.booleans(),
       obs_dim=st.integers(1, 9), act_dim=st.integers(1, 3))  # fmt: skip
def test_an_accepted_config_gives_a_state(
    algo, reward_model, init, hidden, learned, obs_dim, act_dim
):
    changes = {"sac.hidden": hidden, "steps": 50}
    if presets.PRESETS[algo].changes.get("dynamics", "") is not None:
        changes |= {
            "dynamics.reward_model": reward_model, "dynamics.init": init,
            "dynamics.hidden": hidden, "dynamics.weight_decay": [1e-5] * (len(hidden) + 1),
            "dynamics.logvar_learned": learned,
        }  # fmt: skip
    config = presets.build("gym/Pendulum-v1", algo, "laptop", changes)
    # A screen that counts in stds of the reward needs a reward the model has learned.
    counts = config.rollouts is not None and config.rollouts.screening.units == "unit"
    assume(not (counts and reward_model == "given"))
    shapes = jax.eval_shape(lambda: run_state.init(config, spec(obs_dim, act_dim)))
    assert shapes.real.rows.obs.shape == (config.real_rows(), obs_dim)
    if config.dynamics is not None:
        outputs = obs_dim + (reward_model != "given")
        assert shapes.dynamics.ensemble.logvar_min.shape == (outputs,)
        heads = [trunk.layers[-1].bias.shape for trunk in shapes.dynamics.ensemble.trunks]
        assert sum(h[1] for h in heads) == 2 * outputs
        assert {h[0] for h in heads} == {config.dynamics.members}


@pytest.mark.parametrize("name", ["sac.target_entropi", "dynamics.scal", "rollout.length", "stepz"])
def test_unknown_names_are_refused_with_a_near_miss(name):
    with pytest.raises(FtflError, match="did you mean"):
        presets.build("gym/Pendulum-v1", "mbpo", "laptop", {name: 1})


def test_from_dict_needs_no_field_and_takes_no_unknown_one():
    assert cfg.from_dict({}) == cfg.Config()
    with pytest.raises(FtflError, match="steps"):
        cfg.from_dict({"stepss": 3})


def test_every_field_of_every_group_has_a_value_in_flatten():
    flat = cfg.flatten(cfg.Config())
    groups = {"sac": cfg.SacConfig, "dynamics": cfg.DynamicsConfig, "rollouts": cfg.RolloutConfig,
              "rollouts.screening": cfg.ScreenConfig}  # fmt: skip
    for prefix, group in groups.items():
        for field in dataclasses.fields(group):
            name = f"{prefix}.{field.name}"
            assert name in flat or name in groups


@pytest.mark.parametrize(
    "changes",
    [
        {"rollouts.length": [1, 2, 3]},
        {"sac.target_entropy": math.inf},
        {"sac.target_entropy_per_action": math.nan},
        {"sac.log_std_min": -math.inf},
        {"dynamics.logvar_min": -math.inf},
        {"dynamics.weight_decay": [1e-5, math.nan, 0, 0, 0]},
        # A batch of branches larger than the synthetic ring writes one slot twice.
        {"rollouts.every": 30, "rollouts.retention_steps": 20},
        {"rollouts.capacity_share": 0.5, "rollouts.retention_steps": 1},
        {"rollouts.capacity_share": 1.5},
        {"rollouts.screening.threshold_percentile": 101.0},
        {"rollouts.screening.kl_penalty": -1.0},
        {"rollouts.screening.quantum": 0.0},
        {"rollouts.screening.step_quantile": math.nan},
        # How many updates there are decides when to reset, and data decide how many there are.
        {"rollouts.updates": "stored", "sac.reset_every_updates": 100},
        # No full block of rows: nothing to hold out, and statistics of nothing.
        {"replay_rows": 8},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_impossible_values_are_refused(changes):
    with pytest.raises(FtflError):
        presets.build("gym/Pendulum-v1", "mbpo", "laptop", changes)
