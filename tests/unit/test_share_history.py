"""Shares over training, on linear data with set scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ftfl.dynamics import ensemble as ens
from ftfl.dynamics import predict
from ftfl.errors import FtflError
from ftfl.forensics.instruments.share_history import share_history
from ftfl.forensics.refits import holdout_seed
from ftfl.forensics.rows import ring_of
from ftfl.replay import Split
from known_cases import likelihood, linear, model, trained_on

pytestmark = pytest.mark.usefixtures("quick_compiles")
ROWS = linear(600, (40.0, 1.0), 1.0, noise=0.1)
RAW, UNIT = (model(preset, learning_rate=3e-3) for preset in ("mbpo", "mbpo-unit"))
OUTPUTS = slice(-1, None), slice(None, -1)
"""The reward, and the rest."""


@pytest.fixture(scope="module")
def followed(quick_compiles):
    """Both over 200 updates."""
    return [share_history(ROWS, config, 200) for config in (RAW, UNIT)]


def at_start(rows, config):
    """Shares of an untrained model, worked out from what it says and from its likelihood alone."""
    split = Split(config.holdout_every, holdout_seed(0))
    rows = jax.tree.map(np.asarray, trained_on(ring_of(rows), split))
    x = np.concatenate([rows.obs, rows.action], axis=1)
    x = jnp.asarray((x - x.mean(axis=0)) / x.std(axis=0))
    z = np.column_stack([rows.next_obs - rows.obs, rows.reward])
    if config.scale == "unit":
        z = (z - z.mean(axis=0)) / z.std(axis=0)
    key = jax.random.fold_in(jax.random.key(0), 0)
    net = predict.init(key, rows.obs.shape[1], rows.action.shape[1], config).ensemble
    mean, logvar = (np.asarray(part) for part in ens.forward(net, x, jnp.zeros(z.shape[1])))
    squares = ((z - mean) ** 2 * np.exp(-logvar)).mean(axis=1)

    def of_trunk(loss):
        """Gradients (E, weights) on the shared layers."""
        layers = jax.jit(jax.grad(lambda n: loss(n).sum()))(net).trunks[0].layers[:-1]
        parts = [part for layer in layers for part in (layer.weight, layer.bias)]
        return np.concatenate(
            [np.asarray(p, np.float64).reshape(len(p), -1) for p in parts], axis=1
        )

    def share(mine, rest):
        mine, rest = (mine**2).sum(axis=1), (rest**2).sum(axis=1)
        return np.sqrt(mine / (mine + rest)).mean()

    def squared(n, target):
        out = ens.forward(n, x, jnp.zeros(z.shape[1]))
        known = jnp.exp(-jax.lax.stop_gradient(out.logvar))
        return ((out.mean - target[None]) ** 2 * known).mean(axis=1)

    targets = jnp.asarray(z)
    still = jnp.broadcast_to(targets.mean(axis=0)[None], targets.shape)
    whole = [of_trunk(lambda n, o=o: likelihood(n, x, targets)[:, o]) for o in OUTPUTS]
    signal = [
        of_trunk(lambda n, o=o: (squared(n, targets) - squared(n, still))[:, o]) for o in OUTPUTS
    ]
    length = np.hypot(*whole)
    return {
        "loss": (squares[:, -1] / squares.sum(axis=1)).mean(),
        "gradient": share(*whole),
        "signal_gradient": share(*signal),
        # Adam's first step divides every weight's gradient by its size.
        "adam_step": share(*(part / np.where(length > 0, length, 1) for part in whole)),
    }


def test_a_rewards_share_is_followed_from_the_start_through_training(followed):
    """A channel forty times the reward owns loss and signal at first; unit scale shares alike."""
    raw, unit = followed
    assert list(raw.shares) == [0, 10, 100, 200]
    for found, config in ((raw, RAW), (unit, UNIT)):
        for name, share in at_start(ROWS, config).items():
            assert getattr(found.shares[0], name).value == pytest.approx(share, rel=1e-3), name
    # 1 of 40² + 1 + 1, and its root
    assert raw.shares[0].loss.value == pytest.approx(1 / (40**2 + 2), rel=0.15)
    assert raw.shares[0].signal_gradient.value == pytest.approx((40**2 + 2) ** -0.5, rel=0.2)
    # The reward's grows as the channel is fitted, as far as the cap lets it: 10 % of the channel
    # is noise, so that of three squares ÷ variance its own is 4² e^{−½} and theirs are 1.
    assert raw.shares[0].loss.value < raw.shares[200].loss.value / 10
    assert raw.shares[200].loss.value < 1 / (4**2 * np.exp(-0.5) + 2)
    for found in unit.shares.values():
        assert found.loss.value == pytest.approx(1 / 3, rel=0.35)
    assert raw.numbers()["after"]["0"]["loss"] == raw.shares[0].loss
    assert raw.findings() == []


def test_the_end_is_the_same_as_a_training_of_so_many_updates(followed):
    long, short = followed[1], share_history(ROWS, UNIT, 10)
    assert long.shares[10].numbers()["loss"] == short.shares[10].numbers()["loss"]
    assert long.shares[10].numbers()["adam_step"] == short.shares[10].numbers()["adam_step"]
    assert list(short.shares) == [0, 10]


def test_a_reward_of_its_own_network_and_too_few_rows_are_refused():
    rows = linear(300, (1.0,), 1.0)
    with pytest.raises(FtflError, match="reward_model=separate"):
        share_history(rows, model(reward_model="separate"), 10)
    with pytest.raises(FtflError, match="9 rows, but shares over training need at least 10"):
        share_history(linear(9, (1.0,), 1.0), model(), 10)
