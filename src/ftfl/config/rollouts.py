"""Synthetic branches and their screens: fields of ``rollouts`` and ``rollouts.screening``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ftfl.config.checks import check, not_negative, positive, sane

ROWS_AT_ONCE = 4_000
"""Bounds the memory of one forward pass of the ensemble."""


@dataclass(frozen=True)
class ScreenConfig:
    """Constants of the built-in screens; each screen reads its own and leaves the others alone."""

    units: Literal["raw", "unit"] = "raw"
    """Units of a screen's measure where it depends on them, and of its penalty: those of the
    environment, as published, or the standard deviations of each channel and of the reward over the
    model's training rows, so that no choice of units matters. Never follows dynamics.scale."""
    kl_penalty: float = 1e-3
    """m2ac: what one nat of disagreement costs, in rewards."""
    std_penalty: float = 1.0
    """mopo: what the norm of the predicted standard deviations costs per unit, in rewards."""
    threshold_percentile: float = 95.0
    """macura: percentile ζ of the first step's disagreement that the threshold starts from."""
    threshold_factor: float = 2.0
    """macura: factor ξ on that percentile; published from 0.3 (Walker2d) to 30 (Hopper)."""
    quantum: float = 1e-6
    """infoprop: size δ of one step of the quantisation that information is counted against."""
    step_quantile: float = 0.9999
    """infoprop: quantile of the information lost on replayed transitions that one step may lose."""
    path_quantile: float = 0.01
    """infoprop: quantile of it that, times the longest branch, a whole branch may lose."""
    calibration_rows: int = 10_000
    """infoprop: replayed transitions both limits are taken from, after each refit."""

    def __post_init__(self) -> None:
        p = "rollouts.screening."
        sane(self, p)
        not_negative(self, p, "kl_penalty", "std_penalty")
        positive(self, p, "threshold_factor", "quantum", "calibration_rows")
        check(0 <= self.threshold_percentile <= 100, p + "threshold_percentile",
              self.threshold_percentile, "must lie between 0 and 100")  # fmt: skip
        for name in ("step_quantile", "path_quantile"):
            check(0 <= getattr(self, name) <= 1, p + name, getattr(self, name),
                  "must lie between 0 and 1")  # fmt: skip


@dataclass(frozen=True)
class RolloutConfig:
    """Synthetic branches from real states, and what is kept of them."""

    length: tuple[int, int, int, int] = (0, 1, 1, 1)
    """(first step, last step, length before, length after): steps of a branch, linear in between,
    truncated to a whole number."""
    per_step: int = 400
    """Branches started per environment step."""
    every: int = 1
    """Environment steps between batches of branches (each then starts per_step × every)."""
    retention_steps: int = 2_500
    """Synthetic rows older than this many environment steps are dropped."""
    retention: Literal["rows", "age"] = "rows"
    """How age is known: by counting rows (this × per_step × length of them are the newest, MBPO
    2019), or by the batch that made them; where a screen or a termination keeps rows out, the
    first lets the others live longer."""
    capacity_share: float = 1.0
    """Room in the synthetic replay, as a share of retention_steps × per_step × longest branch; what
    a screen keeps out needs none."""
    real_ratio: float = 0.05
    """Share of real rows among those the agent learns from."""
    real_draw: Literal["share", "coin"] = "share"
    """Exactly batch − ⌊batch × (1 − ratio)⌋ real rows in every update batch, or all of them real
    with that probability and all synthetic otherwise."""
    updates: Literal["fixed", "stored"] = "fixed"
    """Agent updates per environment step: sac.updates_per_step, or ⌊2 × that × the filled share of
    the synthetic replay⌋, so that little data makes few (MACURA)."""
    value_steps: int = 0
    """Steps of the model that critic targets look ahead before they bootstrap, from every row of
    an update batch; 0: none."""
    screen: str = "keep-all"
    """The rule that filters, penalises or rejects synthetic transitions: a built-in name, or your
    own as package.module:function (see docs/your-own-screen.md)."""
    screening: ScreenConfig = field(default_factory=ScreenConfig)
    """Constants of the built-in screens."""

    def __post_init__(self) -> None:
        p = "rollouts."
        sane(self, p)
        positive(self, p, "per_step", "every", "retention_steps", "capacity_share")
        not_negative(self, p, "value_steps")
        first, last, before, after = self.length
        check(0 <= first < last and min(before, after) >= 1, p + "length", self.length,
               "must be (first step, last step, length before, length after) with"
               " 0 ≤ first < last and lengths of 1 or more")  # fmt: skip
        check(self.retention_steps >= self.every, p + "retention_steps", self.retention_steps,
               f"must be at least every = {self.every}, or one batch would not fit")  # fmt: skip
        check(0 <= self.real_ratio <= 1, p + "real_ratio", self.real_ratio,
               "must lie between 0 and 1")  # fmt: skip
        check(self.capacity_share <= 1, p + "capacity_share", self.capacity_share,
              "must be above 0 and at most 1")  # fmt: skip
        # One chunk must fit into the ring (replay.insert).
        check(self.capacity_rows >= self.chunks[1], p + "capacity_share", self.capacity_share,
              f"must leave room for {self.chunks[1]} rows")  # fmt: skip

    @property
    def max_length(self) -> int:
        """The longest branch the schedule asks for."""
        return max(self.length[2:])

    @property
    def retained_rows(self) -> int:
        """Rows of ``retention_steps`` steps if every branch runs to its end and all is stored."""
        return self.retention_steps * self.per_step * self.max_length

    @property
    def capacity_rows(self) -> int:
        """Rows the synthetic replay has room for."""
        return math.ceil(self.retained_rows * self.capacity_share)

    @property
    def chunks(self) -> tuple[int, int]:
        """A batch of branches is run in so many chunks of so many rows."""
        total = self.per_step * self.every
        count = -(-total // ROWS_AT_ONCE)
        return count, -(-total // count)
