"""Screens that tests name as own_screens:NAME, most of them with one mistake each."""

import jax.numpy as jnp

from ftfl.rollouts.screens import Screened, ScreenRule


def half(key, predictions, step, active, state):
    everyone = jnp.ones_like(active)
    store = jnp.arange(active.shape[0]) % 2 == 0
    return Screened(predictions.next_obs, predictions.reward, store, everyone, state)


def nothing(key, predictions, step, active, state):
    none = jnp.zeros_like(active)
    return Screened(predictions.next_obs, predictions.reward, none, none, state)


def one_number(key, predictions, step, active, state):
    return half(key, predictions, step, active, state)._replace(store=jnp.array(True))


def as_floats(key, predictions, step, active, state):
    return half(key, predictions, step, active, state)._replace(proceed=active.astype(float))


def a_tuple(key, predictions, step, active, state):
    return tuple(half(key, predictions, step, active, state))


def branching(key, predictions, step, active, state):
    if predictions.reward[0] > 0:
        return half(key, predictions, step, active, state)
    return nothing(key, predictions, step, active, state)


def three(key, predictions, step):
    return None


def counting(key, predictions, step, active, state):
    return half(key, predictions, step, active, state)._replace(state={"seen": state["seen"] + 1})


def forgetful(key, predictions, step, active, state):
    return half(key, predictions, step, active, ())


counted = ScreenRule(counting, {"seen": 0})
forgotten = ScreenRule(forgetful, {"seen": 0})
number = 3
