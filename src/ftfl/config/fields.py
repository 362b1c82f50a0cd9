"""What a run is: frozen, validated dataclasses, every field with its meaning beside it.

Defaults are those of the field's usual backbone (STFL's MBPO and SAC, arXiv 2412.14312) with
per-member bootstrap data and per-member fan-in. Presets and profiles (``ftfl.presets``) are
changes to these defaults, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ftfl.config.checks import check, not_negative, positive, sane
from ftfl.config.rollouts import RolloutConfig

Target = Literal["residual", "direct", "innovation"]
Scale = Literal["raw", "unit"]
Precision = Literal["float32", "bf16"]

_REPLAY_BLOCK = 10_000


@dataclass(frozen=True)
class TaskConfig:
    """The environment, as the agent meets it."""

    name: str = "gym/Pendulum-v1"
    """dmc/DOMAIN-TASK, gym/ID or package.module:make_env (see `ftfl list tasks`)."""
    action_repeat: int = 1
    """Simulator steps one action is held for; rewards are summed. Steps everywhere are the
    agent's."""
    reward_unit: float = 1.0
    """The unit dial: the environment pays reward × this, and the agent divides by it again, so
    that only the dynamics model meets the other unit. Powers of two are exact."""
    step_limit_seconds: float | None = None
    """Run the environment in a process of its own, and count a step or reset that takes longer, or
    that kills the process, as a fault; none: in this process, where a hang or crash ends the run
    (what was saved stays)."""

    def __post_init__(self) -> None:
        sane(self, "task.")
        positive(self, "task.", "action_repeat", "reward_unit")
        if self.step_limit_seconds is not None:
            positive(self, "task.", "step_limit_seconds")


@dataclass(frozen=True)
class SacConfig:
    """Soft actor-critic (arXiv 1812.05905), in the form of docs/algorithms/sac.md."""

    hidden: tuple[int, ...] = (256, 256)
    """Hidden layer widths of the actor and of both critics."""
    batch_size: int = 256
    """Rows per update, real and synthetic together."""
    precision: Precision = "float32"
    """Operands of the matrix products inside updates (docs/speed.md); acting stays float32."""
    updates_per_step: int = 20
    """Gradient updates per environment step (UTD)."""
    actor_learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    temperature_learning_rate: float = 3e-4
    discount: float = 0.99
    target_update_rate: float = 0.005
    """Share of the critic that flows into its target network at each update (τ)."""
    initial_temperature: float = 1.0
    target_entropy: float | None = None
    """Entropy the temperature steers to, in nats; none: target_entropy_per_action × |A|."""
    target_entropy_per_action: float = -0.5
    log_std_min: float = -10.0
    log_std_max: float = 2.0
    log_std_map: Literal["tanh", "clip"] = "tanh"
    """How the actor's output becomes a log standard deviation: squashed into the bounds (STFL) or
    clipped at them (MBPO 2019)."""
    temperature_loss: Literal["alpha", "log_alpha"] = "alpha"
    """Gradient with respect to log α scaled by α (STFL) or not (MBPO 2019)."""
    critic_loss_weight: float = 1.0
    """Factor on the sum of the two squared errors (1: STFL, 0.5: MBPO 2019)."""
    critic_layer_norm: bool = False
    """Layer norm before each hidden activation of the critics; what high UTD needs."""
    reset_every_updates: int = 0
    """Re-initialise actor, critics, temperature and optimisers (fresh key, replay kept) after so
    many updates; 0: never (SR-SAC: 2,560,000)."""
    reward_scale: float = 1.0
    """The agent learns from reward × this."""
    exploration: Literal["sample", "mean", "pink"] = "sample"
    """What the agent plays while it learns: draws from its policy, the policy's mean (mbrl-lib), or
    draws whose noise is pink over time (MACURA, Infoprop). Rollouts always draw."""

    def __post_init__(self) -> None:
        p = "sac."
        sane(self, p)
        check(len(self.hidden) > 0 and min(self.hidden) > 0, p + "hidden", self.hidden,
               "needs at least one layer of width 1 or more")  # fmt: skip
        positive(self, p, "batch_size", "updates_per_step", "actor_learning_rate",
                  "critic_learning_rate", "temperature_learning_rate", "initial_temperature",
                  "critic_loss_weight", "reward_scale")  # fmt: skip
        not_negative(self, p, "reset_every_updates")
        check(0 <= self.discount < 1, p + "discount", self.discount,
               "must be at least 0 and below 1")  # fmt: skip
        check(0 < self.target_update_rate <= 1, p + "target_update_rate",
               self.target_update_rate, "must be above 0 and at most 1")  # fmt: skip
        check(self.log_std_min < self.log_std_max, p + "log_std_min", self.log_std_min,
               f"must be below log_std_max = {self.log_std_max}")  # fmt: skip


@dataclass(frozen=True)
class DynamicsConfig:
    """The ensemble of probabilistic networks: target cell, doors, network, training."""

    target: Target = "residual"
    """What is regressed besides the reward: next_obs − obs (MBPO), next_obs itself (FTFL), or
    next_obs − κ obs, each channel with its own κ (ours): the residual where a channel is slow, the
    next state where it is noise."""
    scale: Scale = "raw"
    """Targets as they are (MBPO), or each dimension standardised by itself (Target Unit
    Normalization, FTFL)."""
    holdout_score: Literal["trained", "raw", "unit", "nll"] = "trained"
    """What ranks members and stops training: squared error in the units the network is trained in
    (raw with scale raw, standardised with scale unit), or one of them fixed, or the likelihood."""
    holdout: Literal["persistent", "per_refit", "redrawn"] = "persistent"
    """Held-out rows stay held out for the whole run, or are drawn anew at every refit (MBPO 2019),
    or at every check within one (STFL); only the first is never trained on."""
    reward_model: Literal["joint", "separate", "given"] = "joint"
    """Reward as one more output of the joint network, by a second ensemble of its own, or by the
    task's known reward function."""
    reward_draw: Literal["sample", "mean"] = "sample"
    """Synthetic rewards drawn from the predicted Gaussian, or its mean."""
    logvar_min: float = -10.0
    """Lower soft bound on log-variance, in the units the network is trained in."""
    logvar_max: float = 0.5
    logvar_start: float | None = None
    """Log-variance of every output at initialisation; none: what a zero output maps to (−0.47)."""
    logvar_learned: bool = False
    """Learn both bounds, with logvar_penalty × (Σ max − Σ min) in the loss (MBPO 2019)."""
    logvar_penalty: float = 0.01
    logvar_floor: Literal["target", "change"] = "target"
    """What the lower bound is measured against: the target's scale, or where smaller the scale of
    the channel's one-step change, so that a slow channel is not drowned in sampled noise."""
    nll_beta: float = 0.0
    """Weight of each row and output in the loss: predicted variance to this power, without
    gradient. 0 is the likelihood, which gives up on rare targets by calling them noise; 0.5 lets
    them be learned (β-NLL, Seitzer et al. 2022, arXiv 2203.09168); 1 fits means as squared error
    does."""
    members: int = 7
    elites: int = 5
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    """L2 factor per layer, in the loss: ½ λ ‖W‖²; biases are free."""
    init: Literal["per_member", "stacked", "truncated"] = "per_member"
    """Kernel init: LeCun normal with each member's own fan-in; STFL's, whose fan-in counts the
    member axis too (√E too small); or truncated normal of std 1/(2√fan_in) (MBPO 2019)."""
    member_data: Literal["bootstrap", "shared"] = "bootstrap"
    """Each member trains on its own resample, or all on identical minibatches (STFL)."""
    learning_rate: float = 3e-4
    batch_size: int = 256
    """Rows per member and update."""
    precision: Precision = "float32"
    """Operands of the matrix products inside updates (docs/speed.md); predictions stay float32."""
    train_every: int = 250
    """Environment steps between refits."""
    max_updates: int = 5_000
    """Updates per refit at most."""
    early_stopping: bool = False
    """Stop a refit when no member's holdout score has improved for `patience` checks."""
    patience: int = 5
    min_improvement: float = 0.01
    """Relative improvement of the holdout score that counts."""
    check_every: int = 200
    """Updates between holdout checks; 0: one epoch over the training rows."""
    best_weights: bool = False
    """Each member ends a refit with its own best weights by holdout score."""
    holdout_every: int = 5
    """One stored row in so many is held out."""
    holdout_rows: int = 5_000
    """Held-out rows looked at in a check, at most."""
    scale_floor: float = 1e-6
    """A dimension whose std is below this share of its root mean square counts as constant."""
    scale_epsilon: float = 0.0
    """Added to every std (STFL: 1e-6). Not zero breaks unit invariance."""
    carry_statistics: bool = True
    """When statistics move at a refit, rewrite first and last layers so that predictions do not."""

    def __post_init__(self) -> None:
        p = "dynamics."
        sane(self, p)
        positive(self, p, "members", "elites", "learning_rate", "batch_size", "train_every",
                  "max_updates", "patience", "holdout_rows")  # fmt: skip
        not_negative(self, p, "check_every", "min_improvement", "scale_floor", "scale_epsilon",
                      "logvar_penalty")  # fmt: skip
        check(0.0 <= self.nll_beta <= 1.0, p + "nll_beta", self.nll_beta,
               "must lie between 0 (likelihood) and 1 (squared error)")  # fmt: skip
        check(self.elites <= self.members, p + "elites", self.elites,
               f"must be at most members = {self.members}")  # fmt: skip
        check(len(self.hidden) > 0 and min(self.hidden) > 0, p + "hidden", self.hidden,
               "needs at least one layer of width 1 or more")  # fmt: skip
        check(len(self.weight_decay) == len(self.hidden) + 1 and min(self.weight_decay) >= 0,
               p + "weight_decay", self.weight_decay,
               f"needs one factor of 0 or more per layer, here {len(self.hidden) + 1}"
               " (hidden layers and the output)")  # fmt: skip
        check(self.holdout_every >= 2, p + "holdout_every", self.holdout_every,
               "must be 2 or more (5 holds out 20 %)")  # fmt: skip
        check(self.logvar_min < self.logvar_max, p + "logvar_min", self.logvar_min,
               f"must be below logvar_max = {self.logvar_max}")  # fmt: skip
        if self.logvar_start is not None:
            low, high = self.logvar_min, self.logvar_max
            check(low < self.logvar_start < high, p + "logvar_start", self.logvar_start,
                   f"must lie between {low} and {high}")  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that decides a run, apart from versions and hardware."""

    algo: str = "mbpo"
    """The preset this configuration started from; a label."""
    profile: str = "paper"
    """The compute profile it started from; a label."""
    task: TaskConfig = field(default_factory=TaskConfig)
    seed: int = 0
    steps: int = 100_000
    """Agent steps in all, warm-up included."""
    warmup_steps: int = 10_000
    """Steps with uniformly random actions before learning starts."""
    replay_rows: int = 1_000_000
    """Real transitions kept."""
    init_replay: str | None = None
    """File of logged transitions to start from (see docs/logged-data.md)."""
    update_between_episodes: bool = False
    """Learn only while the environment rests, for machines that cannot wait; the number of updates
    stays the same."""
    eval_every: int = 1_000
    eval_episodes: int = 5
    log_every: int = 250
    checkpoint_every: int = 10_000
    faults_allowed: int = 10
    """Environment faults tolerated within 10,000 steps. Each drops its transition and starts a new
    episode; one more stops the run."""
    on_divergence: Literal["stop", "roll_back", "continue"] = "stop"
    """When a loss or a parameter is no longer finite: stop, go back to the last good checkpoint
    with fresh randomness, or go on for as long as the policy's actions are finite."""
    on_full_disk: Literal["continue", "stop"] = "continue"
    """When a checkpoint cannot be written: train on and try again at the next one, or stop."""
    sac: SacConfig = field(default_factory=SacConfig)
    dynamics: DynamicsConfig | None = field(default_factory=DynamicsConfig)
    rollouts: RolloutConfig | None = field(default_factory=RolloutConfig)

    def __post_init__(self) -> None:
        positive(self, "", "steps", "replay_rows", "eval_every", "eval_episodes", "log_every",
                  "checkpoint_every")  # fmt: skip
        not_negative(self, "", "seed", "warmup_steps", "faults_allowed")
        sane(self, "")
        check(self.seed < 2**32, "seed", self.seed, "must be below 2³²")
        check((self.dynamics is None) == (self.rollouts is None), "rollouts", self.rollouts,
               "a dynamics model and rollouts come together or not at all")  # fmt: skip
        if self.rollouts is not None and self.rollouts.updates == "stored":
            check(self.sac.reset_every_updates == 0, "sac.reset_every_updates",
                   self.sac.reset_every_updates,
                   "must be 0 when rollouts.updates=stored sets the number of updates")  # fmt: skip
        if self.dynamics is not None:
            least = 2 * self.dynamics.holdout_every
            check(self.replay_rows >= least, "replay_rows", self.replay_rows,
                   f"a dynamics model needs at least {least} transitions to train on")  # fmt: skip
            check(self.warmup_steps >= least or self.init_replay is not None, "warmup_steps",
                   self.warmup_steps,
                   f"a dynamics model needs at least {least} transitions to train on"
                   " (or --init-replay)")  # fmt: skip

    def real_rows(self, logged_rows: int = 0) -> int:
        """Rows the real replay has room for: no more than the run fills, in whole blocks.

        In blocks, because its size is part of every compiled program: runs that differ in
        ``steps`` share them.
        """
        wanted = -(-(self.steps + logged_rows) // _REPLAY_BLOCK) * _REPLAY_BLOCK
        return min(self.replay_rows, wanted)

    @property
    def agent_reward_scale(self) -> float:
        """What the agent multiplies stored rewards by: its own scale, and the dial turned back."""
        return self.sac.reward_scale / self.task.reward_unit
