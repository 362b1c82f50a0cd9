"""What a sink is, and why one that fails cannot end a run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

logger = logging.getLogger("ftfl.sinks")

# What a tracker's client raises when disk, network or its own queue fails. A bug in our code
# (AttributeError, KeyError, NameError) is not among them and stays loud.
FAILURES = (OSError, RuntimeError, ValueError, TypeError)


@runtime_checkable  # tests check annotations at run time
class Sink(Protocol):
    """Receives the metrics of one record; ``metrics.jsonl`` remains the truth."""

    def __call__(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Show the values measured at ``env_steps``."""
        ...

    def close(self) -> None:
        """Flush and release; called once, at the end of the run."""
        ...


class FailSoft:
    """A sink that is switched off, with one warning line, when the one it wraps fails."""

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink: Sink | None = sink
        self._name = name

    def __call__(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Pass the record on, unless the sink has failed before."""
        if self._sink is None:
            return
        try:
            self._sink(env_steps, values)
        except FAILURES as error:
            self._disable(error)

    def close(self) -> None:
        """Close the wrapped sink; a failure to close is a warning too."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            sink.close()
        except FAILURES as error:
            self._warn(error)

    def _disable(self, error: Exception) -> None:
        sink, self._sink = self._sink, None
        self._warn(error)
        if sink is not None:
            with contextlib.suppress(*FAILURES):
                sink.close()

    def _warn(self, error: Exception) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning(
            "%s is switched off (%s); metrics.jsonl goes on recording.", self._name, reason
        )
