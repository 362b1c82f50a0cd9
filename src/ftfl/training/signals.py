"""Ctrl-C and SIGTERM: the first asks the run to save and leave, the same one again means now.

Python runs signal handlers between bytecodes of the main thread, which may sit in a compiled refit
for a minute. The number of each signal is therefore also written to a pipe, where a thread reads
it at once: a second Ctrl-C ends the process even then.
"""

from __future__ import annotations

import os
import signal
import threading
from types import TracebackType

SAVED_EXIT = 75
"""Exit status of a run that was stopped and saved (EX_TEMPFAIL of sysexits.h: try again)."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether someone wants this process to save and leave; active as a context manager.

    With ``follow_parent`` the end of the parent process is such a wish too: a training process
    whose command was killed must not train on unseen.
    """

    def __init__(self, follow_parent: bool = False) -> None:
        self._received: set[int] = set()
        self._parent = os.getppid() if follow_parent else None
        self._restore: dict[int, object] = {}
        self._previous_pipe = -1

    @property
    def reason(self) -> str | None:
        """What asked for it, for example ``SIGTERM``; None: train on."""
        if self._received:
            return signal.Signals(min(self._received)).name
        if self._parent is not None and os.getppid() != self._parent:
            return "the end of the process that started it"
        return None

    def __enter__(self) -> StopRequest:
        # Python allows handlers in the main thread only; elsewhere signals keep their meaning.
        if threading.current_thread() is threading.main_thread():
            read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            self._previous_pipe = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            # A handler that does nothing: without one the signal would not reach the pipe.
            self._restore = {s: signal.signal(s, lambda *_: None) for s in _SIGNALS}
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

    def _listen(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number in self._received:
                    os._exit(128 + number)
                # A terminal's Ctrl-C reaches this process both directly and as the SIGTERM of the
                # command that started it: two kinds of signal are one wish.
                if number in _SIGNALS:
                    self._received.add(number)
        os.close(pipe)
