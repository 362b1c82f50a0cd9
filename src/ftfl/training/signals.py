"""Ctrl-C and SIGTERM: the first asks the run to save and leave, the same one again means now.

Python runs signal handlers between bytecodes of the main thread, which may sit in a compiled refit
for a minute. The number of each signal is therefore also written to a pipe, where a thread reads
it at once: a second Ctrl-C ends the process even then.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import TracebackType

SAVED_EXIT = 75
"""Exit status of a run that was stopped and saved (EX_TEMPFAIL of sysexits.h: try again)."""

ASK = signal.SIGUSR1
"""How a command asks the runs it started; a batch system's early warning is often the same."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, ASK)
_REPEAT_SECONDS = 1.0
"""Within it, the same signal again is the same wish: `timeout` and batch systems send it both to a
process and to its group."""


def catchable(signals: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """Those that were not ignored from the start, as ``nohup`` or a shell's ``&`` ask for."""
    return [s for s in signals if signal.getsignal(s) != signal.SIG_IGN]


class StopRequest:
    """Whether someone wants this process to save and leave; active as a context manager.

    With the number of a ``parent`` process its end is such a wish too: a training process whose
    command was killed must not train on unseen; and a second wish ends this process at once.
    Without, it is a KeyboardInterrupt: the process belongs to the user.
    """

    def __init__(self, parent: int | None = None) -> None:
        self._received: dict[int, float] = {}
        self._parent = parent
        self._restore: dict[int, object] = {}
        self._previous_pipe = -1

    @property
    def reason(self) -> str | None:
        """What asked for it, for example ``SIGTERM``; None: train on."""
        if self._received:
            return signal.Signals(next(iter(self._received))).name
        if self._parent is not None and os.getppid() != self._parent:
            return "the end of the process that started it"
        return None

    def __enter__(self) -> StopRequest:
        # Python allows handlers in the main thread only; elsewhere signals keep their meaning.
        if threading.current_thread() is threading.main_thread():
            read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            self._previous_pipe = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            self._restore = {s: signal.signal(s, self._handle) for s in catchable(_SIGNALS)}
            threading.Thread(target=self._listen, args=(read,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._restore:
            signal.set_wakeup_fd(self._previous_pipe)
            for number, handler in self._restore.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
            self._restore = {}
            os.close(self._write)  # the thread reads the end of the pipe and ends too

    def _handle(self, number: int, _: object) -> None:
        # Without a handler the signal would not reach the pipe.
        first = self._received.setdefault(number, time.monotonic())
        if self._parent is None and time.monotonic() - first > _REPEAT_SECONDS:
            raise KeyboardInterrupt

    def _listen(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                # A terminal's Ctrl-C reaches this process both directly and as the wish of the
                # command that started it: two kinds of signal are one wish.
                if number not in self._restore:
                    continue
                first = self._received.setdefault(number, time.monotonic())
                if self._parent is not None and time.monotonic() - first > _REPEAT_SECONDS:
                    os._exit(128 + number)
        os.close(pipe)
