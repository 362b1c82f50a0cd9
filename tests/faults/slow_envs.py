"""Environments that stop answering, wait to be freed, or take their time."""

import os
import time
from pathlib import Path

from envs_for_tests import Lqr


class Stuck(Lqr):
    replayable = True

    def step(self, action):
        if self.t == 5:
            Path(os.environ["STUCK_FILE"]).touch()
            time.sleep(120)
        return super().step(action)


class Slow(Lqr):
    replayable = True

    def step(self, action):
        time.sleep(0.04)
        return super().step(action)


class Held(Lqr):
    """At its sixtieth step it says so, and waits until it may go on."""

    replayable = True
    steps = 0

    def step(self, action):
        self.steps += 1
        folder = Path(os.environ.get("HELD_IN", ""))
        if "HELD_IN" in os.environ and self.steps == 60:
            (folder / "held").touch()
            while not (folder / "free").exists():
                time.sleep(0.01)
        return super().step(action)


def make_stuck():
    return Stuck()


def make_held():
    return Held()


def make_slow():
    return Slow()
