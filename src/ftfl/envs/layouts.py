"""What each entry of a Gymnasium observation is, where the environment does not say it itself.

Source: Gymnasium 1.4, the ``_get_obs`` of each task.
"""

from __future__ import annotations

from collections.abc import Mapping

Blocks = tuple[tuple[str, int, int], ...]
"""(name, first index, count) in order of appearance."""

_QPOS1_WALKER: Blocks = (("qpos", 1, 8), ("qvel", 0, 9))
_HUMANOID_V4: Blocks = (
    ("qpos", 2, 22),
    ("qvel", 0, 23),
    ("cinert", 0, 140),
    ("cvel", 0, 84),
    ("qfrc_actuator", 0, 23),
    ("cfrc_ext", 0, 84),
)
_DOUBLE_PENDULUM: Blocks = (
    ("cart", 0, 1),
    ("sin_angle", 0, 2),
    ("cos_angle", 0, 2),
    ("qvel", 0, 3),
)
_REACHER: Blocks = (
    ("cos_angle", 0, 2),
    ("sin_angle", 0, 2),
    ("target", 0, 2),
    ("qvel", 0, 2),
)

_LAYOUTS: dict[str, Blocks] = {
    "Ant-v4": (("qpos", 2, 13), ("qvel", 0, 14)),
    "HalfCheetah-v4": _QPOS1_WALKER,
    "Hopper-v4": (("qpos", 1, 5), ("qvel", 0, 6)),
    "Humanoid-v4": _HUMANOID_V4,
    "HumanoidStandup-v4": _HUMANOID_V4,
    "InvertedDoublePendulum-v4": (*_DOUBLE_PENDULUM, ("qfrc_constraint", 0, 3)),
    "InvertedDoublePendulum-v5": (*_DOUBLE_PENDULUM, ("qfrc_constraint", 0, 1)),
    "InvertedPendulum-v4": (("qpos", 0, 2), ("qvel", 0, 2)),
    "MountainCarContinuous-v0": (("position", 0, 1), ("velocity", 0, 1)),
    "Pendulum-v1": (("cos_angle", 0, 1), ("sin_angle", 0, 1), ("velocity", 0, 1)),
    "Pusher-v5": (
        ("qpos", 0, 7),
        ("qvel", 0, 7),
        ("fingertip", 0, 3),
        ("object", 0, 3),
        ("goal", 0, 3),
    ),
    "Reacher-v4": (*_REACHER, ("to_target", 0, 3)),
    "Reacher-v5": (*_REACHER, ("to_target", 0, 2)),
    "Swimmer-v4": (("qpos", 2, 3), ("qvel", 0, 5)),
    "Walker2d-v4": _QPOS1_WALKER,
}


def entry_names(task_id: str, structure: object, dim: int) -> tuple[str, ...] | None:
    """Name all ``dim`` entries, from our table or from MuJoCo v5's ``observation_structure``.

    Returns None where neither accounts for every entry: a wrong name is worse than none.
    """
    blocks = _LAYOUTS.get(task_id)
    if blocks is None and isinstance(structure, Mapping):
        skipped = int(structure.get("skipped_qpos", 0))
        blocks = tuple(
            (part, skipped if part == "qpos" else 0, int(count))
            for part, count in structure.items()
            if part != "skipped_qpos"
        )
    names = tuple(
        part if count == 1 else f"{part}[{first + i}]"
        for part, first, count in blocks or ()
        for i in range(count)
    )
    return names if len(names) == dim else None
