"""The controlled experiment: the four target cells differ in exactly the fields that name them."""

from __future__ import annotations

import pytest

from ftfl.config import difference
from ftfl.presets import PROFILES, build

CELLS = {
    "mbpo-unit": {"dynamics.scale": ("raw", "unit")},
    "mbpo-direct": {"dynamics.target": ("residual", "direct")},
    "ftfl": {"dynamics.scale": ("raw", "unit"), "dynamics.target": ("residual", "direct")},
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("algo", CELLS)
def test_a_cell_changes_only_what_its_name_says(algo: str, profile: str) -> None:
    changes = difference(
        build("gym/Hopper-v5", "mbpo", profile), build("gym/Hopper-v5", algo, profile)
    )
    assert changes.pop("algo") == ("mbpo", algo)
    assert changes == CELLS[algo]
