"""Draw every equation of docs/theory.md over its measurement: docs/figures/theory-NAME.svg.

Usage: python benchmarks/theory/figures.py [NAME ...]      (under a minute on one core)

Lines are formulas, circles measurements; dashed is the simpler rule where the page discusses one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from equations import EQUATIONS, Compared

from ftfl.report.figures import draw
from ftfl.report.styles import INK, STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"
AXES: dict[str, tuple[str, str, str]] = {
    # name: (x label, y label, scale)
    "loss-share": ("unit of the reward", "reward's share of squared error", "log log"),
    "gradient-share": ("unit of the reward", "reward's gradient / channels'", "log log"),
    "adam-step": ("unit of the reward", "one step / std of reward", "log log"),
    "adam-drift": ("noise / mean of the gradient", "mean step (learning rates)", "linear"),
    "bounded-std": ("true std", "std at the optimum", "log log"),
    "pull-of-the-likelihood": ("mean is wrong by (stds)", "pull of a row", "log log"),
    "pull-of-half": ("mean is wrong by (stds)", "pull of a row", "log log"),
    "affine-critic": ("predicted Q", "Q of the solved MDP", "scatter"),
    "terminating-critic": ("predicted Q", "Q of the solved MDP", "scatter"),
    "account": ("sum of the three terms", "critic error", "scatter"),
    "exploited-noise": ("actions", "Q above the truth", "log2"),
    "change-variance": ("autocorrelation", "Var of change / Var of channel", "linear"),
    "decay-direct": ("weight decay / Var(s)", "coefficient of s", "symlog"),
    "decay-residual": ("weight decay / Var(s)", "coefficient of s", "symlog"),
    "innovation-variance": ("autocorrelation", "Var of innovation / Var of channel", "linear"),
    "decay-innovation": ("weight decay / Var(s)", "coefficient of s", "symlog"),
}


def figure(name: str, found: Compared) -> str:
    """One SVG document."""
    across, up, scale = AXES[name]

    def paint(axes: Axes) -> None:
        line, mark = STYLES[2].light, STYLES[1].light
        if scale == "scatter":
            axes.plot(found.predicted, found.measured, "o", color=mark, ms=2.5)
            ends = [found.predicted.min(), found.predicted.max()]
            axes.plot(ends, ends, color=line, lw=1)
        else:
            axes.plot(found.x, found.predicted, color=line, lw=1.5)
            if found.usual is not None:
                axes.plot(found.x, found.usual, "--", color=INK, lw=1)
            axes.plot(found.x, found.measured, "o", color=mark, ms=4, mfc="none")
        if scale == "log log":
            axes.set_xscale("log", base=2 if "unit" in across else 10)
            axes.set_yscale("log")
        elif scale == "log2":
            axes.set_xscale("log", base=2)
        elif scale == "symlog":
            axes.set_xscale("symlog", linthresh=0.01)
        if name in ("decay-residual", "decay-innovation"):
            axes.set_ylim(0.94, 1.005)  # one for both, beside which a sampled κ's error is small
        axes.set_xlabel(across)
        axes.set_ylabel(up)

    return draw(paint)


def main() -> None:
    """All figures, or those named."""
    FIGURES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or EQUATIONS:
        svg = figure(name, EQUATIONS[name]())
        (FIGURES / f"theory-{name}.svg").write_text(svg, encoding="utf-8")
        print(f"wrote {name}", flush=True)


if __name__ == "__main__":
    main()
