"""An environment that stops answering, and one that takes its time."""

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


def make_stuck():
    return Stuck()


def make_slow():
    return Slow()
