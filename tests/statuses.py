"""Statuses of runs, hard ones included, that tests of the console share."""

SAC = {
    "state": "training", "label": "sac", "seed": 0, "env_steps": 12_500, "total_steps": 100_000,
    "steps_per_second": 151.3, "eta_seconds": 580.0, "last_return": 123.456,
}  # fmt: skip
MBPO = {
    **SAC, "state": "evaluating", "label": "mbpo", "env_steps": 99_999, "reward_r2": -0.4123,
    "synthetic_reward_mean": 0.0012, "real_reward_mean": 0.153, "eta_seconds": 7_500.0,
}  # fmt: skip
FAILED = {
    **SAC, "state": "failed", "label": "ftfl-tuned-on-a-task", "seed": 1, "eta_seconds": None,
    "message": "the critic diverged [bold]here[/bold]\x1b[2J\nat step 12500",
}  # fmt: skip
ALL = [SAC, MBPO, FAILED]
