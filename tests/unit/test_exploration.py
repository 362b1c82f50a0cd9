"""What is played while learning: draws, the mean, or pink noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl.config import SacConfig
from ftfl.nets import TanhNormal
from ftfl.training.exploration import act, pink_noise
from ftfl.training.state import Stream, stream_key

POLICY = TanhNormal(jnp.float32([[0.3, -0.2]]), jnp.float32([[-1.0, 0.5]]))
ROOT = jax.random.key(4)


def play(kind, step):
    return np.asarray(act(POLICY, ROOT, jnp.int32(step), SacConfig(exploration=kind)))


@pytest.mark.parametrize("steps", [1_000, 999])
def test_pink_noise_is_of_unit_variance_and_falls_as_one_over_f(steps):
    noise = np.asarray(jax.jit(pink_noise, static_argnums=(1, 2))(ROOT, steps, 400))
    assert noise.shape == (steps, 400)
    # Over many sequences; within one, low frequencies make the mean wander.
    assert np.sqrt((noise**2).mean()) == pytest.approx(1.0, rel=0.05)
    power = (np.abs(np.fft.rfft(noise, axis=0)) ** 2).mean(axis=1)
    frequency = np.fft.rfftfreq(steps)
    middle = slice(3, -3)
    slope = np.polyfit(np.log(frequency[middle]), np.log(power[middle]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.03)
    # Dimensions are independent.
    assert np.abs(np.corrcoef(noise.T) - np.eye(400)).mean() < 0.15


def test_the_mean_is_the_policys_mode():
    np.testing.assert_array_equal(play("mean", 0), POLICY.mode())
    np.testing.assert_array_equal(play("mean", 1), play("mean", 0))


def test_a_draw_is_the_streams_own():
    wanted = POLICY.sample(stream_key(ROOT, Stream.ACT, 7))[0]
    np.testing.assert_array_equal(play("sample", 7), wanted)


def test_pink_actions_follow_one_sequence_for_a_thousand_steps():
    noise = pink_noise(stream_key(ROOT, Stream.ACT, 0), 1_000, 2)
    after = pink_noise(stream_key(ROOT, Stream.ACT, 1), 1_000, 2)
    for step, value in ((0, noise[0]), (999, noise[999]), (1_000, after[0])):
        np.testing.assert_allclose(play("pink", step), POLICY.transform(value[None])[0], rtol=1e-5)
