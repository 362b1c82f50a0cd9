"""Metrics as TensorBoard event files, through the optional package tensorboardX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftfl.errors import FtflError
from ftfl.sinks.base import FailSoft, Sink
from ftfl.store.listing import list_checkpoints, step_of
from ftfl.store.rundir import RunDir


def tensorboard_sink(directory: Path, resumed_at: int = 0) -> Sink:
    """A sink that writes event files into ``directory``; fails softly once it is made.

    Points after env step ``resumed_at`` that an earlier process wrote are taken back: they will be
    written again.

    Raises:
        FtflError: tensorboardX is not installed, or the directory cannot be written.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise FtflError(
            'TensorBoard output needs the package tensorboardX: pip install "ftfl[tensorboard]".'
        ) from error
    try:
        writer = SummaryWriter(logdir=str(directory), write_to_disk=True, purge_step=resumed_at + 1)
    except OSError as error:
        raise FtflError(
            f"cannot write TensorBoard files to {directory}: {error.strerror}."
        ) from error
    return FailSoft(_TensorboardSink(writer), "TensorBoard output")


def sink_of(run_dir: RunDir) -> Sink:
    """The sink of a run, which goes on from its newest checkpoint."""
    resumed_at = max(map(step_of, list_checkpoints(run_dir.checkpoints_path)), default=0)
    return tensorboard_sink(run_dir.path / "tensorboard", resumed_at)


class _TensorboardSink:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __call__(self, env_steps: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            number = float(value)
            # TensorBoard draws NaN as a gap at best; metrics.jsonl records it.
            if math.isfinite(number):
                self._writer.add_scalar(name, number, env_steps)

    def close(self) -> None:
        self._writer.close()
