"""The process in which an isolated environment lives: answers requests until its run is gone.

Started by `envs.isolated`. It ends by itself when the run does, however that dies: the socket then
reads its end, and an alarm ends a step that would otherwise hang for ever with nobody to stop it.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import socket
from collections.abc import Sequence

import numpy as np

from ftfl.envs.channel import (
    BROKEN,
    CLOSE,
    DONE,
    MAKE,
    REFUSED,
    RENDER,
    RESET,
    STEP,
    Channel,
    pack_picture,
    pack_step,
    unpack_seed,
)
from ftfl.envs.faults import as_violation
from ftfl.envs.guard import Adapter
from ftfl.errors import FtflError
from ftfl.types import Step


def main(argv: Sequence[str]) -> int:
    """Serve ``SOCKET REPORT SECONDS``: two open file descriptors and the longest request.

    Python's place is written to ``REPORT`` at a crash and at SIGUSR2, even out of compiled code.
    """
    end, report, seconds = socket.socket(fileno=int(argv[0])), int(argv[1]), float(argv[2])
    end.set_inheritable(False)
    faulthandler.enable(report, all_threads=False)
    faulthandler.register(signal.SIGUSR2, report, all_threads=False)
    # The run decides when to stop. Not SIG_IGN, which programs that the environment starts inherit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    _serve(Channel(end), seconds)
    return 0


def _serve(channel: Channel, seconds: float) -> None:
    adapter: Adapter | None = None
    while True:
        try:
            letter, content = channel.receive()
        except (EOFError, OSError):
            letter, content = CLOSE, b""
        signal.setitimer(signal.ITIMER_REAL, seconds)
        if letter == CLOSE:
            if adapter is not None:
                adapter.close()
            return
        try:
            if letter == MAKE:
                adapter = _make(content)
                made = {"obs_names": adapter.spec.obs_names, "act_dim": adapter.spec.act_dim}
                answer = json.dumps(made).encode()
            elif adapter is None:
                raise FtflError("the environment has not been made yet.")
            else:
                answer = _answer(adapter, letter, content)
            reply = (DONE, answer)
        except Exception as error:  # noqa: BLE001 - it crosses as text
            reply = _failure(error, letter)
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            channel.send(*reply)
        except OSError:
            return


def _make(content: bytes) -> Adapter:
    from ftfl.envs.make import make_adapter

    return make_adapter(*json.loads(content))


def _answer(adapter: Adapter, letter: bytes, content: bytes) -> bytes:
    if letter == RENDER:
        return pack_picture(adapter.render())
    if letter == RESET:
        step = Step(adapter.reset(unpack_seed(content)), 0.0, False, False)
    else:
        step = adapter.step(np.frombuffer(content, np.float32).copy())
    return pack_step(step, adapter.simulator_warnings())


def _failure(error: Exception, letter: bytes) -> tuple[bytes, bytes]:
    if letter in (MAKE, RENDER) and isinstance(error, FtflError):
        return REFUSED, str(error).encode()
    violation = as_violation(error, {RESET: "reset", STEP: "step"}.get(letter, "render"))
    text = {"cause": violation.cause, "what": str(violation), "details": violation.details}
    return BROKEN, json.dumps(text).encode()
