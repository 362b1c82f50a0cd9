"""All instruments on one run: what could be measured, what follows, and what could not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ftfl.errors import FtflError
from ftfl.forensics import penalties
from ftfl.forensics.advice import for_run
from ftfl.forensics.audit import Truth
from ftfl.forensics.evidence import Finding, Numbers, Result, by_severity, plain
from ftfl.forensics.examination import Examination, Told, nobody
from ftfl.forensics.forking import ForkPlan
from ftfl.forensics.registry import INSTRUMENTS, Instrument
from ftfl.forensics.subject import Subject
from ftfl.termination import never


@dataclass(frozen=True)
class Autopsy:
    """What was found in one run."""

    subject: Subject
    results: dict[str, Result]
    """By instrument."""
    unmeasured: dict[str, str]
    """Why an instrument says nothing, by instrument."""
    notes: tuple[str, ...]
    truth: Truth | None

    @cached_property
    def findings(self) -> list[Finding]:
        """Of all instruments, the worst first; what two of them find is told once."""
        config = self.subject.config
        known = None if self.subject.absent else self.subject.spec.reward_fn is not None
        every = by_severity(
            [
                replace(finding, advice=for_run(finding.advice, config, known))
                for result in self.results.values()
                for finding in result.findings()
            ]
        )
        first = {finding.name: finding for finding in reversed(every)}
        return [finding for finding in every if first[finding.name] is finding]

    def numbers(self) -> dict[str, Numbers]:
        """By instrument."""
        return {name: result.numbers() for name, result in self.results.items()}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        subject, config = self.subject, self.subject.config
        return {
            "run": str(subject.path),
            "label": subject.label,
            "task": config.task.name,
            "algo": config.algo,
            "seed": config.seed,
            "step": subject.step,
            "real_rows": len(subject.rewards),
            "damaged_checkpoints": list(subject.damage),
            "states": None if self.truth is None else len(self.truth.answers),
            "states_dropped": None if self.truth is None else self.truth.dropped,
            "states_by": None if self.truth is None else self.truth.method,
            "findings": [finding.to_json() for finding in self.findings],
            "numbers": plain(self.numbers()),
            "not_measured": self.unmeasured,
            "notes": list(self.notes),
        }


def examine(
    subject: Subject,
    quick: bool = False,
    seconds: float | None = None,
    told: Told = nobody,
    instruments: Sequence[Instrument] | None = None,
    forks: ForkPlan | None = None,
) -> Autopsy:
    """Take all measurements that can be taken.

    Args:
        subject: the run.
        quick: fewer states, shorter branches, and no model is trained anew.
        seconds: the simulator is asked no longer than that (if enough states are done).
        told: is called with what is being done, how much of it is, and how much there is to do.
        instruments: which measurements; None: all.
        forks: train forks of the run as well, where that is said to go; None: none.
    """
    x = Examination(subject, quick, seconds, told, forks)
    results: dict[str, Result] = {}
    unmeasured: dict[str, str] = {}
    for instrument in INSTRUMENTS if instruments is None else instruments:
        if not instrument.concerns(subject.config) or (instrument.forks and forks is None):
            continue
        if quick and instrument.refits:
            unmeasured[instrument.name] = "--quick trains no models anew"
            continue
        told(instrument.title.lower(), 0, 0)
        try:
            result = instrument.measure(x)
            _ = result.numbers(), result.findings()  # what cannot be told is not measured
        except FtflError as error:
            unmeasured[instrument.name] = str(error)
        else:
            results[instrument.name] = result
    truth = x.truth if x.has_truth else None
    notes = list(subject.damage) if truth is None else [*subject.damage, *truth.notes]
    if subject.absent is not None:
        notes.append(
            "the environment cannot be made here, so that channels have no names"
            + (" and imagined episodes no end" if subject.spec.termination is never else "")
            + f": {subject.absent}"
        )
    screened = penalties.note(subject.config)
    if screened is not None:
        notes.append(screened)
    if not x.has_truth and "rollout_error" in results:
        notes.append("rollout error was measured on stored actions, for no simulator can be asked")
    return Autopsy(subject, results, unmeasured, tuple(notes), truth)
