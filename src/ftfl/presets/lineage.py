"""The MBPO lineage on one backbone: ``mbpo-h5`` and one change, each with and without FTFL.

Everything but that change (a screen, or another use of the model) is the control's: branches of
five steps, 80 a step (as many synthetic rows as 400 branches of one step), a fixed number of
updates, 5 % real rows, the policy's own draws, rows dropped by age so that what a screen keeps out
does not make the rest older. At one step a branch several screens keep nearly everything and say
nothing.
"""

from __future__ import annotations

from ftfl.presets.kinds import Changes, Preset

FTFL: Changes = {"dynamics.target": "direct", "dynamics.scale": "unit"}
INNOVATION: Changes = {"dynamics.target": "innovation", "dynamics.scale": "unit"}
BACKBONE: Changes = {
    "rollouts.length": (0, 1, 5, 5),
    "rollouts.per_step": 80,
    "rollouts.retention": "age",
}

_VARIANTS: dict[str, tuple[str, str, Changes]] = {
    "m2ac": (
        "M2AC's filter on the shared backbone: the rows the ensemble agrees on most.",
        "arXiv 2010.04893; constants of macura's M2AC",
        {"rollouts.screen": "m2ac", "rollouts.screening.kl_penalty": 1e-3},
    ),
    "macura": (
        "MACURA's rejection on the shared backbone: branches end where members disagree.",
        "arXiv 2405.19014; ζ 95 and ξ 2 as for HalfCheetah",
        {
            "rollouts.screen": "macura",
            "rollouts.screening.threshold_percentile": 95.0,
            "rollouts.screening.threshold_factor": 2.0,
        },
    ),
    "infoprop": (
        "Infoprop's rejection on the shared backbone: branches end once information is lost.",
        "arXiv 2501.16918; δ counted in units of the data",
        {
            "rollouts.screen": "infoprop",
            "rollouts.screening.units": "unit",
            "rollouts.screening.quantum": 1e-6,
            "rollouts.screening.step_quantile": 0.9999,
            "rollouts.screening.path_quantile": 0.01,
        },
    ),
    "mopo": (
        "MOPO's penalty on the shared backbone: rewards pay for the predicted std.",
        "arXiv 2005.13239; λ re-derived in units of the data by benchmarks/screens/mopo_units.py",
        {
            "rollouts.screen": "mopo",
            "rollouts.screening.units": "unit",
            "rollouts.screening.std_penalty": 5.0,
        },
    ),
    "certainty": (
        "Certainty weights on the shared backbone: doubtful rows are stored less often.",
        "arXiv 2602.14351 (WIMLE's weight alone); as a probability, in units of the data",
        {"rollouts.screen": "certainty", "rollouts.screening.units": "unit"},
    ),
    "mve": (
        "Value expansion on the shared backbone: critic targets look five model steps ahead.",
        "arXiv 2512.15439 (DHMBPO's training rollouts, values alone)",
        {"rollouts.value_steps": 5},
    ),
}


def presets() -> dict[str, Preset]:
    """The control and the screens, each followed by itself with FTFL's two repairs."""
    control = (
        "MBPO with branches of five steps: the control of m2ac, macura, infoprop, mopo.",
        "arXiv 1906.08253; the length is ours",
        {},
    )
    made = {}
    for name, (summary, source, screen) in {"mbpo-h5": control, **_VARIANTS}.items():
        made[name] = Preset(summary, source, {**BACKBONE, **screen})
        repaired = "ftfl-h5" if name == "mbpo-h5" else f"{name}-ftfl"
        made[repaired] = Preset(
            f"{name} with FTFL's two repairs and nothing else changed.",
            f"{source}; arXiv 2510.01457",
            {**BACKBONE, **screen, **FTFL},
        )
    return made
