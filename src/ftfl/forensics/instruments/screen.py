"""What the screen sees: whether a screen's uncertainty knows where the model is wrong.

Methods that filter, penalise or reject synthetic rows trust one number of each row. Here that
number is set beside what really happened: rows are ordered by it and by their true error, and the
rows the screen would store are compared with all. Uncertainty of the next state says nothing of a
reward head that has collapsed with all members alike; then rows are screened, and their rewards are
as wrong as before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftfl.errors import FtflError
from ftfl.forensics.comparisons import ranks
from ftfl.forensics.evidence import Estimate, Finding, Numbers, bootstrap_means, mean_estimate
from ftfl.forensics.judging import Judged

UNEXPLAINED, UNSEEN = 0.5, 0.1


@dataclass(frozen=True)
class ScreenSight:
    """The result of `screen_sight`."""

    screen: str
    stored: Estimate
    """Share of rows that the screen stores, of first steps of branches."""
    sees_reward: Estimate | None
    """Spearman's rank correlation of the screen's measure with the reward's absolute error; None
    where one of the two does not vary, or the screen does not tell its measure."""
    sees_state: Estimate | None
    """The same for the next state's error."""
    reward_r2: Estimate | None
    """Of drawn rewards of all rows, before any penalty; None if true rewards do not vary."""
    reward_r2_stored: Estimate | None
    """The same of stored rows alone, over the variance in all rows; None if none is stored."""
    state_error_stored: Estimate | None
    """Mean squared error of stored rows' next states over that of all rows: below 1 the screen
    keeps the better ones. None if none is stored."""
    unseen: bool
    """The model never trained on these rows."""
    left_out: int
    """Rows that were not finite."""
    scale: str

    def numbers(self) -> Numbers:
        """By name."""
        return {
            "screen": self.screen,
            "stored_share": self.stored,
            "order_with_reward_error": self.sees_reward,
            "order_with_state_error": self.sees_state,
            "reward_r2_all": self.reward_r2,
            "reward_r2_stored": self.reward_r2_stored,
            "state_error_stored_share": self.state_error_stored,
            "replay_rows_unseen": self.unseen,
            "rows_left_out_count": self.left_out,
        }

    def findings(self) -> list[Finding]:
        """Whether the screen is of use against a reward that is wrong."""
        advice = (
            "no screen repairs a model: --scale unit gives the reward a scale of its own"
            if self.scale == "raw"
            else "no screen repairs a model: --dynamics.reward-model separate gives the reward a"
            " network of its own"
        )
        found = []
        stored, every = self.reward_r2_stored, self.reward_r2
        if stored is not None and stored.below(0):
            found.append(
                Finding(
                    "screen-lets-worthless-rewards-through", "failure",
                    f"The rewards of rows that {self.screen} stores are further from the true ones"
                    f" than their mean is: R² {stored}.",
                    {"r2_stored": stored, "r2_all": every or 0.0, "stored_share": self.stored},
                    "R² of stored rows' rewards below 0, over the variance in all rows: the critic"
                    " would learn more from a constant, in spite of the screen",
                    advice,
                )
            )  # fmt: skip
        if (
            every is not None
            and every.below(UNEXPLAINED)
            and self.sees_reward is not None
            and self.sees_reward.below(UNSEEN)
        ):
            found.append(
                Finding(
                    "screen-blind-to-reward", "warning",
                    f"The reward is wrong (R² {every}), and {self.screen} does not see where: its"
                    f" measure and the error have a rank correlation of {self.sees_reward}.",
                    {"order_with_reward_error": self.sees_reward, "r2_all": every},
                    f"R² below {UNEXPLAINED} and rank correlation below {UNSEEN}, each by its whole"
                    " interval; a convention, counted in docs/taxonomy.md",
                    advice,
                )
            )  # fmt: skip
        return found


def screen_sight(
    judged: Judged,
    reward: np.ndarray,
    next_obs: np.ndarray,
    spread: np.ndarray,
    episode: np.ndarray,
    unseen: bool,
    screen: str,
    scale: str,
    seed: int = 0,
) -> ScreenSight:
    """Compare what a screen made of imagined steps with what really happened.

    Args:
        judged: the screen's answers for N rows.
        reward: (N,), true, in the task's own unit.
        next_obs: (N, O), true.
        spread: (O,), std of each channel over the data; a state's error is the mean square over
            channels in this unit, without those that never vary.
        episode: (N,)
        unseen: whether the model was never trained on these rows.
        screen, scale: names, for sentences and advice.
        seed: of the bootstraps.

    Raises:
        FtflError: no row is finite.
    """
    moving = spread > 0
    with np.errstate(over="ignore", invalid="ignore"):
        off = (judged.next_obs[:, moving] - next_obs[:, moving]) / spread[moving]
        state = np.mean(off.astype(np.float64) ** 2, axis=1) if moving.any() else 0 * reward
        wrong = judged.reward - reward
        usable = np.isfinite(state) & np.isfinite(wrong) & np.isfinite(wrong**2)
    measure = judged.uncertainty
    if measure is not None:
        usable &= np.isfinite(measure)
    if not usable.any():
        raise FtflError(f"none of {len(reward)} imagined rows is finite.")
    labels, stored = episode[usable], judged.stored[usable].astype(np.float64)
    state, wrong, reward = state[usable], wrong[usable], np.asarray(reward)[usable]
    variance = float(reward.var())

    def order(error: np.ndarray) -> Estimate | None:
        if measure is None or np.ptp(error) == 0 or np.ptp(measure[usable]) == 0:
            return None
        a, b = (x - x.mean() for x in (ranks(measure[usable]), ranks(error)))
        terms = np.stack([a, b, a * a, b * b, a * b], axis=1)

        def pearson(m: np.ndarray) -> np.ndarray:
            va, vb = m[:, 2] - m[:, 0] ** 2, m[:, 3] - m[:, 1] ** 2
            return ((m[:, 4] - m[:, 0] * m[:, 1]) / np.sqrt(va * vb))[:, None]

        return bootstrap_means(terms, pearson, seed, labels)[0]

    def ratio(above: np.ndarray, below: np.ndarray) -> Estimate | None:
        """Mean of ``above`` over stored rows, over the mean of ``below`` over all."""
        if not stored.any() or not below.any():
            return None
        terms = np.stack([stored, stored * above, below], axis=1)
        return bootstrap_means(
            terms, lambda m: (m[:, 1] / m[:, 0] / m[:, 2])[:, None], seed, labels
        )[0]

    # The variance is the sample's own: of few episodes, resamples without the rare rewards would
    # say little of the screen.
    missed = None if variance == 0 else mean_estimate(1 - wrong**2 / variance, labels)
    kept = None if variance == 0 else ratio(wrong**2, np.full_like(reward, variance))
    return ScreenSight(
        screen=screen,
        stored=mean_estimate(stored, labels),
        sees_reward=order(np.abs(wrong)),
        sees_state=order(state),
        reward_r2=missed,
        reward_r2_stored=None if kept is None else _one_minus(kept),
        state_error_stored=ratio(state, state),
        unseen=unseen,
        left_out=int((~usable).sum()),
        scale=scale,
    )


def _one_minus(e: Estimate) -> Estimate:
    return Estimate(1 - e.value, 1 - e.high, 1 - e.low, e.n, e.method)
