"""Axes as SVG: how every figure of a report is drawn.

Matplotlib is imported when the first figure is drawn, used without its global state (no pyplot)
and with its own defaults instead of the user's, so that equal runs give equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftfl.report.styles import GRID, INK, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 4.1, 2.75  # inches
# Small sheet, large letters: on a phone, 360 pixels wide, they are still 10 pixels high.
_SETTINGS: dict[str, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "ftfl",
    "text.color": INK,
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(paint: Callable[[Axes], None], height: float = HEIGHT) -> str:
    """One pair of axes as a self-contained SVG document; ``paint`` fills them in.

    Text from outside must be short and painted with ``parse_math=False``, for Matplotlib would read
    ``$`` in it as mathematics; names of arms belong in ``Figure.legend``. ``height`` is in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Sheet

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)  # pyright: ignore[reportCallIssue, reportArgumentType]
        sheet = Sheet(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(sheet)
        axes = sheet.add_subplot()
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
        axes.patch.set_visible(False)
        sheet.patch.set_visible(False)
        paint(axes)
        target = io.StringIO()
        sheet.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return themed(_rounded(target.getvalue()))


def _rounded(svg: str) -> str:
    """Coordinates to a hundredth of a point: half the bytes, and no rounding noise in them."""

    def shorten(match: re.Match[str]) -> str:
        return re.sub(r"(\.\d\d)\d+", r"\1", match[0])

    return re.sub(r' (?:d|x|y|transform)="[^"]*"', shorten, svg)


def ticks() -> Any:
    """Few round ones."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])


def thousands(value: float, _position: float) -> str:
    """12k for 12000."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}".replace("-", "−")
    return f"{value:g}".replace("-", "−")
