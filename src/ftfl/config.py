"""What a run is: frozen, validated dataclasses with a JSON round trip and a content hash.

Defaults are those of the field's usual backbone (STFL's MBPO and SAC, arXiv 2412.14312) with
per-member bootstrap data and per-member fan-in. Presets and profiles (``ftfl.presets``) are
changes to these defaults, nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ftfl.errors import FtflError, unknown

Target = Literal["residual", "direct"]
Scale = Literal["raw", "unit"]


def _check(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise FtflError(f"{name} was given as {value!r}, but {allowed}.")


def _positive(owner: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _check(value > 0 and math.isfinite(value), prefix + name, value, "must be above 0")


def _not_negative(owner: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _check(value >= 0 and math.isfinite(value), prefix + name, value, "must be 0 or more")


def _sane(owner: object, prefix: str) -> None:
    for f in dataclasses.fields(typing.cast(Any, owner)):
        value = getattr(owner, f.name)
        for number in value if isinstance(value, tuple) else (value,):
            finite = not isinstance(number, float) or math.isfinite(number)
            _check(finite, prefix + f.name, value, "must be finite")
    hints = typing.get_type_hints(type(owner))
    for name, hint in hints.items():
        if typing.get_origin(hint) is Literal:
            allowed = typing.get_args(hint)
            value = getattr(owner, name)
            _check(value in allowed, prefix + name, value, f"must be one of {', '.join(allowed)}")


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

    def __post_init__(self) -> None:
        _sane(self, "task.")
        _positive(self, "task.", "action_repeat", "reward_unit")


@dataclass(frozen=True)
class SacConfig:
    """Soft actor-critic (arXiv 1812.05905), in the form of docs/algorithms/sac.md."""

    hidden: tuple[int, ...] = (256, 256)
    """Hidden layer widths of the actor and of both critics."""
    batch_size: int = 256
    """Rows per update, real and synthetic together."""
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

    def __post_init__(self) -> None:
        p = "sac."
        _sane(self, p)
        _check(len(self.hidden) > 0 and min(self.hidden) > 0, p + "hidden", self.hidden,
               "needs at least one layer of width 1 or more")  # fmt: skip
        _positive(self, p, "batch_size", "updates_per_step", "actor_learning_rate",
                  "critic_learning_rate", "temperature_learning_rate", "initial_temperature",
                  "critic_loss_weight", "reward_scale")  # fmt: skip
        _not_negative(self, p, "reset_every_updates")
        _check(0 <= self.discount < 1, p + "discount", self.discount,
               "must be at least 0 and below 1")  # fmt: skip
        _check(0 < self.target_update_rate <= 1, p + "target_update_rate",
               self.target_update_rate, "must be above 0 and at most 1")  # fmt: skip
        _check(self.log_std_min < self.log_std_max, p + "log_std_min", self.log_std_min,
               f"must be below log_std_max = {self.log_std_max}")  # fmt: skip


@dataclass(frozen=True)
class DynamicsConfig:
    """The ensemble of probabilistic networks: target cell, doors, network, training."""

    target: Target = "residual"
    """What is regressed besides the reward: next_obs − obs (MBPO) or next_obs itself (FTFL)."""
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
        _sane(self, p)
        _positive(self, p, "members", "elites", "learning_rate", "batch_size", "train_every",
                  "max_updates", "patience", "holdout_rows")  # fmt: skip
        _not_negative(self, p, "check_every", "min_improvement", "scale_floor", "scale_epsilon",
                      "logvar_penalty")  # fmt: skip
        _check(self.elites <= self.members, p + "elites", self.elites,
               f"must be at most members = {self.members}")  # fmt: skip
        _check(len(self.hidden) > 0 and min(self.hidden) > 0, p + "hidden", self.hidden,
               "needs at least one layer of width 1 or more")  # fmt: skip
        _check(len(self.weight_decay) == len(self.hidden) + 1 and min(self.weight_decay) >= 0,
               p + "weight_decay", self.weight_decay,
               f"needs one factor of 0 or more per layer, here {len(self.hidden) + 1}"
               " (hidden layers and the output)")  # fmt: skip
        _check(self.holdout_every >= 2, p + "holdout_every", self.holdout_every,
               "must be 2 or more (5 holds out 20 %)")  # fmt: skip
        _check(self.logvar_min < self.logvar_max, p + "logvar_min", self.logvar_min,
               f"must be below logvar_max = {self.logvar_max}")  # fmt: skip
        if self.logvar_start is not None:
            low, high = self.logvar_min, self.logvar_max
            _check(low < self.logvar_start < high, p + "logvar_start", self.logvar_start,
                   f"must lie between {low} and {high}")  # fmt: skip


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
    """Synthetic rows older than this many environment steps are dropped (rows kept = this ×
    per_step × length)."""
    real_ratio: float = 0.05
    """Share of real rows in an update batch, exactly batch − ⌊batch × (1 − ratio)⌋ of them."""
    screen: str = "keep-all"
    """The rule that filters, penalises or rejects synthetic transitions."""

    def __post_init__(self) -> None:
        p = "rollouts."
        _sane(self, p)
        _positive(self, p, "per_step", "every", "retention_steps")
        first, last, before, after = self.length
        _check(0 <= first < last and min(before, after) >= 1, p + "length", self.length,
               "must be (first step, last step, length before, length after) with"
               " 0 ≤ first < last and lengths of 1 or more")  # fmt: skip
        _check(self.retention_steps >= self.every, p + "retention_steps", self.retention_steps,
               f"must be at least every = {self.every}, or one batch would not fit")  # fmt: skip
        _check(0 <= self.real_ratio <= 1, p + "real_ratio", self.real_ratio,
               "must lie between 0 and 1")  # fmt: skip

    @property
    def max_length(self) -> int:
        """The longest branch the schedule asks for."""
        return max(self.length[2:])

    @property
    def capacity_rows(self) -> int:
        """Rows the synthetic replay must hold."""
        return self.retention_steps * self.per_step * self.max_length


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
    sac: SacConfig = field(default_factory=SacConfig)
    dynamics: DynamicsConfig | None = field(default_factory=DynamicsConfig)
    rollouts: RolloutConfig | None = field(default_factory=RolloutConfig)

    def __post_init__(self) -> None:
        _positive(self, "", "steps", "replay_rows", "eval_every", "eval_episodes", "log_every",
                  "checkpoint_every")  # fmt: skip
        _not_negative(self, "", "seed", "warmup_steps")
        _check(self.seed < 2**32, "seed", self.seed, "must be below 2³²")
        _check((self.dynamics is None) == (self.rollouts is None), "rollouts", self.rollouts,
               "a dynamics model and rollouts come together or not at all")  # fmt: skip
        if self.dynamics is not None:
            least = 2 * self.dynamics.holdout_every
            _check(self.replay_rows >= least, "replay_rows", self.replay_rows,
                   f"a dynamics model needs at least {least} transitions to train on")  # fmt: skip
            _check(self.warmup_steps >= least or self.init_replay is not None, "warmup_steps",
                   self.warmup_steps,
                   f"a dynamics model needs at least {least} transitions to train on"
                   " (or --init-replay)")  # fmt: skip

    @property
    def agent_reward_scale(self) -> float:
        """What the agent multiplies stored rewards by: its own scale, and the dial turned back."""
        return self.sac.reward_scale / self.task.reward_unit


def to_dict(config: Config) -> dict[str, Any]:
    """Plain JSON data: nested dictionaries, lists for tuples."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(data: Mapping[str, Any]) -> Config:
    """The inverse of ``to_dict``; an unknown or misplaced field is an error."""
    return _build(Config, data, "")


def _build(cls: type, data: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    for name in data:
        if name not in hints:
            raise unknown("configuration field", prefix + name, [prefix + h for h in hints])
    return cls(**{n: _value(hints[n], v, f"{prefix}{n}") for n, v in data.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = [h for h in typing.get_args(hint) if h is not types.NoneType]
        return None if value is None else _value(inner[0], value, name)
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        _check(isinstance(value, Mapping), name, value, "must be a group of fields")
        return _build(typing.cast(type, hint), value, name + ".")
    if typing.get_origin(hint) is tuple:
        _check(isinstance(value, list | tuple), name, value, "must be a list")
        kinds = typing.get_args(hint)
        if kinds[-1] is not Ellipsis:
            _check(len(value) == len(kinds), name, value, f"must have {len(kinds)} numbers")
        return tuple(_value(kinds[0], v, name) for v in value)
    if hint is float:
        ok = isinstance(value, int | float) and not isinstance(value, bool)
        _check(ok, name, value, "must be a number")
        return float(value)
    if hint in (int, bool, str):
        ok = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
        kind = {int: "a whole number", bool: "true or false", str: "text"}[hint]
        _check(ok, name, value, f"must be {kind}")
    return value


def flatten(config: Config) -> dict[str, Any]:
    """Every value by its dotted name, e.g. ``dynamics.target``; an absent group is one None."""
    return dict(_walk(config, ""))


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for f in dataclasses.fields(node):
        value = getattr(node, f.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value


def replace(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with dotted fields changed; unknown names and impossible values are errors."""
    data = dataclasses.asdict(config)
    names = flatten(config)
    for name, value in changes.items():
        *groups, leaf = name.split(".")
        node: Any = data
        for group in groups:
            if group in node and node[group] is None:
                raise FtflError(
                    f"{name} was given, but algorithm {config.algo!r} has no {group};"
                    " choose a model-based one (see `ftfl list algos`)."
                )
            if group not in node:
                raise unknown("configuration field", name, names)
            node = node[group]
        if leaf not in node:
            raise unknown("configuration field", name, names)
        node[leaf] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
    return from_dict(data)


def difference(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted fields in which two configurations differ, with both values."""
    fa, fb = flatten(a), flatten(b)
    return {
        name: (fa.get(name), fb.get(name))
        for name in sorted(fa.keys() | fb.keys())
        if fa.get(name) != fb.get(name)
    }


def content_hash(config: Config) -> str:
    """Twelve hex digits that name the configuration: equal configurations, equal hash."""
    text = json.dumps(to_dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
