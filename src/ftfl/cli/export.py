"""``ftfl export RUN_DIR``: a policy that runs on NumPy alone, with a card of what it is."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftfl.cli.options import Parser, at_least
from ftfl.cli.text import print_json, wrapped
from ftfl.errors import FtflError
from ftfl.store.files import replace_json, why
from ftfl.store.rundir import RunDir

DESCRIPTION = """Write a trained policy as a folder that needs NumPy and nothing else.

policy.py and policy.npz run it, card.json and README.md say what it was trained on, how it was
evaluated, what its observations and actions mean, and where it should not be trusted."""

FORMAT = 1


def run(argv: Sequence[str]) -> int:
    """Load, write, and say how to use it."""
    parser = Parser("export", DESCRIPTION)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of one run, …/seed_0")
    parser.add_argument(
        "--out", metavar="DIR|FILE.zip",
        help="where to; it must not exist yet [RUN_DIR/policy_step_STEP]",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=at_least(0), metavar="STEP",
        help="env steps of the checkpoint to export [the newest valid one]",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    args = parser.parse(argv)
    run_dir = RunDir.open(Path(args.run_dir))

    from ftfl.cli.card import card, readme
    from ftfl.training.policy import load_policy

    policy = load_policy(run_dir.path, args.checkpoint)
    for sentence in policy.damage:
        print(f"ftfl: passed over a damaged checkpoint: {sentence}", file=sys.stderr)
    arrays = policy_arrays(policy)
    facts = card(run_dir, policy, FORMAT)
    out = Path(args.out) if args.out else run_dir.path / f"policy_step_{policy.step:09d}"
    _write(out, arrays, facts, readme(facts))
    if args.json:
        print_json({"path": str(out), "card": facts})
        return 0
    print(wrapped(f"wrote {out}: policy.py, policy.npz, card.json, README.md"))
    print(wrapped("next, where only NumPy is: from policy import Policy; Policy()(obs)"))
    return 0


def policy_arrays(policy: Any) -> dict[str, np.ndarray]:
    """The arrays of ``policy.npz``: layers and action bounds, by name.

    Raises:
        FtflError: a weight is not finite.
    """
    if policy.actor.view is not None:
        raise FtflError(
            f"a policy of {policy.spec.task} cannot be exported: it sees observations through the"
            " probe's view, which is no part of policy.py; export one trained on another task."
        )
    arrays: dict[str, np.ndarray] = {}
    for i, layer in enumerate(policy.actor.layers):
        arrays[f"weight_{i}"] = np.asarray(layer.weight)
        arrays[f"bias_{i}"] = np.asarray(layer.bias)
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise FtflError(
                f"the policy at step {policy.step} is not finite ({name}): it diverged; export"
                " an earlier --checkpoint."
            )
    ones = np.ones(policy.spec.act_dim)
    arrays["low"] = np.asarray(policy.spec.action_low or -ones, np.float64)
    arrays["high"] = np.asarray(policy.spec.action_high or ones, np.float64)
    return arrays


def _write(out: Path, arrays: dict[str, np.ndarray], facts: dict[str, Any], text: str) -> None:
    """All of it or nothing: written beside its place, then renamed."""
    from ftfl.training import numpy_policy

    if os.path.lexists(out):
        raise FtflError(f"{out} already exists: choose another --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent) as place:
            folder = Path(place) / "policy"
            folder.mkdir()
            np.savez(folder / "policy.npz", **arrays)  # pyright: ignore[reportArgumentType]
            shutil.copyfile(str(numpy_policy.__file__), folder / "policy.py")
            replace_json(folder / "card.json", facts, durable=False)
            (folder / "README.md").write_text(text, encoding="utf-8")
            if out.suffix == ".zip":
                made: Path = Path(shutil.make_archive(str(folder), "zip", folder))
            else:
                made = folder
            os.rename(made, out)
    except OSError as error:
        raise FtflError(f"cannot write {out}: {why(error)}; choose another --out.") from error
