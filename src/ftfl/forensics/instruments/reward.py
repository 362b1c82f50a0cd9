"""Reward fidelity: what the model's reward is to the true one.

The critic of a model-based agent learns mostly from rewards that the model made up. Written as
r̂ = r̄ + b + ρ (r − r̄) + noise, the model's reward may keep only a share ρ of what the true one
varies, be shifted by b, and carry noise. A constant ρ > 0 alone changes no preference between
actions of a task that does not terminate, so a small ρ is a marker; harm comes from noise, from a
shift together with termination, and from ranking the actions of one state wrongly, which is what
the policy feels. Held-out rows tell what the model knows where the data are; the policy's own
actions, answered by the simulator, tell what it says where the policy goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftfl.config import DynamicsConfig
from ftfl.forensics.audit import Truth
from ftfl.forensics.comparisons import Affine, Ranking, affine, rank
from ftfl.forensics.evidence import Estimate, Finding, Numbers, mean_estimate
from ftfl.forensics.groundtruth import MINIMUM_STATES
from ftfl.forensics.learned import WorldModel, expected_reward
from ftfl.forensics.moments import unknown

UNEXPLAINED, SHRUNK, MISRANKED, SHIFTED = 0.5, 0.8, 0.5, 0.1
STEADY = 0.1
"""Share of its mean by which a reward may vary and still be the same at every step."""
MATTERS = 0.01
"""Share of the reward's variance that actions make; below, what follows later decides instead."""


@dataclass(frozen=True)
class RewardFidelity:
    """The result of `reward_fidelity`."""

    replay: Affine
    """Mean of the elites on stored actions."""
    replay_drawn: Affine
    """One elite's draw on stored actions: what the critic is given."""
    unseen: bool
    """Those rows were never trained on."""
    own: Affine | None
    """Mean of the elites on the policy's own actions, against the simulator."""
    ranking: Ranking | None
    penalty: Estimate | None
    """What the run's screen takes from a stored row's reward, mean; all else is before it. None
    where it takes nothing."""
    terminates: bool
    scale: str
    reward_model: str

    def numbers(self) -> Numbers:
        """By name."""
        return {
            "replay": self.replay.numbers(),
            "replay_drawn": self.replay_drawn.numbers(),
            "replay_rows_unseen": self.unseen,
            "own_actions": None if self.own is None else self.own.numbers(),
            "ranking": None if self.ranking is None else self.ranking.numbers(),
            "penalty_mean_reward": self.penalty,
        }

    def findings(self) -> list[Finding]:
        """What follows for the critic and for the policy."""
        if self.replay.std == 0:
            return [
                Finding(
                    "reward-constant", "info",
                    "The reward has not varied yet, so nothing can be said of the model's.",
                    {"true_std": 0.0}, "no variance in the true rewards", "",
                )
            ]  # fmt: skip
        return [*self._of_replay(), *self._of_own_actions(), *self._of_penalty()]

    def _of_replay(self) -> list[Finding]:
        found = []
        where = "rows it never saw" if self.unseen else "rows it was trained on"
        mean, drawn = self.replay, self.replay_drawn
        if drawn.r2.below(0):
            steady = self.terminates and mean.std < STEADY * abs(mean.mean)
            found.append(
                Finding(
                    "reward-worse-than-its-mean", "info" if steady else "failure",
                    f"Synthetic rewards are further from the true ones than their mean is: R² of a"
                    f" draw is {drawn.r2} on {where}"
                    + (f"; but rewards hardly vary ({mean.std:.2g} about {mean.mean:.3g}), and what"
                       " counts here is when an episode ends." if steady else "."),
                    {"r2_drawn": drawn.r2, "r2_mean": mean.r2, "noise": drawn.noise},
                    "R² of drawn rewards below 0: a constant would teach the critic more; an info"
                    f" where episodes terminate and the reward's std is below {STEADY} of its mean,"
                    " as on a solved InvertedPendulum",
                    self._advice(),
                )
            )  # fmt: skip
        elif mean.r2.below(UNEXPLAINED):
            found.append(
                Finding(
                    "reward-unexplained", "warning",
                    f"The model explains little of the reward: R² is {mean.r2} on {where}.",
                    {"r2": mean.r2, "slope": mean.slope},
                    "R² below 0.5: most of the variance is not explained; a convention, counted in"
                    " docs/taxonomy.md",
                    self._advice(),
                )
            )  # fmt: skip
        if mean.slope.below(SHRUNK):
            found.append(
                Finding(
                    "reward-shrunk", "info",
                    f"The model's reward varies with the true one by a factor of {mean.slope} only,"
                    " which makes the critic flat"
                    + ("; where episodes end it also changes whether ending pays."
                       if self.terminates else
                       "; alone it changes no preference between actions."),
                    {"slope": mean.slope},
                    "slope below 0.8: a marker; a constant positive slope keeps the optimal policy"
                    " of a task that does not terminate",
                    self._advice(),
                )
            )  # fmt: skip
        return found

    def _of_own_actions(self) -> list[Finding]:
        found = []
        own, ranking = self.own, self.ranking
        if own is not None and own.std > 0:
            high = own.shift.above(SHIFTED * own.std)
            if high or own.shift.below(-SHIFTED * own.std):
                found.append(
                    Finding(
                        "reward-shifted", "warning" if self.terminates else "info",
                        f"On the policy's own actions the model pays {own.shift} too"
                        f" {'much' if high else 'little'} (the true reward's std is"
                        f" {own.std:.3g})"
                        + ("; episodes end, so this changes whether ending pays."
                           if self.terminates else "."),
                        {"shift": own.shift, "shift_on_replay": self.replay.shift,
                         "true_std": own.std},
                        "|b| above 0.1 of the reward's std; a shift changes preferences only where"
                        " episodes terminate",
                        self._advice(),
                    )
                )  # fmt: skip
        if (
            ranking is not None
            and ranking.states >= MINIMUM_STATES
            and ranking.share > MATTERS
            and (ranking.regret.above(MISRANKED) or ranking.correlation.below(1 - MISRANKED))
        ):
            found.append(
                Finding(
                    "reward-misranked", "failure" if ranking.regret.above(MISRANKED) else "warning",
                    f"Asked which of {ranking.actions} actions pays best in one state, the model's"
                    f" favourite loses {ranking.regret} of what a random one loses (rank"
                    f" correlation {ranking.correlation}).",
                    {"regret_share": ranking.regret, "rank_correlation": ranking.correlation,
                     "variance_by_action_share": ranking.share},
                    "regret above half of chance (failure) or rank correlation below 0.5 (warning),"
                    f" in {MINIMUM_STATES} states or more, where actions make over 1 % of the"
                    " reward's variance: the policy follows the ranking of actions within a state;"
                    " a convention, seen in no run of docs/taxonomy.md",
                    self._advice(),
                )
            )  # fmt: skip
        return found

    def _of_penalty(self) -> list[Finding]:
        if self.penalty is None or not self.penalty.above(SHIFTED * self.replay.std):
            return []
        return [
            Finding(
                "reward-penalised",
                "warning" if self.penalty.above(self.replay.std) else "info",
                f"The screen takes {self.penalty} from a synthetic reward, where real ones have a"
                f" std of {self.replay.std:.3g}; all else said of rewards is before it.",
                {"penalty": self.penalty, "true_std": self.replay.std},
                "a mean penalty above 0.1 of the reward's std, by the whole interval: it is meant,"
                " and the critic learns from it; a warning above one std, where what the screen"
                " takes outweighs what rewards differ by (hits and false alarms: docs/taxonomy.md)",
                "--rollouts.screening.std-penalty (mopo) or --rollouts.screening.kl-penalty (m2ac)"
                " sets its size",
            )
        ]  # fmt: skip

    def _advice(self) -> str:
        if self.reward_model == "given":
            return (
                "the reward is computed from the predicted state: compare --target residual and"
                " direct (which channels: rollout error)"
            )
        if self.scale == "raw":
            return "--scale unit gives the reward a scale of its own"
        return (
            "--dynamics.reward-model separate gives the reward a network of its own,"
            " --dynamics.reward-draw mean takes the noise out of it, --dynamics.reward-model given"
            " uses the known function"
        )


def reward_fidelity(
    model: WorldModel,
    obs: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    episode: np.ndarray,
    unseen: bool,
    config: DynamicsConfig,
    truth: Truth | None = None,
    terminates: bool = False,
    seed: int = 0,
    stored: np.ndarray | None = None,
) -> RewardFidelity:
    """Compare modelled with true rewards, on stored rows and, with ``truth``, on own actions.

    Args:
        model: the run's model.
        obs, action, reward, episode: stored rows (N, …), rewards in the task's own unit.
        unseen: whether the model was never trained on these rows.
        config: for the advice.
        truth: the simulator's answers; None: only the stored rows are used.
        terminates: whether episodes end other than by the clock.
        seed: of draws and bootstraps.
        stored: which rows the screen lets into the synthetic replay, (N,): what it takes from the
            others nobody learns from. None: all.
    """
    generator = np.random.default_rng(seed)
    mean = expected_reward(model, obs, action, generator)
    noise = model.noise(generator, len(obs))
    told = model.imagine(obs, action, noise).reward
    drawn = told[np.arange(len(told)), generator.integers(0, model.elites, len(told))]
    own = ranking = None
    if truth is not None:
        own, ranking = _against_simulator(model, truth, generator, seed)
    return RewardFidelity(
        replay=affine(reward, mean, episode, seed),
        replay_drawn=affine(reward, drawn, episode, seed),
        unseen=unseen,
        own=own,
        ranking=ranking,
        penalty=_penalty(model, obs, action, episode, stored),
        terminates=terminates,
        scale=config.scale,
        reward_model=config.reward_model,
    )


def _penalty(
    model: WorldModel,
    obs: np.ndarray,
    action: np.ndarray,
    episode: np.ndarray,
    stored: np.ndarray | None,
) -> Estimate | None:
    if model.penalty is None:
        return None
    taken = model.penalty(obs, action)
    if stored is not None:
        if not stored.any():
            return unknown(float("nan"), 0, "the screen stores none of these rows")
        taken, episode = taken[stored], episode[stored]
    return mean_estimate(taken, episode)


def _against_simulator(
    model: WorldModel, truth: Truth, generator: np.random.Generator, seed: int
) -> tuple[Affine, Ranking]:
    answers = truth.answers
    count = len(answers[0].action)
    obs = np.repeat(np.stack([a.obs for a in answers]), count, axis=0)
    action = np.concatenate([a.action for a in answers])
    told = expected_reward(model, obs, action, generator).reshape(-1, count)
    true = np.stack([a.reward for a in answers])
    own = np.s_[:, : truth.own]
    labels = np.repeat(truth.episode, truth.own)
    return (
        affine(true[own].ravel(), told[own].ravel(), labels, seed),
        rank(list(true), list(told), truth.episode, seed),
    )
