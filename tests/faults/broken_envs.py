"""Environments that break one rule each, named like a user's: ``broken_envs:NanObservation``.

`CATALOGUE` says for each when it is noticed and in which words; `HARMLESS` lists those that look
odd and must work exactly.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

MAKE, RESET = "make", 0
STEPS = 20
AT = 3  # the step at which most of them break


@dataclasses.dataclass(frozen=True)
class Broken:
    """One entry: what is made, when it breaks, and what is said."""

    name: str
    moment: str | int
    """``MAKE``, ``RESET``, or the step of the episode."""
    message: str
    """A regular expression that the sentence must hold."""
    cause: str | None
    episode: int
    isolated: bool


CATALOGUE: list[Broken] = []
HARMLESS: list[str] = []


def broken(
    moment: str | int,
    message: str,
    cause: str | None = None,
    *,
    episode: int = 1,
    isolated: bool = False,
) -> Callable[[Any], Any]:
    def enter(make: Any) -> Any:
        CATALOGUE.append(Broken(make.__name__, moment, message, cause, episode, isolated))
        return make

    return enter


def harmless(make: Any) -> Any:
    HARMLESS.append(make.__name__)
    return make


def box(*shape: int, low: float = -1.0, high: float = 1.0, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


class Sound(gymnasium.Env):
    """Keeps every rule: counts its steps, beside a random start."""

    observation_space: spaces.Space = box(2, low=-np.inf, high=np.inf)
    action_space: spaces.Space = box(1)
    termination_fn: Any = "never"
    replayable = True
    _max_episode_steps: Any = STEPS

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.start = 0, self.np_random.normal()
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        return self.observe(), self.reward(), False, self.steps == STEPS, {}

    def observe(self):
        return np.array([self.steps, self.start], np.float32)

    def reward(self):
        return 0.5


# Observations ------------------------------------------------------------------------------------


def observing(value: Any, steps: Callable[[int], bool] = lambda step: step == AT) -> Any:
    """An ``observe`` that returns ``value`` at some steps."""

    def observe(self: Any) -> Any:
        return value if steps(self.steps) else Sound.observe(self)

    return observe


@broken(AT, r"not finite: obs\[0\]", "observation")
class NanObservation(Sound):
    observe = observing(np.array([np.nan, 0.0]))


@broken(AT, r"not finite: obs\[1\]", "observation")
class InfiniteObservation(Sound):
    observe = observing(np.array([0.0, -np.inf], np.float32))


@broken(RESET, r"not finite: obs\[0\], obs\[1\]", "observation")
class NanAtReset(Sound):
    observe = observing(np.full(2, np.nan), lambda step: step == 0)


@broken(AT, r"not finite: obs\[1\]", "observation")
class Float64Overflow(Sound):
    observation_space = box(2, low=-np.inf, high=np.inf, dtype=np.float64)
    observe = observing(np.array([0.0, 1e39]))


@broken(RESET, r"observation part 'obs' has shape \(3,\), declared is \(2,\)", "contract")
class WrongShape(Sound):
    observe = observing(np.zeros(3, np.float32), lambda step: True)


@broken(AT, r"observation part 'obs' has shape \(1, 2\), declared is \(2,\)", "contract")
class ShapeChanges(Sound):
    observe = observing(np.zeros((1, 2), np.float32))


@broken(AT, "observation part 'obs' has dtype object, which is not numbers", "contract")
class ObjectObservation(Sound):
    observe = observing(np.array([1.0, 2.0], object))


@broken(AT, r"observation part 'obs' is \['one', 'two'\], which is not numbers", "contract")
class StringObservation(Sound):
    observe = observing(["one", "two"])


@broken(AT, "observation part 'obs' has dtype complex128, which is not numbers", "contract")
class ComplexObservation(Sound):
    observe = observing(np.array([1.0, 2.0j]))


@broken(AT, r"observation part 'obs' is \[1.0, \[2.0, 3.0\]\], which is no array", "contract")
class RaggedObservation(Sound):
    observe = observing([1.0, [2.0, 3.0]])


@broken(AT, "observation part 'obs' is None, which is not numbers", "contract")
class NoObservation(Sound):
    observe = observing(None)


@broken(AT, "observation part 'leg/knee' is missing", "contract")
class MissingPart(Sound):
    observation_space = spaces.Dict(arm=box(1), leg=spaces.Dict(knee=box(1)))

    def observe(self):
        leg = {} if self.steps == AT else {"knee": np.zeros(1)}
        return {"arm": np.zeros(1), "leg": leg}


# Rewards and flags -------------------------------------------------------------------------------


def answering(**changes: Any) -> Any:
    """A ``step`` that changes its answer at one step."""

    def step(self: Any, action: Any) -> Any:
        names = ("obs", "reward", "terminated", "truncated", "info")
        answer = dict(zip(names, Sound.step(self, action), strict=True))
        return tuple((answer | (changes if self.steps == AT else {})).values())

    return step


@broken(AT, "the reward is nan", "reward")
class NanReward(Sound):
    step = answering(reward=np.nan)


@broken(AT, "the reward is -inf", "reward")
class InfiniteReward(Sound):
    step = answering(reward=-np.inf)


@broken(AT, r"the reward is 1e\+39", "reward")
class RewardBeyondFloat32(Sound):
    step = answering(reward=1e39)


@broken(AT, "the reward is None, which is not a number", "contract")
class NoReward(Sound):
    step = answering(reward=None)


@broken(AT, r"the reward is array\(\[0., 0.\]\), which is not a number", "contract")
class ArrayReward(Sound):
    step = answering(reward=np.zeros(2))


@broken(AT, "the reward is 'plenty', which is not a number", "contract")
class WordReward(Sound):
    step = answering(reward="plenty")


@broken(AT, "terminated is 1, which is neither True nor False", "contract")
class NumberFlag(Sound):
    step = answering(terminated=1)


@broken(AT, "terminated is nan, which is neither True nor False", "contract")
class NanFlag(Sound):
    step = answering(terminated=np.nan)


@broken(AT, "truncated is None, which is neither True nor False", "contract")
class NoFlag(Sound):
    step = answering(truncated=None)


class _Unprintable:
    def __repr__(self):
        raise RuntimeError("not even this works")


@broken(AT, "the reward is <_Unprintable instance at .*>, which is not a number", "contract")
class UnprintableReward(Sound):
    step = answering(reward=_Unprintable())


# Interfaces --------------------------------------------------------------------------------------


@broken(RESET, r"reset returned no \(observation, info\) pair, which is Gym's .*0\.26", "contract")
class OldReset(Sound):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


@broken(1, r"step returned 4 values, which is Gym's interface before 0\.26: return", "contract")
class OldStep(Sound):
    def step(self, action):
        return (*super().step(action)[:3], {})


@broken(1, "step returned 1 value: return", "contract")
class StepForgetsToReturn(Sound):
    def step(self, action):
        super().step(action)


@broken(MAKE, r"reset takes no seed, which is Gym's interface before 0\.26")
class UnseededReset(Sound):
    def reset(self):
        return super().reset()


@broken(MAKE, "returned a _Shell without step")
def NoStep():
    return _Shell()


class _Shell:
    observation_space = action_space = box(1)

    def reset(self, *, seed=None):
        return np.zeros(1), {}


@broken(MAKE, "returned a NoneType without reset")
def ReturnsNothing():
    return None


# Exceptions --------------------------------------------------------------------------------------


@broken(
    AT,
    r"step raised ZeroDivisionError: the gear box \(broken_envs\.py, line \d+\) \(at step",
    "exception",
)
class RaisesInStep(Sound):
    def reward(self):
        if self.steps == AT:
            raise ZeroDivisionError("the gear box\nis stuck.")
        return 0.5


@broken(RESET, "reset raised OSError: no robot", "exception")
class RaisesInReset(Sound):
    def reset(self, *, seed=None, options=None):
        raise OSError("no robot")


@broken(RESET, "reset raised KeyError: 'goal'", "exception", episode=2)
class RaisesInSecondReset(Sound):
    episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        if self.episodes == 2:
            raise KeyError("goal")
        return super().reset(seed=seed)


class _Mute(Exception):
    def __str__(self):
        raise RuntimeError("not even this works")


@broken(AT, r"step raised _Mute: its message cannot be printed", "exception")
class RaisesUnprintable(Sound):
    def reward(self):
        if self.steps == AT:
            raise _Mute
        return 0.5


@broken(AT, r"step raised RecursionError", "exception")
class Recurses(Sound):
    def reward(self):
        return self.reward() if self.steps == AT else 0.5


@broken(MAKE, r"cannot be made: it raised RuntimeError: no licence \(broken_envs\.py, line \d+\)\.")
def RaisesAtMake():
    raise RuntimeError("no licence")


@broken(MAKE, "cannot be made: LookupError: which space")
class RaisesInSpace(Sound):
    @property
    def observation_space(self):
        raise LookupError("which space?")


# Processes ---------------------------------------------------------------------------------------


@broken(AT, r"step took longer than 1 s \(broken_envs\.py, line \d+\) \(at", "hang", isolated=True)
class HangsInStep(Sound):
    def reward(self):
        while self.steps == AT:
            time.sleep(0.01)
        return 0.5


@broken(
    RESET,
    r"reset took longer than 1 s \(broken_envs\.py, line \d+\) \(at",
    "hang",
    episode=2,
    isolated=True,
)
class HangsInSecondReset(Sound):
    def reset(self, *, seed=None, options=None):
        if hasattr(self, "steps"):
            time.sleep(3600)
        return super().reset(seed=seed)


@broken(AT, "its process ended with exit code 7 in step", "died", isolated=True)
class Exits(Sound):
    def reward(self):
        if self.steps == AT:
            os._exit(7)
        return 0.5


@broken(AT, "its process ended with exit code 3 in step", "died", isolated=True)
class ExitsPolitely(Sound):
    def reward(self):
        if self.steps == AT:
            sys.exit(3)
        return 0.5


@broken(
    AT,
    r"its process was killed by SIGSEGV in step \(__init__\.py, line \d+\) \(at",
    "died",
    isolated=True,
)
class Crashes(Sound):
    def reward(self):
        if self.steps == AT:
            ctypes.string_at(0)
        return 0.5


@broken(RESET, "its process was killed by SIGKILL .perhaps for want of memory. in reset", "died",
        isolated=True)  # fmt: skip
class IsKilled(Sound):
    def reset(self, *, seed=None, options=None):
        os.kill(os.getpid(), signal.SIGKILL)


# Spaces ------------------------------------------------------------------------------------------


@broken(MAKE, "has a Discrete action space; only continuous actions")
class DiscreteActions(Sound):
    action_space = spaces.Discrete(3)


@broken(MAKE, "has a MultiBinary action space; only continuous actions")
class BinaryActions(Sound):
    action_space = spaces.MultiBinary(3)


@broken(MAKE, "has actions of dtype int64; only floating-point numbers")
class IntegerActions(Sound):
    action_space = box(1, low=0, high=9, dtype=np.int64)


@broken(MAKE, r"bounds action 0 by \[-inf, inf\], .* finite bounds with low < high")
class UnboundedActions(Sound):
    action_space = box(1, low=-np.inf, high=np.inf)


@broken(MAKE, r"bounds action 0 by \[2, -2\], .* finite bounds with low < high")
class CrossedBounds(Sound):
    def __init__(self):
        self.action_space = box(1)
        self.action_space.low[:], self.action_space.high[:] = 2, -2


@broken(MAKE, r"has actions of shape \(0,\)")
class NoActions(Sound):
    action_space = box(0)


@broken(MAKE, r"has actions of shape \(2, 2\)")
class MatrixActions(Sound):
    action_space = box(2, 2)


@broken(MAKE, "has an empty observation space")
class EmptyObservation(Sound):
    observation_space = box(0)


@broken(MAKE, "has an empty observation space")
class EmptyDict(Sound):
    observation_space = spaces.Dict()


@broken(MAKE, r"observes pixels \(shape \(8, 8, 3\), uint8\); only vectors")
class Pixels(Sound):
    observation_space = box(8, 8, 3, low=0, high=255, dtype=np.uint8)


@broken(MAKE, "has a Tuple observation; only Box vectors and dictionaries")
class TupleObservation(Sound):
    observation_space = spaces.Tuple([box(1), box(1)])


@broken(MAKE, "returned a NoObservationSpace without observation_space: return an environment with")
class NoObservationSpace(Sound):
    observation_space = None  # type: ignore[assignment]


@broken(MAKE, "has a time limit of 'long' steps; it must be a whole number")
class WordLimit(Sound):
    _max_episode_steps = "long"


@broken(MAKE, "has a time limit of 0 steps; it must be a whole number")
class ZeroLimit(Sound):
    _max_episode_steps = 0


# Functions for the model -------------------------------------------------------------------------


@broken(MAKE, "termination_fn cannot be traced by JAX .*; write it with jax.numpy")
class TerminationBranches(Sound):
    termination_fn = staticmethod(lambda obs, action, next_obs: next_obs[0, 0] > 1 or False)


@broken(MAKE, r"termination_fn maps .*it must give shape \(7,\) and dtype bool")
class TerminationShape(Sound):
    termination_fn = staticmethod(lambda obs, action, next_obs: next_obs > 1)


@broken(MAKE, r"termination_fn = 'perhaps'; allowed are")
class TerminationWord(Sound):
    termination_fn = "perhaps"


@broken(
    MAKE, r"reward_fn cannot be traced by JAX \(KeyError: 'goal' \(broken_envs\.py, line \d+\)\)"
)
class RewardFunctionRaises(Sound):
    reward_fn = staticmethod(lambda obs, action, next_obs: {}["goal"])


# Physics -----------------------------------------------------------------------------------------


@broken(AT, r"MuJoCo warned mjWARN_BAD\w+: the simulated state is not valid", "simulator")
class Diverges(gymnasium.Wrapper):
    """Gymnasium itself says nothing: finite numbers, no flag, and a state that started anew."""

    termination_fn = "never"
    steps = 0

    def __init__(self):
        super().__init__(gymnasium.make("HalfCheetah-v5"))

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return super().reset(seed=seed)

    def step(self, action):
        self.steps += 1
        if self.steps == AT:
            self.unwrapped.data.qvel[:] = 1e9
        return super().step(action)


# Odd, and fine -----------------------------------------------------------------------------------


@harmless
class Asymmetric(Sound):
    """Shows the action that arrived."""

    action_space = spaces.Box(np.array([-4.0]), np.array([2.0]), dtype=np.float64)

    def step(self, action):
        _, *rest = super().step(action)
        return np.array([action[0], self.start]), *rest


@harmless
class Nested(Sound):
    observation_space = spaces.Dict(
        OrderedDict(
            leg=spaces.Dict(OrderedDict(knee=box(1), hip=box(1))), clock=box(low=0, high=STEPS)
        )
    )

    def observe(self):
        return {"clock": self.steps, "leg": {"hip": [0.25], "knee": [self.start]}}


@harmless
class OneStepEpisodes(Sound):
    termination_fn = staticmethod(lambda obs, action, next_obs: next_obs[..., 0] >= 1)

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        return obs, reward, True, False, info


@harmless
class SameArray(Sound):
    """Returns one array for ever, and fills it anew."""

    def observe(self):
        self.array = getattr(self, "array", np.zeros(2, np.float32))
        self.array[:] = self.steps, self.start
        return self.array


@harmless
class Scribbles(Sound):
    """Writes into what it has returned."""

    last: Any = None

    def observe(self):
        if self.last is not None:
            self.last[:] = np.nan
        self.last = super().observe()
        return self.last


@harmless
class EatsActions(Sound):
    def step(self, action):
        action[:] = np.nan
        return super().step(action)


@harmless
class LeavesItsBox(Sound):
    observation_space = box(2)


@harmless
class NeverEnds(Sound):
    _max_episode_steps = None

    def step(self, action):
        return (*super().step(action)[:3], False, {})


@harmless
class HugeReward(Sound):
    """Once in a thousand steps, a billion times the usual."""

    taken = 0

    def reward(self):
        self.taken += 1
        return 5e8 if self.taken % 1000 == 150 else 0.5


@harmless
class NumpyScalars(Sound):
    observation_space = box(2, low=0, high=1, dtype=np.int8)

    def observe(self):
        return [bool(self.steps % 2), np.True_]

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, np.array(reward, np.float16), np.bool_(terminated), np.bool_(truncated), info


@harmless
class LargeIntegers(Sound):
    def observe(self):
        return np.array([10**9 + self.steps, self.start])


@harmless
class RaisesInClose(Sound):
    def close(self):
        raise OSError("the door is stuck")


@harmless
class Talks(Sound):
    def reward(self):
        print("hello")
        return 0.5


# For a process of their own ----------------------------------------------------------------------


class Draws(Sound):
    """A picture whose first pixel counts the steps."""

    render_mode = "rgb_array"

    def render(self):
        picture = np.zeros((3, 4, 3), np.uint8)
        picture[0, 0, 0] = self.steps
        return picture


class ClosedForToday(Sound):
    """Cannot be made again once the variable is set."""

    def __init__(self):
        if "BROKEN_ENVS_CLOSED" in os.environ:
            raise OSError("closed for today")


class Grows(Sound):
    """Has one more observation once the variable is set."""

    def __init__(self):
        if "BROKEN_ENVS_GROWN" in os.environ:
            self.observation_space = box(3, low=-np.inf, high=np.inf)


class HangsAtMake(Sound):
    def __init__(self):
        time.sleep(3600)


class ExitsAtMake(Sound):
    def __init__(self):
        os._exit(7)


class HangsInClose(Sound):
    def close(self):
        if "FTFL_TEST_PARENT" not in os.environ:
            time.sleep(3600)


class HangsWithCompany(Sound):
    """Tells the number of a program that it has started, and hangs at the second step."""

    def observe(self):
        if self.steps == 0:
            program = subprocess.Popen(["sleep", "3600"])
            return np.array([program.pid, 0], np.float32)
        if self.steps == 2:
            time.sleep(3600)
        return super().observe()


# Broken promises that only many steps show: `ftfl doctor` ----------------------------------------


class Unrepeatable(Sound):
    """Declares itself replayable, and is not."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = np.random.default_rng().normal()
        return self.observe(), {}


class RepeatableOnce(Sound):
    """Every instance is repeatable, and no two are alike."""

    def __init__(self):
        self.offset = np.random.default_rng().normal()

    def observe(self):
        return super().observe() + np.float32(self.offset)


class Unrepeatable2(Unrepeatable):
    """Declares nothing."""

    replayable = False


class Deaf(Sound):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=0)


class IgnoresItsLimit(Sound):
    def step(self, action):
        return (*super().step(action)[:3], False, {})


class WrongTermination(Sound):
    termination_fn = staticmethod(lambda obs, action, next_obs: next_obs[..., 0] > 15)


class WrongReward(Sound):
    reward_fn = staticmethod(lambda obs, action, next_obs: 0.25 * jnp.ones_like(obs[..., 0]))


class Silent(Sound):
    termination_fn = None
