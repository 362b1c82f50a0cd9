"""The process of an isolated environment, from the run's side: start, ask, notice its end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ftfl.envs.channel import BROKEN, CLOSE, MAKE, REFUSED, Channel
from ftfl.envs.faults import Violation
from ftfl.errors import FtflError

Order = tuple[str, int, float, bool]
"""Task, action repeat, reward unit, whether to render."""

FIRST_SECONDS = 60.0
"""The first request of each kind may take this long, or ten times the limit: there modules are
imported, files read and functions compiled."""
_END_SECONDS = 5.0
_PLACE_SECONDS = 0.5
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from ftfl.envs.serve import main; sys.exit(main(sys.argv[2:]))"
)
_log = logging.getLogger(__name__)


class EnvProcess:
    """Serves one environment (`envs.serve`) until it is closed, hangs or dies."""

    def __init__(self, order: Order, limit_seconds: float):
        """Start the process and make the environment in it.

        Raises:
            FtflError: it cannot be made (a `Violation` where making hangs or dies).
        """
        self._task, self._limit = order[0], limit_seconds
        self._first = max(FIRST_SECONDS, 10 * limit_seconds)
        self._answered: set[bytes] = set()
        module, _, attribute = self._task.partition(":")
        if module == "__main__":
            raise FtflError(
                f"{self._task} is defined in the script that runs, which no other process can "
                f"import: move {attribute} to a module, or leave step_limit_seconds out."
            )
        self._start()
        try:
            answer = self.ask(MAKE, json.dumps(order).encode(), "making the environment")
        except FtflError:
            self.close()
            raise
        self.made = json.loads(answer)
        """What was made there: ``obs_names`` and ``act_dim``."""

    @property
    def pid(self) -> int | None:
        """Its number, while it lives."""
        return None if self._process is None else self._process.pid

    def ask(self, letter: bytes, content: bytes, what: str) -> bytes:
        """Send a request and wait for the answer.

        Raises:
            Violation: of cause "hang" or "died" (the process is gone then), or what the
                environment did wrong.
            FtflError: the request was refused.
        """
        if self._process is None:
            raise Violation("died", "its process is gone and must be restarted")
        seconds = self._limit if letter in self._answered else self._first
        try:
            self._channel.send(letter, content)
            answer, content = self._channel.receive(seconds)
        except TimeoutError as error:
            raise self._hung(f"{what} took longer than {seconds:g} s") from error
        except (EOFError, OSError) as error:
            raise self._died(what) from error
        except BaseException:
            self._end()  # interrupted: its late answer would be taken for that of another request
            raise
        if answer == REFUSED:
            raise FtflError(content.decode())
        if answer == BROKEN:
            told = json.loads(content)
            raise Violation(told["cause"], told["what"], told["details"])
        self._answered.add(letter)
        return content

    def close(self) -> None:
        """Let the environment close itself, and end its process in any case."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            self._channel.send(CLOSE)
        try:
            self._process.wait(max(_END_SECONDS, self._limit))
        except subprocess.TimeoutExpired:
            _log.warning("%s: did not close in time and was killed", self._task)
        self._end()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._report, report = os.pipe()
        # What this process can import, that one can too.
        paths = [os.path.abspath(entry) for entry in sys.path]
        argv = [str(theirs.fileno()), str(report), str(2 * self._first)]
        try:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                [sys.executable, "-c", _CODE, json.dumps(paths), *argv],
                # Should it use JAX, then not with all the memory of the card we train on.
                env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
                pass_fds=(theirs.fileno(), report),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what it prints does not belong to the run's results
                # Ctrl-C is for the run, which ends the environment when it is ready to.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            os.close(self._report)
            raise FtflError(
                f"{self._task}: no process could be started for it ({error}); leave "
                "step_limit_seconds out to run it in the same one."
            ) from error
        finally:
            theirs.close()
            os.close(report)
        self._channel = Channel(ours)

    def _hung(self, what: str) -> Violation:
        process = self._process
        assert process is not None
        if process.poll() is not None:  # something it started holds the socket open
            return self._died(what.partition(" took")[0])
        process.send_signal(signal.SIGUSR2)
        select.select([self._report], [], [], _PLACE_SECONDS)
        time.sleep(_PLACE_SECONDS / 10)  # the first line is there, the rest comes at once
        details = self._end()
        return Violation("hang", what + _place(details), details)

    def _died(self, what: str) -> Violation:
        process = self._process
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        code = process.poll()
        details = self._end()
        if code is None:
            how = "closed its connection"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)}"
            how += " (perhaps for want of memory)" if code == -signal.SIGKILL else ""
        else:
            how = f"ended with exit code {code}"
        return Violation("died", f"its process {how} in {what}{_place(details)}", details)

    def _end(self) -> str:
        """End the process and whatever it has started; what it reported of its last place."""
        process, self._process = self._process, None
        if process is None:
            return ""
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._channel.close()
        os.set_blocking(self._report, False)
        try:
            details = os.read(self._report, 65_536)
        except BlockingIOError:  # something it started holds the pipe open
            details = b""
        os.close(self._report)
        return details.decode(errors="replace").strip()


def _place(report: str) -> str:
    """The innermost line of Python in what faulthandler wrote."""
    match = re.search(r'File "(.+)", line (\d+) in', report)
    return f" ({Path(match[1]).name}, line {match[2]})" if match else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
