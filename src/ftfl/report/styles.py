"""Colours and lines of arms: fixed by name, told apart without colour, readable on dark and light.

Matplotlib draws with the light colours; ``themed`` then turns each into a CSS variable whose
fallback is that colour, so that a page can restyle a figure and the figure still stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

INK = "#1b1c1e"
GRID = "#d3d5d8"


@dataclass(frozen=True)
class Style:
    """How the curves of one arm look."""

    light: str
    dark: str
    marker: str
    """Matplotlib's name of the marker on the mean."""


# Hues after Okabe and Ito, their lightness spread so that each two differ by more than 10 (CIELAB)
# also under simulated protanopia, deuteranopia and tritanopia, with a contrast of 3 or more to the
# background (checked by a test).
STYLES: tuple[Style, ...] = (
    Style("#565d6a", "#8a93a3", "s"),
    Style("#ad3c00", "#f5813a", "^"),
    Style("#0064c8", "#62b0ff", "o"),
    Style("#12976a", "#5fe3a8", "D"),
    Style("#c26cc6", "#fbc9f5", "v"),
    Style("#a58d12", "#fbdc55", "P"),
    Style("#2b2180", "#7e66ff", "X"),
    Style("#3a0d0d", "#c4605a", "*"),
)

_FIXED = {"sac": 0, "mbpo": 1, "ftfl": 2, "mbpo-unit": 3, "mbpo-direct": 4, "mbpo-innovation": 5}


def slots(labels: Sequence[str]) -> dict[str, int]:
    """The style of each arm by its label: well-known names always look the same.

    ``mbpo (dynamics.scale=unit)`` looks like ``mbpo`` unless that look is taken. Others take the
    slots that are left in their order; beyond eight arms slots are used again.
    """
    chosen = {label: _FIXED[label] for label in labels if label in _FIXED}
    for label in labels:
        known = _FIXED.get(label.partition(" (")[0])
        if label not in chosen and known is not None and known not in chosen.values():
            chosen[label] = known
    free = [slot for slot in range(len(STYLES)) if slot not in chosen.values()]
    order = free or list(range(len(STYLES)))
    others = dict.fromkeys(label for label in labels if label not in chosen)
    return chosen | {label: order[i % len(order)] for i, label in enumerate(others)}


def themed(svg: str) -> str:
    """Replace the drawing colours by CSS variables with themselves as fallback."""
    svg = svg.replace(INK, "currentColor").replace(GRID, f"var(--grid, {GRID})")
    for slot, style in enumerate(STYLES):
        svg = svg.replace(style.light, f"var(--arm-{slot}, {style.light})")
    return svg
