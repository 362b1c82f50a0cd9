"""Figures of what the critic learned: its error and where that comes from, and its own health."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ftfl.forensics.evidence import Estimate
from ftfl.forensics.instruments.critic import CriticAccount
from ftfl.forensics.instruments.health import CriticHealth
from ftfl.report.instruments.dots import Axis, Dot, dots
from ftfl.report.parts import Figure

_PARTS = {
    "critic_fit": "of it: critic fit",
    "reward_model": "of it: reward model",
    "penalty": "of it: penalty",
    "next_state_model": "of it: next state",
}


def account(results: Mapping[str, CriticAccount]) -> Figure:
    """The critic's error and its parts, from `critic_account`."""
    return dots(
        "How wrong the critic is, and through what",
        {run: dict(_account(result)) for run, result in results.items()},
        Axis("value − truth (reward)", marks=(0.0,)),
        "Mean over real states of the critic's value minus what the simulator then paid. The parts"
        " add up to the error exactly; those of opposite sign cancel. “Spread of truth” is how much"
        " states truly differ (one standard deviation): an error beyond it is large. Right of 0 the"
        " critic is too high.",
    )


def _account(result: CriticAccount) -> Iterator[tuple[str, Dot]]:
    smaller = result.twins["smaller"]
    yield "error of the critic", smaller.bias
    if len(smaller.parts) > 1:
        for name, words in _PARTS.items():
            if name in smaller.parts:
                yield words, smaller.parts[name]
    yield "spread of truth", smaller.spread


def slopes(results: Mapping[str, CriticAccount]) -> Figure:
    """Whether the critic's slope points where it pays, from `critic_account`."""
    return dots(
        "Does the critic point where it pays?",
        {run: dict(_slopes(result)) for run, result in results.items()},
        Axis("1: as the truth, 0: unrelated", marks=(0.0, 1.0), frame=(-0.5, 1.5)),
        "Direction: cosine between the critic's slope in the action and the true one by finite"
        " differences of the simulator. Reliability: agreement of two independent true slopes;"
        " where that is near 0 the direction above it says nothing. Order of states: correlation of"
        " values with true returns.",
    )


def _slopes(result: CriticAccount) -> Iterator[tuple[str, Dot]]:
    for steps, slope in result.slopes.items():
        yield f"direction, {steps} step{'s' * (steps > 1)}", slope.cosine
        yield f"reliability, {steps} step{'s' * (steps > 1)}", slope.reliability
    yield "order of states", result.twins["smaller"].correlation


def health(results: Mapping[str, CriticHealth]) -> Figure:
    """The trained critics over fresh ones, from `critic_health`."""
    return dots(
        "The critic beside a fresh one",
        {run: dict(_health(result)) for run, result in results.items()},
        Axis("times that of a fresh critic", marks=(1.0,), log=True),
        "Effective rank of the last features, units that still fire, and size of the weights by"
        " layer, each divided by what a fresh critic of the same shape has on the same rows (1,"
        " dashed); the last row is the largest value over the largest possible one: right of 1 it"
        " is impossible.",
        "Bars: from one of the two critics to the other (n = 2).",
    )


def _health(result: CriticHealth) -> Iterator[tuple[str, Dot]]:
    yield "rank of features", _pair(result.rank / result.rank_fresh)
    firing = (1 - result.dormant) / np.maximum(1 - result.dormant_fresh, 1e-9)
    for layer in range(firing.shape[1]):
        yield f"units firing, layer {layer + 1}", _pair(firing[:, layer])
    for layer in range(result.weight_growth.shape[1]):
        yield f"weights, layer {layer + 1}", _pair(result.weight_growth[:, layer])
    yield "|Q| ÷ possible", result.q_over_bound


def _pair(values: np.ndarray) -> Estimate:
    """Both critics: no interval, but all there is."""
    return Estimate(
        float(values.mean()), float(values.min()), float(values.max()), len(values), "both critics"
    )
