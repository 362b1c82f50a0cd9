"""The command line called in this process, and the options of a run that takes seconds."""

import contextlib
import io

from ftfl.cli import main

TINY = (
    "--profile probe --steps 60 --warmup-steps 20 --eval-every 30 --eval-episodes 1"
    " --checkpoint-every 30 --log-every 20 --sac.hidden 16 16 --sac.batch-size 16"
    " --sac.updates-per-step 1 --dynamics.hidden 16 16 --dynamics.max-updates 10"
    " --dynamics.members 2 --dynamics.elites 1 --rollouts.per-step 4 --rollouts.retention-steps 20"
).split()
MODEL_FREE = ["--algo", "sac", *TINY[: TINY.index("--dynamics.hidden")]]
"""The same without a model: far less to compile."""


def call(*argv):
    """Exit status, stdout and stderr of ``ftfl argv``; ``--help`` leaves by SystemExit."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(a) for a in argv])
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()
