"""Known faults of this family of algorithms, each as one change of our sources and who must see it.

A mutant is not about the line it changes but about the promise that line keeps. When a line moves,
the mutant follows it; it is dropped only with the promise.
"""

from pathlib import Path
from typing import NamedTuple

PITFALLS = "tests/unit/test_pitfalls.py::"
LOOP = "tests/unit/test_loop.py::"
ENVS = "tests/unit/test_envs.py::"
SAC = "tests/parity/test_sac.py::"
MODEL = "tests/parity/test_dynamics.py::"
REPLAY = "tests/property/test_replay.py::"
SCREENS = "tests/unit/test_screens.py::"
UNCERTAINTY = "tests/parity/test_uncertainty.py::"
UNITS = "tests/property/test_units.py::"
DAMAGE = "tests/faults/test_store_damage.py::"
DISK = "tests/faults/test_store_disk.py::"
CHECKPOINT = "tests/unit/test_store_checkpoint.py::"
WHOLE_UPDATES = SAC + "test_whole_updates_match_in_float64[stfl]"


class Mutant(NamedTuple):
    """A fault put in on purpose."""

    fault: str
    file: str
    """Below ``src/ftfl``."""
    old: str
    """Occurs once in the file."""
    new: str
    test: str
    """The one test that must go red."""

    def put_into(self, package: Path) -> None:
        """Change the sources under ``package``, or fail if they are no longer as they were."""
        file = package / self.file
        text = file.read_text(encoding="utf-8")
        count = text.count(self.old)
        assert count == 1, (
            f"mutant {self.fault!r} no longer applies: its old text occurs {count} times in"
            f" src/ftfl/{self.file}; let it follow the code it is about."
        )
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")


AGENT = [
    Mutant(
        "entropy sign in the critic target",
        "sac.py",
        "next_q - jnp.exp(state.log_temperature) * log_prob",
        "next_q + jnp.exp(state.log_temperature) * log_prob",
        WHOLE_UPDATES,
    ),
    Mutant(
        "entropy sign in the actor loss",
        "sac.py",
        "jnp.mean(jnp.exp(state.log_temperature) * log_prob - q)",
        "jnp.mean(-jnp.exp(state.log_temperature) * log_prob - q)",
        WHOLE_UPDATES,
    ),
    Mutant(
        "temperature gradient sign",
        "sac.py",
        "alpha * (entropy - target_entropy)",
        "alpha * (target_entropy - entropy)",
        SAC + "test_temperature_gradient",
    ),
    Mutant(
        "target not stopped",
        "sac.py",
        """jax.value_and_grad(critic_loss, has_aux=True)(
        state.critic, batch, target, config
    )""",
        """jax.value_and_grad(
        lambda net: critic_loss(
            net,
            batch,
            target
            + (y := critic_target(
                eqx.tree_at(lambda s: s.target_critic, state, net), batch, target_key, config
            ))
            - jax.lax.stop_gradient(y),
            config,
        ),
        has_aux=True,
    )(state.critic)""",
        WHOLE_UPDATES,
    ),
    Mutant(
        "target network moves by the share it should keep",
        "sac.py",
        "(1.0 - rate) * old + rate * new",
        "rate * old + (1.0 - rate) * new",
        WHOLE_UPDATES,
    ),
    Mutant(
        "target network never moves",
        "sac.py",
        "(1.0 - rate) * old + rate * new",
        "old",
        WHOLE_UPDATES,
    ),
    Mutant(
        "online critic in place of the target critic",
        "sac.py",
        "q_values(state.target_critic, batch.next_obs",
        "q_values(state.critic, batch.next_obs",
        WHOLE_UPDATES,
    ),
    Mutant(
        "maximum of the twins in the critic target",
        "sac.py",
        "next_q = jnp.min(",
        "next_q = jnp.max(",
        WHOLE_UPDATES,
    ),
    Mutant(
        "maximum of the twins in the actor loss",
        "sac.py",
        "q = jnp.min(q_values(state.critic",
        "q = jnp.max(q_values(state.critic",
        WHOLE_UPDATES,
    ),
    Mutant(
        "bootstrap through termination",
        "sac.py",
        "jnp.where(batch.terminated, 0.0, value)",
        "value",
        SAC + "test_termination_stops_the_bootstrap_and_truncation_does_not",
    ),
    Mutant(
        "density without the correction for tanh",
        "nets.py",
        "jnp.sum(gaussian - squash, axis=-1)",
        "jnp.sum(gaussian, axis=-1)",
        SAC + "test_tanh_normal_log_density_is_a_density[0.0--0.5]",
    ),
    Mutant(
        "another epsilon in Adam",
        "nets.py",
        "optax.adam(self.learning_rate).update(",
        "optax.adam(self.learning_rate, eps=1e-5).update(",
        WHOLE_UPDATES,
    ),
    Mutant(
        "all updates of a step share a key",
        "training/updates.py",
        "jax.random.split(key, per_step)",
        "jnp.broadcast_to(key, (per_step,))",
        PITFALLS + "test_every_update_of_a_step_has_rows_and_noise_of_its_own",
    ),
    Mutant(
        "reward unit not turned back for the agent",
        "training/learn.py",
        "batch.reward * config.agent_reward_scale",
        "batch.reward",
        "tests/unit/test_unit_invariance.py::test_another_unit_of_reward_changes_no_bit[sac]",
    ),
    Mutant(
        "resets return to the same weights",
        "training/learn.py",
        "stream_key(state.key, Stream.AGENT_RESET, state.resets)",
        "stream_key(state.key, Stream.AGENT_RESET)",
        PITFALLS + "test_resets_use_fresh_keys",
    ),
]

DATA = [
    Mutant(
        "off by one where a row is inserted",
        "replay.py",
        "jnp.cumsum(kept) - 1",
        "jnp.cumsum(kept)",
        REPLAY + "test_ring_is_a_deque",
    ),
    Mutant(
        "rows past the end of the ring are dropped",
        "replay.py",
        "jnp.where(mask, place % replay.capacity, replay.capacity)",
        "jnp.where(mask, place, replay.capacity)",
        REPLAY + "test_ring_is_a_deque",
    ),
    Mutant(
        "off by one where the cursor wraps",
        "replay.py",
        "(replay.cursor + count) % replay.capacity",
        "(replay.cursor + count) % (replay.capacity + 1)",
        REPLAY + "test_ring_is_a_deque",
    ),
    Mutant(
        "off by one in the newest row",
        "replay.py",
        "(replay.cursor - 1 - age) % replay.capacity",
        "(replay.cursor - age) % replay.capacity",
        REPLAY + "test_samples_come_from_the_newest",
    ),
    Mutant(
        "held-out rows are trained on",
        "replay.py",
        "(within >= self._held_out(block))",
        "(within > self._held_out(block))",
        REPLAY + "test_no_member_ever_draws_a_held_out_row[bootstrap]",
    ),
    Mutant(
        "a refit reads training rows by their number",
        "dynamics/fit.py",
        "take(replay, split.train_slot(rows))",
        "take(replay, rows)",
        MODEL + "test_one_fit_update[direct-unit]",
    ),
    Mutant(
        "a time limit is stored as an end",
        "training/loop.py",
        "np.bool_(result.terminated)",
        "np.bool_(result.terminated or result.truncated)",
        LOOP + "test_a_time_limit_is_stored_as_no_end",
    ),
    Mutant(
        "a checkpoint lacks the newest synthetic row",
        "training/state.py",
        "v[:filled] if v.ndim",
        "v[: filled - 1] if v.ndim",
        LOOP + "test_a_checkpoint_holds_the_whole_state[ftfl]",
    ),
    Mutant(
        "real rows of a checkpoint off by one",
        "training/state.py",
        "np.arange(start, stop) % capacity",
        "np.arange(start + 1, stop + 1) % capacity",
        LOOP + "test_a_checkpoint_holds_the_whole_state[sac]",
    ),
    Mutant(
        "real share off by one",
        "rollouts/generate.py",
        "rollouts.real_ratio) + 1e-9)",
        "rollouts.real_ratio))",
        REPLAY + "test_mixed_batch_has_exactly_the_real_share",
    ),
    Mutant(
        "batches see synthetic rows past retention",
        "rollouts/generate.py",
        "jnp.minimum(synthetic.size, kept_rows(env_steps, config))",
        "synthetic.size",
        REPLAY + "test_batches_see_the_retention_window_only[2]",
    ),
]

DYNAMICS = [
    Mutant(
        "members share minibatches",
        "dynamics/fit.py",
        'if config.member_data == "shared":',
        "if True:",
        REPLAY + "test_no_member_ever_draws_a_held_out_row[bootstrap]",
    ),
    Mutant(
        "members share a resample",
        "dynamics/fit.py",
        "jax.random.bits(seed_key, (config.members,), jnp.uint32)",
        "jnp.broadcast_to(jax.random.bits(seed_key, (), jnp.uint32), (config.members,))",
        PITFALLS + "test_every_member_keeps_one_resample_of_its_own_for_a_whole_refit",
    ),
    Mutant(
        "resample without the member's seed",
        "dynamics/fit.py",
        "mix(mix(draw.astype(jnp.uint32)) + member_seed)",
        "mix(mix(draw.astype(jnp.uint32)))",
        REPLAY + "test_bootstrap_is_a_resample_with_replacement",
    ),
    Mutant(
        "members share their start",
        "nets.py",
        "jax.vmap(make)(jax.random.split(key, count))",
        "jax.vmap(lambda _: make(key))(jax.random.split(key, count))",
        PITFALLS + "test_init_scale[per_member-1.0]",
    ),
    Mutant(
        "the worst members are the elites",
        "dynamics/elites.py",
        "jnp.where(lives, score, jnp.inf)",
        "jnp.where(lives, -score, jnp.inf)",
        MODEL + "test_one_fit_update[direct-unit]",
    ),
    Mutant(
        "predicted change not added to the state",
        "dynamics/targets.py",
        "return obs + predicted",
        "return predicted",
        MODEL + "test_predictions_in_physical_units[residual-raw]",
    ),
    Mutant(
        "slopes of innovation targets follow every refit",
        "dynamics/fit.py",
        "kept = jnp.where(state.refits > 0, before, kept)",
        "pass",
        "tests/unit/test_pitfalls.py::test_slopes_of_innovation_targets_are_chosen_once",
    ),
    Mutant(
        "one scale for all dimensions",
        "dynamics/targets.py",
        "jnp.where(constant, 0.0, std + config.scale_epsilon)",
        "jnp.where(constant, 0.0, jnp.mean(std) + config.scale_epsilon)",
        MODEL + "test_statistics_and_targets_of_the_four_cells[90-90-direct-unit]",
    ),
    Mutant(
        "units measured on held-out rows too",
        "dynamics/targets.py",
        "split.train_slot(jnp.minimum(u, count - 1))",
        "jnp.minimum(u, count - 1)",
        MODEL + "test_statistics_and_targets_of_the_four_cells[90-90-direct-unit]",
    ),
    Mutant(
        "absolute epsilon in the scale",
        "dynamics/targets.py",
        "jnp.where(constant, 0.0, std + config.scale_epsilon)",
        "jnp.where(constant, 0.0, std + 1e-8)",
        UNITS + "test_targets_in_network_units_know_no_physical_unit[-30-direct]",
    ),
    Mutant(
        "absolute threshold of what is constant",
        "dynamics/targets.py",
        "std <= config.scale_floor * jnp.sqrt(mean**2 + std**2)",
        "std <= config.scale_floor",
        UNITS + "test_targets_in_network_units_know_no_physical_unit[-30-direct]",
    ),
    Mutant(
        "reward first among the targets",
        "dynamics/targets.py",
        "jnp.concatenate([state, batch.reward[..., None]], axis=-1)",
        "jnp.concatenate([batch.reward[..., None], state], axis=-1)",
        MODEL + "test_statistics_and_targets_of_the_four_cells[90-90-direct-unit]",
    ),
    Mutant(
        "action before observation in predictions only",
        "dynamics/predict.py",
        "jnp.concatenate([obs, action], axis=-1)",
        "jnp.concatenate([action, obs], axis=-1)",
        MODEL + "test_predictions_in_physical_units[residual-raw]",
    ),
    Mutant(
        "variance given out as standard deviation",
        "dynamics/predict.py",
        "scaler.spread_from_unit(std)",
        "scaler.spread_from_unit(std**2)",
        MODEL + "test_predictions_in_physical_units[residual-raw]",
    ),
    Mutant(
        "log-variance bounds swapped",
        "dynamics/ensemble.py",
        "bounded_std(raw, *_bounds(ensemble, shift))",
        "bounded_std(raw, *_bounds(ensemble, shift)[::-1])",
        MODEL + "test_predictions_in_physical_units[residual-raw]",
    ),
    Mutant(
        "log-variance constant at its upper bound",
        "dynamics/ensemble.py",
        "logvar = high - jax.nn.softplus(high - raw)",
        "logvar = high + 0.0 * raw",
        MODEL + "test_soft_bounds",
    ),
    Mutant(
        "log-variance sign in the held-out likelihood",
        "dynamics/ensemble.py",
        "jnp.exp(-prediction.logvar)",
        "jnp.exp(prediction.logvar)",
        MODEL + "test_holdout_scores_raw_unit_and_likelihood",
    ),
    Mutant(
        "log-variance sign in the likelihood",
        "dynamics/ensemble.py",
        "precision = jnp.exp(-logvar)",
        "precision = jnp.exp(logvar)",
        MODEL + "test_loss_gradient_and_adam_step[32-False]",
    ),
    Mutant(
        "units of inputs move and the network does not",
        "dynamics/carry.py",
        "trunk = _carry_inputs(trunk, old.input, new.input)",
        "",
        PITFALLS + "test_predictions_survive_moving_statistics[joint-unit]",
    ),
    Mutant(
        "R2 of the average in place of R2 of the members",
        "dynamics/holdout.py",
        '"model/reward_r2": r2(member)',
        '"model/reward_r2": r2(average[None])',
        MODEL + "test_the_report_on_held_out_rows[direct-unit]",
    ),
    Mutant(
        "R2 against zero in place of the mean",
        "dynamics/holdout.py",
        "(batch.reward - centre) ** 2",
        "batch.reward ** 2",
        MODEL + "test_the_report_on_held_out_rows[direct-unit]",
    ),
]

ROLLOUTS = [
    Mutant(
        "branches go on after termination",
        "rollouts/generate.py",
        "judged.proceed & finite & ~terminated",
        "judged.proceed & finite",
        PITFALLS + "test_long_branches_stop_at_terminals_and_never_mix_rows",
    ),
    Mutant(
        "rows of ended branches are stored",
        "rollouts/generate.py",
        "store = b.active & judged.store & finite",
        "store = judged.store & finite",
        PITFALLS + "test_long_branches_stop_at_terminals_and_never_mix_rows",
    ),
    Mutant(
        "termination judged on the state before",
        "rollouts/generate.py",
        "ends.termination(b.obs, action, judged.next_obs)",
        "ends.termination(b.obs, action, b.obs)",
        PITFALLS + "test_long_branches_stop_at_terminals_and_never_mix_rows",
    ),
    Mutant(
        "non-finite synthetic rows are stored",
        "rollouts/generate.py",
        "store = b.active & judged.store & finite",
        "store = b.active & judged.store",
        PITFALLS + "test_non_finite_predictions_are_neither_stored_nor_continued",
    ),
    Mutant(
        "one elite for all rows",
        "dynamics/elites.py",
        "jax.random.randint(key, (rows,), 0, elites.shape[0])",
        "jnp.broadcast_to(jax.random.randint(key, (), 0, elites.shape[0]), (rows,))",
        PITFALLS + "test_every_row_draws_its_own_elite_and_only_elites_are_used",
    ),
    Mutant(
        "members that are no elites are drawn",
        "dynamics/elites.py",
        "elites[jax.random.randint(key, (rows,), 0, elites.shape[0])]",
        "jax.random.randint(key, (rows,), 0, elites.shape[0])",
        PITFALLS + "test_every_row_draws_its_own_elite_and_only_elites_are_used",
    ),
    Mutant(
        "variance in place of standard deviation in the draw",
        "rollouts/draws.py",
        "mean + std * jax.random.normal",
        "mean + std**2 * jax.random.normal",
        PITFALLS + "test_synthetic_rows_are_sampled_not_means",
    ),
    Mutant(
        "a drawn state entry taken for the reward",
        "rollouts/draws.py",
        "else drawn[:, -1]",
        "else drawn[:, 0]",
        PITFALLS + "test_every_row_draws_its_own_elite_and_only_elites_are_used",
    ),
    Mutant(
        "the mean of a state entry taken for the reward",
        "rollouts/draws.py",
        "reward = mean[:, -1] if",
        "reward = mean[:, 0] if",
        PITFALLS + "test_only_the_reward_can_be_the_mean[mean]",
    ),
    Mutant(
        "the same draws at every step of a branch",
        "rollouts/generate.py",
        "_step(jax.random.fold_in(branch_key, t), t,",
        "_step(branch_key, t,",
        PITFALLS + "test_elites_are_drawn_afresh_at_every_step_of_a_branch",
    ),
    Mutant(
        "rollouts play the mode of the policy",
        "rollouts/generate.py",
        "config.sac).sample(act_key)",
        "config.sac).mode(), None",
        PITFALLS + "test_rollouts_sample_the_policy",
    ),
]

SCREENED = [
    Mutant(
        "M2AC keeps as many rows at every step",
        "rollouts/m2ac.py",
        "rows * (length - step)",
        "rows * length",
        SCREENS + "test_m2ac_keeps_a_share_that_falls_with_the_horizon",
    ),
    Mutant(
        "the drawn member among the rest it is compared with",
        "rollouts/uncertainty.py",
        "[:, None] != member[None]",
        "[:, None] != -1 - member[None]",
        UNCERTAINTY + "test_two_members_a_distance_apart",
    ),
    Mutant(
        "MACURA recalibrates within a batch of branches",
        "rollouts/macura.py",
        "step == 0,",
        "step >= 0,",
        SCREENS + "test_macura_recalibrates_at_the_first_step_and_averages_over_batches",
    ),
    Mutant(
        "Infoprop goes on counting into the next batch of branches",
        "rollouts/infoprop.py",
        "jnp.where(step == 0, 0.0, state.lost)",
        "state.lost",
        SCREENS + "test_infoprop_counts_the_bits_that_disagreement_made_up",
    ),
    Mutant(
        "MOPO fines the mean member",
        "rollouts/uncertainty.py",
        "jnp.max(jnp.sqrt(jnp.sum(std**2",
        "jnp.mean(jnp.sqrt(jnp.sum(std**2",
        SCREENS + "test_mopo_fines_the_widest_member",
    ),
    Mutant(
        "what a screen keeps out makes the rest live longer",
        "rollouts/generate.py",
        "jnp.minimum(synthetic.size, jnp.sum(memory.stored))",
        "synthetic.size",
        SCREENS + "test_rows_are_kept_by_age_whatever_a_screen_keeps_out",
    ),
    Mutant(
        "a screen's scale is that of the target cell",
        "rollouts/memory.py",
        "statistics.input.std[:obs_dim]",
        "statistics.target.std[:obs_dim]",
        SCREENS + "test_a_screens_scale_is_the_same_in_every_target_cell",
    ),
]

RANDOMNESS = [
    Mutant(
        "the same exploration at every step",
        "training/learn.py",
        "stream_key(key, Stream.EXPLORE, env_steps)",
        "stream_key(key, Stream.EXPLORE)",
        PITFALLS + "test_no_moment_uses_the_key_of_another[explore]",
    ),
    Mutant(
        "the same action noise at every step",
        "training/exploration.py",
        "policy.sample(stream_key(root, Stream.ACT, env_steps))",
        "policy.sample(stream_key(root, Stream.ACT))",
        PITFALLS + "test_no_moment_uses_the_key_of_another[act]",
    ),
    Mutant(
        "the same minibatches at every refit",
        "training/learn.py",
        "stream_key(state.key, Stream.FIT, state.dynamics.refits)",
        "stream_key(state.key, Stream.FIT)",
        PITFALLS + "test_no_moment_uses_the_key_of_another[fit]",
    ),
    Mutant(
        "the same learning draws at every step",
        "training/learn.py",
        "stream_key(state.key, Stream.LEARN, state.learn_steps)",
        "stream_key(state.key, Stream.LEARN)",
        PITFALLS + "test_no_moment_uses_the_key_of_another[learn]",
    ),
    Mutant(
        "consumers share keys",
        "training/state.py",
        "jax.random.fold_in(jax.random.fold_in(root, int(stream)), counter)",
        "jax.random.fold_in(root, counter)",
        PITFALLS + "test_streams_never_share_a_key",
    ),
    Mutant(
        "evaluation starts where training does",
        "training/evaluate.py",
        "_EVAL_DOMAIN = 1",
        "_EVAL_DOMAIN = 0",
        LOOP + "test_evaluation_repeats_its_starts_and_never_meets_the_runs_own",
    ),
    Mutant(
        "evaluation in the environment of the run",
        "training/loop.py",
        "evaluation(self.eval_env, config.seed",
        "evaluation(self.env, config.seed",
        LOOP + "test_evaluation_leaves_the_environment_of_the_run_alone",
    ),
]

ENVIRONMENTS = [
    Mutant(
        "MuJoCo's warnings are not read",
        "envs/guard.py",
        "self._check_simulator(action)",
        "pass",
        ENVS + "test_a_diverged_simulation_is_a_fault_not_a_teleport[gym/Hopper-v5]",
    ),
    Mutant(
        "MuJoCo's counters are not handed on",
        "envs/gym.py",
        "None if self._data is None else self._data.warning.number",
        "None",
        ENVS + "test_a_diverged_simulation_is_a_fault_not_a_teleport[gym/Hopper-v5]",
    ),
    Mutant(
        "actions are not clipped",
        "envs/guard.py",
        "np.clip(action, -1, 1)",
        "action",
        ENVS + "test_actions_outside_the_range_are_clipped_and_counted",
    ),
    Mutant(
        "the clock of a suite terminates",
        "envs/dmc.py",
        "last and moment.discount == 0",
        "last",
        ENVS + "test_dmc_ends_by_the_clock_with_discount_one",
    ),
    Mutant(
        "the clock of Gymnasium terminates",
        "envs/gym.py",
        "bool(terminated), bool(truncated)",
        "bool(terminated or truncated), False",
        ENVS + "test_the_clock_truncates_and_does_not_terminate",
    ),
]

RECORDS = [
    Mutant(
        "logged rewards in the unit of the dial",
        "training/records.py",
        'v / unit if k.endswith("_reward") else v',
        "v",
        LOOP + "test_returns_and_rewards_are_in_the_tasks_own_unit",
    ),
    Mutant(
        "evaluated returns in the unit of the dial",
        "training/records.py",
        "result.returns / unit",
        "result.returns",
        LOOP + "test_returns_and_rewards_are_in_the_tasks_own_unit",
    ),
    Mutant(
        "hashes are not compared",
        "store/arrays.py",
        "if digest != spec.sha256:",
        "if False:",
        DAMAGE + "test_every_flipped_byte_of_every_file_is_noticed_and_named",
    ),
    Mutant(
        "content is not forced to disk",
        "store/files.py",
        "os.fsync(file.fileno())",
        "pass",
        DISK + "test_everything_is_on_disk_before_it_becomes_visible",
    ),
    Mutant(
        "the rename may reach the disk first",
        "store/checkpoint.py",
        "fsync_directory(temporary)",
        "pass",
        DISK + "test_everything_is_on_disk_before_it_becomes_visible",
    ),
    Mutant(
        "pruning deletes in plain sight",
        "store/checkpoint.py",
        "rename(path, target)",
        "remove(path)",
        CHECKPOINT + "test_prune_keeps_the_newest_and_hides_before_deleting",
    ),
]

MUTANTS = [*AGENT, *DATA, *DYNAMICS, *ROLLOUTS, *SCREENED, *RANDOMNESS, *ENVIRONMENTS, *RECORDS]
_QUICK = {"temperature gradient sign", "members share minibatches", "hashes are not compared"}
QUICK = [mutant for mutant in MUTANTS if mutant.fault in _QUICK]
