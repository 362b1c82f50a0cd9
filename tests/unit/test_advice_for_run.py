"""Advice is read beside the run it is given for."""

from __future__ import annotations

import pytest

from ftfl import presets
from ftfl.forensics.advice import for_run


def config(**changes):
    return presets.build("gym/Pendulum-v1", "mbpo", "probe", changes)


@pytest.mark.parametrize(
    ("changes", "advice", "read"),
    [
        ({}, "--scale unit mends it", "--scale unit mends it"),
        ({"dynamics.scale": "unit"}, "--scale unit mends it",
         "--scale unit (this run has it) mends it"),
        ({"dynamics.reward_model": "separate"}, "or --dynamics.reward-model separate.",
         "or --dynamics.reward-model separate (this run has it)."),
        ({"rollouts.real_ratio": 0.5}, "--rollouts.real-ratio 0.5, or sac",
         "--rollouts.real-ratio 0.5 (this run has it), or sac"),
        ({}, "--rollouts.real-ratio 0.5, or sac", "--rollouts.real-ratio 0.5, or sac"),
        ({"sac.critic_layer_norm": True}, "--sac.critic-layer-norm in the critics",
         "--sac.critic-layer-norm (this run has it) in the critics"),
        ({}, "--sac.critic-layer-norm in the critics", "--sac.critic-layer-norm in the critics"),
        ({"sac.updates_per_step": 7}, "fewer --sac.updates-per-step",
         "fewer --sac.updates-per-step (now 7)"),
        ({}, "--algo sac and --policy RUN_DIR", "--algo sac and --policy RUN_DIR"),
    ],
)  # fmt: skip
def test_what_the_run_has_already_is_remarked(changes, advice, read):
    assert for_run(advice, config(**changes), reward_known=True) == read


def test_a_known_reward_is_advised_only_where_there_is_one():
    advice = "--dynamics.reward-model given uses the known function"
    assert for_run(advice, config(), True) == advice
    assert "no reward function) uses" in for_run(advice, config(), False)


def test_a_run_without_a_model_has_none_of_its_options():
    sac = presets.build("gym/Pendulum-v1", "sac", "probe")
    assert for_run("--scale unit", sac, True) == "--scale unit"
