"""Every metric a run may write: name, unit and how to read it.

Names are ``area/quantity_unit``. Unit ``reward`` is the task's own unit of reward, with the unit
dial (``task.reward_unit``) turned back, so that runs under different dials compare; ``scaled`` is
the unit the agent sees (after a reward scale, entropy included); ``raw`` and ``unit`` are a
model's target in physical units and in standard deviations of that target.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A registered metric; ``meaning`` is one sentence that says how to read the number."""

    name: str
    unit: str
    meaning: str


_TABLE: tuple[tuple[str, str, str], ...] = (
    # Acting in the real environment while learning.
    (
        "train/episode_return_reward",
        "reward",
        "Sum of rewards of the last finished training episode, exploration noise included; "
        "compare algorithms by eval/return_mean_reward instead.",
    ),
    (
        "train/episode_length_steps",
        "steps",
        "Length of the last finished training episode; at the time limit the agent survived, "
        "below it the task ended the episode.",
    ),
    (
        "train/episodes_count",
        "episodes",
        "Training episodes finished so far.",
    ),
    (
        "env/faults_count",
        "faults",
        "Times the environment failed so far; each transition was dropped, and faults.jsonl says "
        "what reproduces it.",
    ),
    # Evaluation: own environments and keys, the policy's mean action.
    (
        "eval/return_mean_reward",
        "reward",
        "Mean return of the evaluation episodes with the policy's mean action: the number to "
        "compare algorithms by.",
    ),
    (
        "eval/return_std_reward",
        "reward",
        "Standard deviation over the evaluation episodes of one policy; it says nothing about the "
        "spread between seeds.",
    ),
    (
        "eval/return_min_reward",
        "reward",
        "Worst evaluation episode; far below the mean, the policy fails from some starts.",
    ),
    ("eval/return_max_reward", "reward", "Best evaluation episode; never report it as the score."),
    (
        "eval/episodes_count",
        "episodes",
        "Evaluation episodes behind the eval/ numbers of the line.",
    ),
    (
        "eval/length_mean_steps",
        "steps",
        "Mean length of the evaluation episodes; below the time limit episodes end in termination.",
    ),
    # The SAC agent.
    (
        "agent/critic_loss",
        "scaled²",
        "Mean squared Bellman error over both critics; it grows with the size of the values, so "
        "compare it with agent/q_mean_scaled squared.",
    ),
    (
        "agent/actor_loss",
        "scaled",
        "Mean of temperature times log-probability minus the smaller critic; it falls as values "
        "rise, so it is no measure of progress by itself.",
    ),
    (
        "agent/temperature",
        "scaled/nat",
        "Weight of entropy against reward; near zero exploration has ended, growing without bound "
        "the policy cannot reach its target entropy.",
    ),
    (
        "agent/entropy_nats",
        "nats",
        "Mean policy entropy on the batch, minus log-probability; it should settle near the target "
        "entropy.",
    ),
    (
        "agent/q_mean_scaled",
        "scaled",
        "Mean critic value of the batch's actions; far below the discounted real return suggests "
        "shrunken synthetic rewards, far above it overestimation.",
    ),
    (
        "agent/target_q_mean_scaled",
        "scaled",
        "Mean Bellman target the critics regress to; a lasting gap to agent/q_mean_scaled means "
        "the critics cannot keep up.",
    ),
    (
        "agent/q_max_abs_scaled",
        "scaled",
        "Largest absolute critic value of the batch; above agent/q_bound_scaled it is an "
        "impossible value, that is divergence.",
    ),
    (
        "agent/q_bound_scaled",
        "scaled",
        "Largest absolute value that the rewards seen so far and entropy allow; "
        "agent/q_max_abs_scaled above twice this raises a sentinel if it lasts.",
    ),
    (
        "agent/lookahead_failed_share",
        "share",
        "Share of update rows whose look ahead through the model was not finite and which "
        "bootstrapped at once; anything above 0 means the model diverged somewhere.",
    ),
    ("agent/resets_count", "resets", "Times the agent's networks were reset to fresh weights."),
    ("agent/updates_count", "updates", "Gradient updates of the agent so far."),
    # The dynamics model; holdout numbers are means over the elites.
    (
        "model/train_loss_nats",
        "nats",
        "Training loss of the ensemble at the end of the last fit, the Gaussian negative "
        "log-likelihood in the model's target scale.",
    ),
    (
        "model/holdout_mse_raw",
        "raw²",
        "Squared error on held-out rows averaged over outputs in physical units; dominated by the "
        "outputs with the largest scale, so it can hide a useless reward head.",
    ),
    (
        "model/holdout_mse_unit",
        "unit²",
        "Squared error on held-out rows with each output divided by its own standard deviation; "
        "1 is what predicting the mean of each target scores.",
    ),
    (
        "model/holdout_nll_nats",
        "nats",
        "Gaussian negative log-likelihood per output on held-out rows; rising while the squared "
        "error falls means the predicted variances are too small.",
    ),
    (
        "model/reward_r2",
        "share",
        "Share of held-out reward variance a single elite explains, mean over elites: what "
        "synthetic rewards are drawn from; 1 is perfect, 0 no better than the mean reward, "
        "negative worse.",
    ),
    (
        "model/reward_r2_averaged",
        "share",
        "The same of the elites' averaged prediction; far above model/reward_r2, the members err "
        "each in their own way and averaging hides it from you, not from the rollouts.",
    ),
    (
        "model/reward_bias_reward",
        "reward",
        "Mean of predicted minus real reward on held-out rows; times one over one minus the "
        "discount it is the shift it can cause in the critic.",
    ),
    (
        "model/skill_over_persistence",
        "share",
        "Median over channels of 1 − MSE(s')/MSE(s' = s) on held-out rows; 0 is no better than "
        "saying that nothing moves, negative is worse.",
    ),
    (
        "model/predicted_std_unit",
        "unit",
        "Mean standard deviation the model predicts, each output divided by its own scale; the "
        "size of the noise that sampled rollouts add.",
    ),
    (
        "model/disagreement_unit",
        "unit",
        "Mean standard deviation between the members' means, each output divided by its own scale; "
        "near zero the members have collapsed onto one another.",
    ),
    ("model/updates_count", "updates", "Gradient updates of the dynamics model so far."),
    ("model/fit_seconds", "seconds", "Time the last model fit took."),
    (
        "model/floor_exceeds_change_channels_count",
        "channels",
        "Channels whose log-variance floor, in physical units, is above the standard deviation of "
        "their one-step change: sampled noise drowns the change; anything above 0 deserves a look.",
    ),
    (
        "model/constant_targets_count",
        "outputs",
        "Outputs whose target never changed in the data; unit scale predicts the constant exactly "
        "instead of blowing up rounding noise.",
    ),
    (
        "model/reward_floor_over_std",
        "ratio",
        "The log-variance floor's standard deviation of the reward head divided by the standard "
        "deviation of real rewards; above 1 a sampled reward is mostly noise.",
    ),
    (
        "model/dead_members_count",
        "members",
        "Members that the last refit left without a finite score on held-out rows; they are no "
        "elites, and above 0 fewer members than you asked for make synthetic data.",
    ),
    (
        "model/renewed_members_count",
        "members",
        "Of these, members whose weights or optimiser moments were not finite: they start again "
        "from fresh weights, so the same one comes back only if the cause lasts.",
    ),
    (
        "model/renewed_shared_count",
        "parts",
        "Parts that members share (variance bounds, learned termination) that were not finite and "
        "start again; above 0 the whole refit is in doubt.",
    ),
    # Synthetic data.
    (
        "rollout/synthetic_reward_mean_reward",
        "reward",
        "Mean reward of the newest synthetic rows; compare with "
        "rollout/real_reward_mean_reward: much nearer to zero means the reward head has shrunk.",
    ),
    (
        "rollout/real_reward_mean_reward",
        "reward",
        "Mean reward of all real transitions so far, which rollouts branch from.",
    ),
    (
        "rollout/synthetic_reward_std_reward",
        "reward",
        "Standard deviation of the newest synthetic rewards; above the real one it is sampling "
        "noise, far below it the reward head is flat.",
    ),
    (
        "rollout/real_reward_std_reward",
        "reward",
        "Standard deviation of the rewards of all real transitions so far.",
    ),
    (
        "rollout/terminated_share",
        "share",
        "Share of synthetic rows that terminated; compare with how often real episodes end.",
    ),
    (
        "rollout/nonfinite_rows_count",
        "rows",
        "Synthetic rows dropped because a value was NaN or infinite; anything above 0 means the "
        "model diverged somewhere.",
    ),
    (
        "rollout/absurd_rows_count",
        "rows",
        "Synthetic rows stored with an observation more than 10,000 standard deviations from the "
        "mean of the real ones; anything above 0 means branches run away.",
    ),
    ("rollout/length_steps", "steps", "Rollout length of the schedule at this moment."),
    ("rollout/rows_count", "rows", "Synthetic rows stored by this batch of branches."),
    (
        "rollout/usable_rows_count",
        "rows",
        "Synthetic rows that updates draw from now; 0 means that a screen let nothing through for "
        "a whole retention time and the agent learns from real rows alone.",
    ),
    (
        "rollout/penalty_mean_reward",
        "reward",
        "Mean of what the screen took off the newest stored rewards; add it to "
        "rollout/synthetic_reward_mean_reward to get what the model said.",
    ),
    (
        "rollout/uncertainty_mean_screen",
        "the screen's",
        "Mean of what the screen judges rows by, over all living rows (m2ac and macura nats, "
        "infoprop bits per output, mopo the norm of standard deviations); 0 if it judges by none.",
    ),
    (
        "rollout/kept_share",
        "share",
        "Share of generated rows the screen let through; 1 means the screen does nothing, 0 that "
        "the agent learns from real data alone.",
    ),
    (
        "termination/mismatch_count",
        "transitions",
        "Real transitions so far on which the termination function disagreed with the environment; "
        "above 0 synthetic episodes end at the wrong states.",
    ),
    # What went wrong (docs/sentinels.md).
    (
        "sentinel/fatal_count",
        "alarms",
        "Losses and parameters found not finite so far, of model and agent at most one each, the "
        "cause; above 0 nothing after that is to be trusted.",
    ),
    (
        "sentinel/warnings_count",
        "alarms",
        "Kinds of warning raised so far: impossible Q, dead entropy, dead members, synthetic rows "
        "not finite or absurd; above 0 read the sentences before the curves.",
    ),
    # Where the wall-clock time went.
    (
        "time/env_seconds",
        "seconds",
        "Time spent stepping the environment since the previous log line.",
    ),
    (
        "time/fit_seconds",
        "seconds",
        "Time spent fitting the dynamics model since the previous log line.",
    ),
    (
        "time/learn_seconds",
        "seconds",
        "Time spent on acting, rollouts and agent updates since the last log line; where most of a "
        "run goes.",
    ),
    ("time/eval_seconds", "seconds", "Time spent evaluating since the last log line."),
    (
        "time/steps_per_second",
        "steps/s",
        "Environment steps per second since the previous line, learning included.",
    ),
)

METRICS: dict[str, Metric] = {row[0]: Metric(*row) for row in _TABLE}
