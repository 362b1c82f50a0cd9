"""Every equation of docs/theory.md with its measurement: arrays to compare, to test and to draw.

Each function returns what the formula says and what the code (or a system solved exactly, or a
simulation) gives, at the same places. Inputs may be shared (a network's weights, an MDP); what the
formula says of them is never used to measure. tests/theory holds both sides together; figures.py
draws them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from ftfl import presets
from ftfl.dynamics import ensemble as ens
from ftfl.envs.make import make_env
from ftfl.nets import Linear, Optimiser


@dataclass(frozen=True)
class Compared:
    """A formula against its measurement."""

    x: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray
    usual: np.ndarray | None = None
    """What a simpler rule would say, where docs/theory.md discusses one."""


# Scale: what a reward's unit does at initialisation ------------------------------------------

POWERS = np.arange(0, 15, 2)


class _Start:
    """One untrained member of the probe profile, 4 channels of scale 1 and a reward."""

    def __init__(self) -> None:
        config = presets.build("probe/rest", "mbpo", "probe").dynamics
        assert config is not None
        self.config = config
        generator = np.random.default_rng(0)
        x = generator.normal(size=(512, 6))
        mix = generator.normal(size=(6, 5)) / math.sqrt(6)
        targets = np.tanh(x @ mix)
        self.targets = (targets / targets.std(axis=0)).astype(np.float32)
        self.x = jnp.asarray(x, jnp.float32)
        self.net = ens.init(jax.random.key(0), 4, 2, config, learn_termination=False)

    def layers(self) -> list[Linear]:
        """The output layer last; reward and channels share all but it."""
        return self.net.trunks[0].layers

    def forward(self, layers: list[Linear]) -> ens.Gaussian:
        """The package's network with these layers."""
        net = eqx.tree_at(lambda n: n.trunks[0].layers, self.net, layers)
        return ens.forward(net, self.x, jnp.zeros(5))

    def squared(self, layers: list[Linear], unit: jax.Array | float) -> jax.Array:
        """(D,): the squared-error part of each output's loss, the reward paid times ``unit``."""
        mean, logvar = self.forward(layers)
        known = jax.lax.stop_gradient(logvar)
        target = jnp.asarray(self.targets) * jnp.asarray([1, 1, 1, 1, unit], jnp.float32)[None]
        return jnp.mean(ens.nll(ens.Gaussian(mean, known), target) - known, axis=(0, 1))


REWARD, CHANNELS = slice(4, 5), slice(0, 4)


def _flat(tree: list) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def loss_share() -> Compared:
    """T1: the reward's share of the squared error, reward × 2^-k.

    Predicted: (u² E[r²] − 2u E[rμ] + m²) / (the same summed over outputs), m² the untrained
    network's own output, rows weighted by e^{−ℓ}. Measured: the package's loss of those targets.
    """
    start = _Start()
    layers = start.layers()
    mean, logvar = (np.asarray(x, np.float64) for x in start.forward(layers))
    weight, targets = np.exp(-logvar), start.targets[None].astype(np.float64)
    own = (weight * mean**2).mean(axis=(0, 1))
    signal = (weight * targets**2).mean(axis=(0, 1))
    cross = (weight * targets * mean).mean(axis=(0, 1))
    found = jax.jit(start.squared)
    measured, predicted, usual = [], [], []
    for power in POWERS:
        unit = 2.0**-power
        squares = np.asarray(found(layers, unit), np.float64)
        measured.append(squares[REWARD].sum() / squares.sum())
        wanted = unit**2 * signal[4] - 2 * unit * cross[4] + own[4]
        others = (signal - 2 * cross + own)[CHANNELS].sum()
        predicted.append(wanted / (wanted + others))
        usual.append(unit**2 / (unit**2 + 4))
    return Compared(2.0**-POWERS, np.array(predicted), np.array(measured), np.array(usual))


def gradient_share() -> Compared:
    """T2: norm of the reward's gradient on the shared trunk over the channels', reward × 2^-k.

    Predicted from the gradients at u = 0 and u = −1, neither of which is measured: g(u) = g_own +
    u g_target, affine in the unit u.
    """
    start = _Start()
    *trunk, head = start.layers()

    @jax.jit
    def gradients(trunk: list[Linear], unit: float) -> tuple[list[Linear], ...]:
        def of(output: slice) -> list[Linear]:
            return jax.grad(lambda t: start.squared([*t, head], unit)[output].sum())(trunk)

        return of(REWARD), of(CHANNELS)

    def of(unit: float) -> np.ndarray:
        return _flat(gradients(trunk, unit)[0])

    own = of(0.0)
    toward = own - of(-1.0)
    rest = np.linalg.norm(_flat(gradients(trunk, 1.0)[1]))
    measured = [np.linalg.norm(of(2.0**-k)) / rest for k in POWERS]
    predicted = [np.linalg.norm(own + 2.0**-k * toward) / rest for k in POWERS]
    usual = [2.0**-k / 2.0 for k in POWERS]  # √ of the loss share E[r²]/ΣE[t²] with 4 channels
    return Compared(2.0**-POWERS, np.array(predicted), np.array(measured), np.array(usual))


def adam_step() -> Compared:
    """T3: how far one Adam step moves a raw reward head, over the reward's std, reward × 2^-k.

    Predicted: learning rate × |Σ_j sign(g_j) h_j + sign(g_b)|, rms over rows: no unit in it.
    Measured: the package's optimiser takes its step, and its network is asked again.
    """
    start = _Start()
    *trunk, head = start.layers()
    hidden = np.broadcast_to(start.x, (start.config.members, *start.x.shape)).astype(np.float64)
    for layer in trunk:
        raw = hidden @ np.asarray(layer.weight) + np.asarray(layer.bias)[:, None]
        hidden = raw / (1 + np.exp(-raw))

    @jax.jit
    def gradient(head: Linear, trunk: list[Linear], unit: float) -> Linear:
        return jax.grad(lambda h: start.squared([*trunk, h], unit)[REWARD].sum())(head)

    reward = jax.jit(lambda head, trunk: start.forward([*trunk, head]).mean[..., 4])
    optimiser = Optimiser(start.config.learning_rate)
    measured, predicted = [], []
    for power in POWERS:
        unit = 2.0**-power
        grads = gradient(head, trunk, unit)
        after, _ = optimiser.step(head, grads, optimiser.init(head))
        moved = np.asarray(reward(after, trunk) - reward(head, trunk), np.float64)
        measured.append(np.sqrt((moved**2).mean()) / unit)
        sign, sign_bias = (np.sign(np.asarray(g)[..., 4]) for g in (grads.weight, grads.bias))
        step = np.einsum("ebi,ei->eb", hidden, sign) + sign_bias[:, None]
        predicted.append(start.config.learning_rate * np.sqrt((step**2).mean()) / unit)
    return Compared(2.0**-POWERS, np.array(predicted), np.array(measured))


def adam_drift() -> Compared:
    """T4: a weight's mean Adam step, in learning rates, under gradients with a mean and noise.

    Σ s_i / √((Σ s_i)² + Σ Var n_i): a loss's share of the drift is its share of the *mean*
    gradients, whatever its share of the gradients' norms, which noise dominates.
    """
    generator, steps = np.random.default_rng(0), 20_000
    signal, noises = 1.0, np.array([0.0, 1.0, 3.0, 10.0, 30.0])
    measured = []
    for noise in noises:
        draws = generator.standard_normal(steps)
        gradient = signal + noise * (draws - draws.mean())
        m = v = moved = 0.0
        for t, g in enumerate(gradient, 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            moved += (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        measured.append(moved / steps)
    return Compared(noises, signal / np.sqrt(signal**2 + noises**2), np.array(measured))


def bounded_std() -> Compared:
    """T5: the std that the likelihood's optimum predicts under bounds, against the true one."""
    true = 10.0 ** np.linspace(-5, 2, 15)
    raw = jnp.linspace(-40.0, 40.0, 40_001)
    logvar = np.asarray(ens.bound(raw, jnp.float32(-10.0), jnp.float32(0.5)), np.float64)
    best = [logvar[np.argmin(std**2 * np.exp(-logvar) + logvar)] for std in true]
    low, high = math.exp(-5.0), math.exp(0.25)
    return Compared(true, np.clip(true, low, high), np.exp(0.5 * np.array(best)))


SPREAD = 0.05
"""std of the targets within one region of inputs, in stds of the whole channel."""


def pull(beta: float) -> Compared:
    """T14: how hard a region's rows pull at a mean that is wrong by b stds there.

    The log-variance is where the likelihood has it for these rows, as it soon is: it learns faster
    than the mean moves.
    """
    wrong = 10.0 ** np.linspace(-2, 1.5, 15)
    z = np.random.default_rng(0).standard_normal(4_000)
    z = (z - z.mean()) / z.std() * SPREAD
    raw = jnp.linspace(-40.0, 40.0, 40_001)
    low, high = jnp.float32(-10.0), jnp.float32(0.5)
    logvar = np.asarray(ens.bound(raw, low, high), np.float64)
    measured = []
    for b in wrong:
        best = raw[np.argmin(np.mean((z + b) ** 2) * np.exp(-logvar) + logvar)]

        def loss(mean: jax.Array, b: float = b, best: jax.Array = best) -> jax.Array:
            rows = jnp.asarray(z + b, jnp.float32)[None, :, None]  # one member, one output
            known = jnp.broadcast_to(best, rows.shape)
            said = ens.Gaussian(jnp.broadcast_to(mean, rows.shape), ens.bound(known, low, high))
            return jnp.mean(ens.nll(said, rows) * ens.variance_weight(known, low, high, beta))

        measured.append(-0.5 * float(jax.grad(loss)(jnp.float32(0.0))))
    variance = np.minimum(wrong**2 + SPREAD**2, math.exp(0.5))
    return Compared(wrong, wrong * variance ** (beta - 1.0), np.array(measured), wrong)


# From the reward head to the critic -------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """A small MDP, solved exactly."""

    reward: np.ndarray
    """(S, A)."""
    move: np.ndarray
    """(S, A, S): probabilities, which sum to 1 where nothing terminates."""
    discount: float = 0.9

    @staticmethod
    def random(seed: int, terminating: float = 0.0) -> Chain:
        """20 states, 4 actions; each step survives with a probability of its own."""
        generator = np.random.default_rng(seed)
        move = generator.dirichlet(np.full(20, 0.3), (20, 4))
        survive = 1 - terminating * generator.random((20, 4))
        return Chain(generator.normal(size=(20, 4)), move * survive[..., None])

    def value(self, policy: np.ndarray, reward: np.ndarray | None = None) -> np.ndarray:
        """Q (S, A) of a policy (S, A) under a reward."""
        reward = self.reward if reward is None else reward
        step = np.einsum("sap,pb->sapb", self.move, policy).reshape(80, 80)
        return np.linalg.solve(np.eye(80) - self.discount * step, reward.ravel()).reshape(20, 4)

    def best(self, reward: np.ndarray | None = None) -> np.ndarray:
        """Optimal Q (S, A), by value iteration."""
        reward = self.reward if reward is None else reward
        q = np.zeros_like(reward)
        for _ in range(600):
            q = reward + self.discount * self.move @ q.max(axis=1)
        return q


SHARE = 0.95
"""β: synthetic rows among those the critic learns from."""


def _policy() -> np.ndarray:
    return np.random.default_rng(1).dirichlet(np.ones(4), 20)


def mixed(reward: np.ndarray, shrink: np.ndarray | float, intercept: float) -> np.ndarray:
    """What a critic regresses on in the mean: (1 − β) r + β (r̄ + b + ρ (r − r̄))."""
    centre = reward.mean()
    told = centre + intercept + shrink * (reward - centre)
    return (1 - SHARE) * reward + SHARE * told


def affine_critic() -> Compared:
    """T6: shrinkage ρ and intercept b map Q to w Q + (β (1 − ρ) r̄ + β b)/(1 − γ), w = 1 − β(1 − ρ).

    All (s, a) of a non-terminating MDP under one policy, for several ρ and b.
    """
    chain, policy = Chain.random(0), _policy()
    q, centre = chain.value(policy), chain.reward.mean()
    measured, predicted = [], []
    for shrink in (0.05, 0.3, 1.0):
        for intercept in (-0.5, 0.0, 0.5):
            found = chain.value(policy, mixed(chain.reward, shrink, intercept))
            offset = SHARE * ((1 - shrink) * centre + intercept) / (1 - chain.discount)
            measured.append(found.ravel())
            predicted.append(((1 - SHARE * (1 - shrink)) * q + offset).ravel())
    p, m = np.concatenate(predicted), np.concatenate(measured)
    return Compared(np.arange(p.size), p, m)


def terminating_critic() -> Compared:
    """T7: with termination the offset is multiplied by N(s, a), the expected discounted life."""
    chain, policy = Chain.random(0, terminating=0.5), _policy()
    q, life = chain.value(policy), chain.value(policy, np.ones((20, 4)))
    centre, measured, predicted = chain.reward.mean(), [], []
    for shrink, intercept in ((0.3, -0.5), (0.3, 0.5), (1.0, 2.0)):
        found = chain.value(policy, mixed(chain.reward, shrink, intercept))
        offset = SHARE * ((1 - shrink) * centre + intercept) * life
        measured.append(found.ravel())
        predicted.append(((1 - SHARE * (1 - shrink)) * q + offset).ravel())
    p, m = np.concatenate(predicted), np.concatenate(measured)
    return Compared(np.arange(p.size), p, m)


def changed_actions(terminating: float, intercept: float, shrink: np.ndarray | float) -> float:
    """Share of states whose optimal action a corrupted reward changes, mean of 20 MDPs."""
    shares = []
    for seed in range(20):
        chain = Chain.random(seed, terminating)
        told = mixed(chain.reward, shrink, intercept)
        shares.append(np.mean(chain.best(told).argmax(1) != chain.best().argmax(1)))
    return float(np.mean(shares))


def account() -> Compared:
    """T8: Q_θ − Q_π = E Σ γᵗ [δ_fit + (r̂ − r) + γ (V(ŝ′) − V(s′))], for arbitrary Q_θ, r̂, ŝ′."""
    chain, policy = Chain.random(0), _policy()
    generator = np.random.default_rng(2)
    q_theta, told = generator.normal(size=(20, 4)), generator.normal(size=(20, 4))
    imagined = generator.dirichlet(np.ones(20), (20, 4))
    v = (policy * q_theta).sum(axis=1)
    fit = q_theta - (told + chain.discount * imagined @ v)
    terms = fit + (told - chain.reward) + chain.discount * (imagined - chain.move) @ v
    summed = chain.value(policy, terms)  # E Σ γᵗ (·) along real steps
    error = (q_theta - chain.value(policy)).ravel()
    return Compared(np.arange(80), summed.ravel(), error)


def largest_of(count: int) -> float:
    """Expected maximum of so many independent standard normals."""
    return quad(
        lambda x: x * count * norm.pdf(x) * norm.cdf(x) ** (count - 1), -10, 10, limit=200
    )[0]  # fmt: skip


NOISE, DISCOUNT = 0.5, 0.9


@functools.cache
def lifted(count: int) -> tuple[float, float]:
    """By how much frozen reward noise lifts Q: of the best of so many actions, and of any one.

    Value iteration on the true rewards and on the noisy ones. True rewards and successors (four a
    state, equally likely) depend on the state alone, so that actions differ by their noise alone.
    """
    generator, states = np.random.default_rng(0), 20_000
    true = generator.standard_normal((states, 1))
    follows = generator.integers(states, size=(states, 4))

    def solved(reward: np.ndarray) -> np.ndarray:
        q = np.zeros_like(reward)
        for _ in range(100):  # 0.9¹⁰⁰: what is left is 3e-5 of it
            q = reward + DISCOUNT * q.max(axis=1)[follows].mean(axis=1)[:, None]
        return q

    known = solved(true)  # the same for all actions
    error = solved(true + NOISE * generator.standard_normal((states, count))) - known
    return float(error.max(axis=1).mean()), float(error.mean())


def exploited_noise() -> Compared:
    """T9: frozen reward noise of std s lifts Q of the action it recommends by s c_n/(1 − γ)."""
    counts = np.array([1, 2, 4, 8, 16, 32])
    predicted = [NOISE * largest_of(int(n)) / (1 - DISCOUNT) for n in counts]
    measured = [lifted(int(n))[0] for n in counts]
    return Compared(counts, np.array(predicted), np.array(measured), np.zeros(len(counts)))


# Residual targets -------------------------------------------------------------------------------


def target_variance(target: str) -> Compared:
    """Var(target)/Var(s), on the carrier of probe/autocorrelation.

    T10: 2 (1 − κ) for the change. T12: 1 − κ² for the innovation, κ by least squares.
    """
    kappas = np.array([-0.9, -0.5, 0.0, 0.5, 0.9, 0.99])
    measured = []
    for kappa in kappas:
        rows = _carrier(float(kappa))
        now, then = (np.concatenate([r[part] for r in rows]) for part in _STEPS)
        slope = 1.0
        if target == "innovation":
            centred = now - now.mean(axis=0)
            slope = (centred * then).sum(axis=0) / (centred**2).sum(axis=0)
        variance = (then - slope * now).var(axis=0).mean()
        measured.append(variance / np.concatenate(rows).var(axis=0).mean())
    if target == "innovation":
        return Compared(kappas, 1 - kappas**2, np.array(measured), np.minimum(1, 2 * (1 - kappas)))
    return Compared(kappas, 2 * (1 - kappas), np.array(measured))


_STEPS = slice(None, -1), slice(1, None)
"""Each value of an episode, and the one after it."""


@functools.cache
def _carrier(kappa: float) -> list[np.ndarray]:
    """40 episodes of the carrier's channels."""
    env, rows = make_env(f"probe/autocorrelation@{kappa:g}"), []
    for episode in range(40):
        obs = [env.reset(episode)]
        truncated = False
        while not truncated:
            step = env.step(np.zeros(1, np.float32))
            obs.append(step.obs)
            truncated = step.truncated
        rows.append(np.stack(obs)[:, 2:].astype(np.float64))
    return rows


KAPPA = 0.95


def decayed_slope(target: str) -> Compared:
    """What weight decay makes of s′ = κ s + noise, as the coefficient of s in the prediction.

    Predicted, with λ in units of Var(s): T11 direct κ/(1 + λ), residual 1 − (1 − κ)/(1 + λ), T13
    innovation κ. Measured: the least squares problem with decay, solved on 20,000 steps of a
    channel of std 3 around 5. At λ = 0 all predict the same, whatever the data: least squares does
    not care which target it is given.
    """
    generator = np.random.default_rng(0)
    s = np.zeros(20_000)
    noise = math.sqrt(1 - KAPPA**2) * generator.standard_normal(len(s))
    for t in range(1, len(s)):
        s[t] = KAPPA * s[t - 1] + noise[t]
    s = 5 + 3 * s
    now, then = s[:-1], s[1:]
    decays = np.array([0.0, 0.01, 0.1, 1.0, 10.0, 100.0])
    half = len(now) // 2  # κ as a first refit finds it
    carried = {"direct": 0.0, "residual": 1.0, "innovation": decayed(now[:half], then[:half], 0.0)}
    measured = [
        carried[target] + decayed(now, then - carried[target] * now, decay) for decay in decays
    ]
    known = {"direct": 0.0, "residual": 1.0, "innovation": KAPPA}[target]
    return Compared(decays, known + (KAPPA - known) / (1 + decays), np.array(measured))


def decayed(x: np.ndarray, target: np.ndarray, decay: float) -> float:
    """The slope w that minimises mean (t − w x − b)² + λ Var(x) w²; the intercept b is free.

    Decay is one more row for least squares, which asks for w = 0.
    """
    rows = np.append(np.stack([x, np.ones_like(x)], axis=1), [[0.0, 0.0]], axis=0)
    rows[-1, 0] = math.sqrt(decay * len(x)) * x.std()
    return float(np.linalg.lstsq(rows, np.append(target, 0.0), rcond=None)[0][0])


EQUATIONS: dict[str, Callable[[], Compared]] = {
    "loss-share": loss_share,
    "gradient-share": gradient_share,
    "adam-step": adam_step,
    "adam-drift": adam_drift,
    "bounded-std": bounded_std,
    "pull-of-the-likelihood": lambda: pull(0.0),
    "pull-of-half": lambda: pull(0.5),
    "affine-critic": affine_critic,
    "terminating-critic": terminating_critic,
    "account": account,
    "exploited-noise": exploited_noise,
    "change-variance": lambda: target_variance("residual"),
    "decay-direct": lambda: decayed_slope("direct"),
    "decay-residual": lambda: decayed_slope("residual"),
    "innovation-variance": lambda: target_variance("innovation"),
    "decay-innovation": lambda: decayed_slope("innovation"),
}
"""By the name of its figure, docs/figures/theory-NAME.svg."""
