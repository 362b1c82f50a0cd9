"""Append-only tables whose every row is known from its number, so that a load can be checked."""

from collections.abc import Mapping

import numpy as np

from ftfl.store.checkpoint import Checkpoint, CheckpointStore
from ftfl.store.segments import Stored, Table


def rows(start: int, stop: int, offset: int = 0) -> dict[str, np.ndarray]:
    """Rows [start, stop) of the table that ``offset`` tells from others."""
    number = np.arange(start, stop) + offset
    return {
        "obs": (number[:, None] * np.array([1, -2, 0.5])).astype(np.float32),
        "reward": np.sqrt(number),
        "terminated": number % 3 == 0,
    }


def table(total: int, kept: int, offset: int = 0) -> Table:
    """A table of which only the kept rows can be read."""

    def read(start: int, stop: int) -> Mapping[str, np.ndarray]:
        if not total - kept <= start <= stop <= total:
            raise IndexError(f"rows {start} to {stop} of {total}, the newest {kept} kept")
        return rows(start, stop, offset)

    return Table(total, kept, read)


def reading(source: Table, log: list[tuple[int, int]]) -> Table:
    """The same table, noting which rows are read."""

    def read(start: int, stop: int) -> Mapping[str, np.ndarray]:
        log.append((start, stop))
        return source.read(start, stop)

    return source._replace(read=read)


def is_true(stored: Stored, total: int, kept: int, offset: int = 0) -> bool:
    """Whether a loaded table has exactly the rows it should."""
    truth = rows(total - kept, total, offset)
    return (
        stored.total == total
        and stored.rows.keys() == truth.keys()
        and all(
            stored.rows[name].dtype == truth[name].dtype
            and np.array_equal(stored.rows[name], truth[name])
            for name in truth
        )
    )


PER_STEP = {"real": 7, "synthetic": 5}
KEPT = {"real": 20, "synthetic": 5}


def tables(step: int) -> dict[str, Table]:
    """Two tables of a run at ``step``: one grows out of its window, one is renewed every step."""
    return {
        name: table(per * step, min(per * step, KEPT[name]), offset)
        for offset, (name, per) in enumerate(PER_STEP.items())
    }


def components(step: int) -> dict[str, dict[str, np.ndarray]]:
    """Two components that say the step."""
    return {"agent": {"weight": np.full((2, 3), step, np.float32)}, "run": {"step": np.int64(step)}}


def save(store: CheckpointStore, step: int):
    """A checkpoint that ``problems`` finds none with."""
    return store.save(step, components(step), {"step": step}, tables(step))


def problems(found: Checkpoint) -> list[str]:
    """What a checkpoint made by ``save`` does not hold as it should."""
    step = found.step
    right = {
        "meta": found.meta == {"step": step},
        "agent": bool((found.components["agent"]["weight"] == step).all()),
        "run": int(found.components["run"]["step"]) == step,
    }
    for offset, (name, per) in enumerate(PER_STEP.items()):
        total, kept = per * step, min(per * step, KEPT[name])
        right[name] = is_true(found.tables[name], total, kept, offset)
    return [f"step {step}: {name} is wrong" for name, holds in right.items() if not holds]
