"""Attribution on data with exactly one cause present, and on data with none."""

import dataclasses

import numpy as np
import pytest

from ftfl.errors import FtflError
from ftfl.forensics import refits
from ftfl.forensics.doors import AS_IS, CELLS, GIVEN, doors, flags
from ftfl.forensics.instruments import attribution as instrument
from ftfl.forensics.instruments.attribution import Arm, Attribution, attribution
from ftfl.forensics.rows import held_apart, ring_of
from known_cases import autoregressive, linear, model

pytestmark = pytest.mark.usefixtures("quick_compiles")
TRAINING = {"learning_rate": 2e-3}
UPDATES = 400  # all cases have the same shapes and cells, so that four fits compile in all


@pytest.mark.slow
def test_a_tiny_reward_unit_is_attributed_to_scale():
    rows = linear(1_000, (1, 1), 2.0**-14, noise=0.1)
    found = attribution(rows, model(**TRAINING), updates=UPDATES)
    reward, state = found.findings()
    assert (reward.name, reward.severity) == ("reward-lost-by-scale", "failure")
    assert reward.advice == "--scale unit"
    assert state.name == "no-door-restores-state"
    gains = found.gains("reward")
    assert gains["scale"].above(0.7)
    assert len(gains) == 12  # every door is open
    assert all(gain.value < 0.05 for name, gain in gains.items() if name != "scale")
    cells = {arm.name: arm.reward_use.mean() for arm in found.cells}
    assert min(cells["residual, unit"], cells["direct, unit"]) > 0.7
    assert max(cells["residual, raw"], cells["direct, raw"]) < 0.05
    np.testing.assert_array_equal(found.base.reward, found.cells[0].reward)


@pytest.mark.slow
def test_a_slow_channel_under_direct_prediction_is_attributed_to_the_target():
    rows = autoregressive(episodes=20, steps=50, kappas=[0.999, 0.0])
    asked = []
    found = attribution(
        rows,
        model("ftfl", **TRAINING),
        updates=UPDATES,
        only=("target", "floor"),
        progress=lambda *what: asked.append(what),
    )
    by_name = {f.name: f for f in found.findings()}
    assert by_name["state-lost-by-target"].advice == "--target residual"
    assert "no-door-restores-reward" in by_name
    # As it is = direct, unit; the target door = residual, unit; the lowered floor is a fifth.
    assert [done for _, done, _ in asked] == list(range(5 * 3))
    assert {total for *_, total in asked} == {5 * 3}
    assert asked[0][0] == AS_IS


@pytest.mark.slow
def test_a_high_floor_is_attributed_to_the_floor_and_to_nothing_in_the_cells():
    rows = linear(1_000, (1, 1), 1.0, noise=0.05)
    config = model("mbpo-unit", logvar_min=-1.7, **TRAINING)
    found = attribution(rows, config, updates=UPDATES, only=("floor", "mean-reward", "cap"))
    reward, state = found.findings()
    assert state.name == "state-lost-by-floor"
    assert state.severity == "warning"
    assert state.advice == "--dynamics.logvar-min -25"
    # Of the reward, the noise alone is at fault: not drawing it is as good.
    assert {"floor", "mean-reward"} <= {n for n, g in found.gains("reward").items() if g.above(0.1)}
    assert "as good: floor" in reward.sentence or reward.name == "reward-lost-by-floor"


def arm(name, reward, skill):
    column = np.asarray(skill, np.float64)[:, None]
    reward = np.asarray(reward, np.float64)
    return Arm(name, {}, reward, reward, column, column, np.ones((len(reward), 3)))


def test_less_than_nothing_counts_as_nothing():
    """From −90 to −40 nothing is gained."""
    base = arm(AS_IS, [-90, -80, -100], [0.5, 0.5, 0.5])
    cells = tuple(arm(name, [0.0, 0.1, 0.0], [0.5, 0.5, 0.5]) for name in CELLS)
    found = Attribution(
        base, cells, (arm("floor", [-40, -30, -35], [0.9, 0.8, 0.9]),), ("x",), 1, (0, 1, 2)
    )
    assert found.gains("reward")["floor"].value == 0
    assert [f.name for f in found.findings()] == ["no-door-restores-reward", "state-lost-by-floor"]


def test_a_clear_door_is_named_although_a_noisy_one_has_the_larger_mean():
    base = arm(AS_IS, [0, 0, 0], [0.5, 0.5, 0.5])
    cells = tuple(arm(name, [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]) for name in CELLS)
    doors = (
        arm("small-steps", [0.0, 0.9, 0.45], [0.5] * 3),
        arm("scale", [0.4, 0.41, 0.42], [0.5] * 3),
    )
    reward, _ = Attribution(base, cells, doors, ("x",), 1, (0, 1, 2)).findings()
    assert reward.name == "reward-lost-by-scale"
    assert "gain_small-steps" in reward.evidence


def test_a_reward_that_need_not_be_learned_is_a_remedy_and_no_cause():
    """It knows every reward, whatever lost the learned one."""
    base = arm(AS_IS, [0, 0, 0], [0.5, 0.5, 0.5])
    cells = tuple(arm(name, [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]) for name in CELLS)
    given = arm(GIVEN, [1.0, 1.0, 1.0], [0.5] * 3)
    given = dataclasses.replace(given, changes={"reward_model": "given"})
    scale = arm("scale", [0.6, 0.61, 0.62], [0.5] * 3)
    start = arm("start", [0.2, 0.21, 0.22], [0.5] * 3)
    names = ("x",), 1, (0, 1, 2)
    reward, _ = Attribution(base, cells, (given, scale, start), *names).findings()
    assert reward.name == "reward-lost-by-scale"
    assert reward.sentence == (
        "changing scale alone lifts the reward's R² from 0 to 0.61; next: start, +0.21. The task's"
        " own reward function gives 1."
    )
    floor = arm("floor", [0.0, 0.0, 0.0], [0.5] * 3)
    reward, _ = Attribution(base, cells, (given, floor), *names).findings()
    assert reward.name == "no-door-restores-reward"
    assert "own reward function gives 1" in reward.sentence
    assert reward.advice == "if it is low: --dynamics.reward-model given"


def test_a_refit_that_diverged_is_worth_nothing_and_spoils_no_other():
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.normal(size=(50, 2)), rng.normal(size=50)])
    obs = np.column_stack([rng.normal(size=50), truth[:, 1]])  # the second channel never moves
    sound = refits.Predicted(np.stack([truth, truth]), np.zeros((2, 50, 3)), truth)
    drawn, member, line = refits.scores(sound, obs)
    np.testing.assert_array_equal(drawn, [1.0, np.nan, 1.0])
    np.testing.assert_allclose(line, [1.0, 0.0, 0.0], atol=1e-12)
    mean = sound.mean.copy()
    mean[0, 3, 0] = np.inf
    drawn, member, line = refits.scores(sound._replace(mean=mean), obs)
    np.testing.assert_array_equal(drawn, [-np.inf, np.nan, -np.inf])
    np.testing.assert_array_equal(member, drawn)
    lost = Arm("x", {}, drawn[-1:], member[-1:], drawn[None, :-1], member[None, :-1], line[None])
    assert (lost.reward_use, lost.state_use) == (0.0, 0.0)
    assert lost.numbers()["reward_r2_drawn"] is None


def test_the_line_of_a_corrupted_reward_is_read_back():
    rng = np.random.default_rng(1)
    reward = rng.normal(2.0, 1.0, 20_000)
    told = reward.mean() + 0.3 + 0.4 * (reward - reward.mean())
    truth = np.column_stack([np.zeros(20_000), reward])
    found = np.column_stack([np.zeros(20_000), told])
    std = np.full((1, 20_000, 2), 0.5)
    slope, shift, noise = refits.reward_line(refits.Predicted(found[None], std, truth))
    assert (slope, shift, noise) == pytest.approx((0.4, 0.3, 0.5), abs=1e-9)


def test_two_causes_need_two_changes():
    base = arm(AS_IS, [0, 0, 0], [0, 0, 0])
    values = {"residual, raw": 0, "residual, unit": 0.01, "direct, raw": 0, "direct, unit": 0.9}
    cells = tuple(arm(name, [v] * 3, [0.0] * 3) for name, v in values.items())
    one = (arm("scale", [0.01, 0.0, 0.02], [0, 0, 0]), arm("target", [0, 0, 0], [0, 0, 0]))
    found = Attribution(base, cells, one, ("x",), 1, (0, 1, 2)).findings()
    assert found[0].name == "reward-needs-both-repairs"
    assert found[0].advice == "--target direct --scale unit"


def test_a_cell_one_change_away_is_a_single_change_whatever_doors_are_asked_for():
    """Else the best cell counts as two changes, and is told to need both repairs."""
    rows = linear(300, (1, 1), 1.0, noise=0.05)
    found = attribution(rows, model("mbpo", **TRAINING), 2, (0,), only=["floor"])
    assert [arm.name for arm in found.doors] == ["scale", "target", "floor"]
    cells = {cell.name: cell for cell in found.cells}
    assert found.doors[0].reward == cells["residual, unit"].reward
    assert found.doors[1].reward == cells["direct, raw"].reward


def test_a_constant_reward_has_nothing_to_attribute():
    base = arm(AS_IS, [np.nan] * 3, [0.5] * 3)
    found = Attribution(base, tuple(arm(n, [np.nan] * 3, [0.5] * 3) for n in CELLS),
                        (arm("cap", [np.nan] * 3, [0.5] * 3),), ("x",), 1, (0, 1, 2))  # fmt: skip
    assert found.gains("reward") == {}
    assert [f.name for f in found.findings()] == ["no-door-restores-state"]
    assert found.numbers()["doors"]["cap"]["reward_r2_drawn"] is None


def test_rewards_that_only_rows_for_training_met_judge_nothing():
    """Else R² is counted against the variance of next to nothing: −10¹⁶ on humanoid-stand."""
    rows = linear(300, (1, 1), 1.0, noise=0.05)
    reward = np.full(300, 1e-9, np.float32)
    reward[:20] = rows.reward[:20]  # one stretch of fifty, and not one of those held apart
    reward[299] = 2e-9
    found = attribution(rows._replace(reward=reward), model("mbpo", **TRAINING), 2, (0,), only=[])
    assert found.seen < 1e-9
    assert found.gains("reward") == {}
    assert found.numbers()["cells"]["direct, unit"]["reward_r2_member"] is None
    first, *others = found.findings()
    assert (first.name, first.severity) == ("reward-not-judged", "info")
    assert not [f for f in others if "reward" in f.name]


def test_doors_that_are_open_already_are_left_out():
    raw = doors(model("mbpo"), reward_variance=1e-8, knows_reward=False)
    assert raw["start"]["logvar_start"] == pytest.approx(-9.9)
    assert raw["elites"] == {"holdout_score": "unit"}
    assert "given-reward" not in raw
    assert "given-reward" in doors(model("mbpo"), 1.0, knows_reward=True)
    opened = model("ftfl", logvar_min=-25.0, reward_draw="mean", reward_model="separate")
    assert not {"floor", "mean-reward", "separate-reward"} & doors(opened, 1.0, False).keys()
    given = doors(model("mbpo", reward_model="given"), 1.0, True)
    assert not {"separate-reward", "given-reward", "mean-reward", "start"} & given.keys()
    assert flags({"target": "direct", "logvar_min": -25.0}) == (
        "--target direct --dynamics.logvar-min -25"
    )


def test_an_unknown_door_and_too_few_rows_are_named():
    rows = linear(100, (1,), 1.0)
    with pytest.raises(FtflError, match="unknown door 'flor': did you mean floor"):
        attribution(rows, model(), updates=1, only=("flor",))
    with pytest.raises(FtflError, match="at least 100"):
        attribution(linear(99, (1,), 1.0), model(), updates=1)


def test_what_only_decides_after_training_trains_nothing_anew_and_changes_no_number(monkeypatch):
    """Doors `mean-reward` and `elites` take the base's members, as a refit would make them."""
    trained = []
    whole = refits.train

    def counted(*args):
        trained.append(args)
        return whole(*args)

    monkeypatch.setattr(instrument, "train", counted)
    rows, config = linear(600, (1, 1), 1.0, noise=0.1), model(**TRAINING)
    told = []
    found = attribution(rows, config, 40, (0,), only=["mean-reward", "elites", "floor"],
                        progress=lambda *at: told.append(at))  # fmt: skip
    assert len(trained) == 5  # four cells, and the floor
    assert told[-1][1:] == (4, 5)
    known, test = held_apart(rows)
    changed = dataclasses.replace(config, reward_draw="mean")
    state = refits.refit(ring_of(known), changed, 0, 40)
    look = refits.fidelity(refits.predictions(state, test, changed), np.asarray(test.obs))
    (arm,) = (door for door in found.doors if door.name == "mean-reward")
    assert arm.reward[0] == look.drawn[-1].value
