"""The report of the demo: curves of all runs, and an autopsy of one run of each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ftfl.errors import FtflError
from ftfl.report.curves import load_arms
from ftfl.report.figures import learning_curves, metric_curves
from ftfl.report.html import write_report
from ftfl.report.parts import Section
from ftfl.report.runs import provenance
from ftfl.report.tables import difference_table, final_table
from ftfl.store.rundir import RunDir

LOOKED_AT = ("target_scales", "reward_fidelity")
"""The instruments that see the dial, and take seconds."""
SECONDS = 10.0
"""For the simulator, of each run."""


def demo_report(
    path: Path,
    groups: Mapping[str, Sequence[RunDir]],
    story: Sequence[str],
    description: str,
    commands: Sequence[str],
    looked_at: Mapping[str, RunDir],
) -> None:
    """Write the demo's report.

    Args:
        path: of the file.
        groups: all runs by arm.
        story: what happened, in paragraphs.
        description: what the arms are.
        commands: to go on with.
        looked_at: one run of each arm, which an autopsy is made of.

    Raises:
        FtflError: the file cannot be written.
    """
    arms = load_arms(groups)
    inside = Section(
        "Inside the dynamics model",
        ("Rewards are shown in the task's own unit, with the dial turned back.",),
        (
            metric_curves(arms, "model/reward_r2"),
            metric_curves(
                arms,
                "rollout/synthetic_reward_std_reward",
                "Spread of synthetic rewards, and of real ones (dashed)",
                "rollout/real_reward_std_reward",
            ),
            metric_curves(
                arms,
                "rollout/synthetic_reward_mean_reward",
                "Mean synthetic reward, and mean real reward (dashed)",
                "rollout/real_reward_mean_reward",
            ),
        ),
    )
    write_report(
        path,
        "ftfl demo: one dial, and synthetic data fails",
        [
            Section("What happened", tuple(story), (learning_curves(arms),), (final_table(arms),)),
            inside,
            *autopsy_sections(looked_at),
            Section("What differs between the arms", (description,), (), (difference_table(arms),)),
            Section("Go on from here", code=tuple(commands)),
        ],
        provenance(arms),
    )


def autopsy_sections(
    runs: Mapping[str, RunDir], instruments: Sequence[str] = LOOKED_AT
) -> list[Section]:
    """Findings and figures of these runs by label; those without a model are left out.

    A run that cannot be examined is named with the reason.
    """
    from ftfl.forensics.autopsy import Autopsy, examine
    from ftfl.forensics.registry import INSTRUMENTS
    from ftfl.forensics.subject import Subject
    from ftfl.report.autopsy import findings_section, instrument_section

    chosen = [i for i in INSTRUMENTS if i.name in instruments]
    found: dict[str, Autopsy] = {}
    failed: dict[str, str] = {}
    for label, run in runs.items():
        try:
            subject = Subject.load(run.path)
            if subject.config.dynamics is not None:
                found[label] = examine(subject, True, SECONDS, instruments=chosen)
        except FtflError as error:
            failed[label] = str(error)
    sections = [findings_section(found, failed)]
    shown = [i for i in chosen if any(i.name in a.results for a in found.values())]
    return sections + [instrument_section(i, found) for i in shown]
