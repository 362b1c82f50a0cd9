"""A short fit overrules what structure suggests, and only where it has something to say."""

import numpy as np

from ftfl.forensics.doors import CELLS
from ftfl.forensics.foresight import Foresight, Recommendation
from ftfl.forensics.foresight_fit import PRESETS, numbers, with_fit
from ftfl.forensics.instruments.attribution import Arm, Attribution

MBPO = Foresight([], Recommendation("mbpo", "nothing found"))


def fit(**r2):
    """What three seeds of a fit found, by preset."""
    cells = tuple(
        Arm(cell, CELLS[cell], np.array(r2[PRESETS[cell].replace("-", "_")]), np.ones(3),
            np.ones((3, 2)), np.ones((3, 2)), np.ones((3, 3)))
        for cell in CELLS
    )  # fmt: skip
    return Attribution(cells[0], cells, (), ("a", "b"), 500, (0, 1, 2))


GOOD, BAD = [0.9, 0.8, 0.7], [-1.0, 0.2, 0.9]


def test_cells_that_learn_the_reward_change_nothing():
    assert with_fit(MBPO, fit(mbpo=GOOD, mbpo_unit=GOOD, mbpo_direct=GOOD, ftfl=GOOD)) is MBPO


def test_a_recommended_cell_that_does_not_learn_it_gives_way_to_the_best():
    found = with_fit(MBPO, fit(mbpo=BAD, mbpo_unit=GOOD, mbpo_direct=BAD, ftfl=[0.95] * 3))
    (finding,) = found.findings
    assert (finding.name, finding.severity) == ("reward-not-learned", "warning")
    assert "mbpo (0.2), mbpo-direct (0.2)" in finding.sentence
    assert found.recommended.preset == "ftfl"
    assert "0.95" in found.recommended.because
    sound = Foresight([], Recommendation("mbpo-unit", "slow"))
    kept = with_fit(sound, fit(mbpo=BAD, mbpo_unit=GOOD, mbpo_direct=BAD, ftfl=[0.95] * 3))
    assert kept.recommended is sound.recommended


def test_if_no_cell_learns_it_sac_is_recommended_unless_the_task_cannot_be_judged():
    every = fit(mbpo=BAD, mbpo_unit=BAD, mbpo_direct=BAD, ftfl=BAD)
    found = with_fit(MBPO, every)
    assert (found.findings[0].severity, found.recommended.preset) == ("failure", "sac")
    unknown = Foresight([], Recommendation(None, "cannot tell yet"))
    assert with_fit(unknown, every).recommended.preset is None


def test_a_reward_that_never_varied_says_nothing():
    silent = fit(mbpo=[np.nan] * 3, mbpo_unit=GOOD, mbpo_direct=GOOD, ftfl=GOOD)
    assert with_fit(MBPO, silent) is MBPO
    assert numbers(silent)["mbpo"]["reward_r2_drawn"] is None
    assert numbers(silent)["ftfl"]["reward_r2_drawn_median"] == 0.8
