"""The equations of SAC and of the dynamics ensemble in float64 NumPy, for one small case at a time.

Written from the papers' equations (docs/algorithms) and not from the package, with no
JAX in it. Functions accept complex input, so that gradients come from the complex step
f(x + ih)/h, which has no cancellation error and no formula of its own to get wrong.

A network is a list of layers ``(W, b)``; layer norms are a list of ``(gain, offset)`` or empty.
"""

import copy
from types import SimpleNamespace

import numpy as np

# --- calculus ---------------------------------------------------------------------------------


def gradient(function, parameters):
    """∂function/∂every array of a nested list of arrays, by the complex step."""
    moved = _complex(parameters)
    result = copy.deepcopy(parameters)
    for array, out in zip(_arrays(moved), _arrays(result), strict=True):
        for index in np.ndindex(array.shape):
            array[index] += 1e-30j
            out[index] = np.imag(function(moved)) / 1e-30
            array[index] -= 1e-30j
    return result


def central_gradient(function, parameters, step=1e-5):
    """The same by central differences: slower and coarser, but it needs no complex numbers."""
    moved = copy.deepcopy(parameters)
    result = copy.deepcopy(parameters)
    for array, out in zip(_arrays(moved), _arrays(result), strict=True):
        for index in np.ndindex(array.shape):
            start = array[index]
            array[index] = start + step
            above = function(moved)
            array[index] = start - step
            below = function(moved)
            array[index] = start
            out[index] = (above - below) / (2 * step)
    return result


def _arrays(nested):
    if isinstance(nested, np.ndarray):
        return [nested]
    return [array for part in nested for array in _arrays(part)]


def _complex(nested):
    if isinstance(nested, np.ndarray):
        return nested.astype(complex)
    return [_complex(part) for part in nested]


def flat(nested):
    """All numbers of a nested list in one vector."""
    return np.concatenate([array.ravel() for array in _arrays(nested)])


# --- networks ---------------------------------------------------------------------------------


def relu(x):
    return np.where(np.real(x) > 0, x, 0.0)


def swish(x):
    return x / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def smaller(a, b):
    return np.where(np.real(a) < np.real(b), a, b)


def layer_norm(x, gain, offset):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * gain + offset


def mlp(net, x, activation, norms=()):
    for i, (weight, bias) in enumerate(net[:-1]):
        x = x @ weight + bias
        if len(norms):
            x = layer_norm(x, *norms[i])
        x = activation(x)
    weight, bias = net[-1]
    return x @ weight + bias


# --- soft actor-critic ------------------------------------------------------------------------


def policy(actor, obs, low, high, squash=True):
    """Mean and log standard deviation of the Gaussian before tanh."""
    out = mlp(actor, obs, relu)
    half = out.shape[-1] // 2
    mean, raw = out[:, :half], out[:, half:]
    if squash:
        return mean, low + (high - low) * (np.tanh(raw) + 1) / 2
    clipped = np.where(np.real(raw) < low, low, np.where(np.real(raw) > high, high, raw))
    return mean, clipped


def tanh_normal(mean, log_std, noise):
    """Action tanh(mean + std·noise) and its log density by the change of variables."""
    std = np.exp(log_std)
    pre = mean + std * noise
    log_normal = -((pre - mean) ** 2) / (2 * std**2) - np.log(std) - np.log(2 * np.pi) / 2
    return np.tanh(pre), (log_normal - np.log(1 - np.tanh(pre) ** 2)).sum(axis=-1)


def q_value(critic, obs, action):
    net, norms = critic
    return mlp(net, np.concatenate([obs, action], axis=1), relu, norms)[:, 0]


def critic_target(actor, targets, alpha, batch, noise, c):
    """y = r + γ (1 − terminated)(min Q̄(s′, a′) − α log π(a′|s′))."""
    action, log_prob = tanh_normal(*policy(actor, batch.next_obs, *c.bounds), noise)
    q1, q2 = (q_value(t, batch.next_obs, action) for t in targets)
    alive = 1.0 - batch.terminated.astype(float)
    return batch.reward + c.discount * alive * (smaller(q1, q2) - alpha * log_prob)


def critic_loss(critics, batch, target, c):
    errors = sum((q_value(k, batch.obs, batch.action) - target) ** 2 for k in critics)
    return c.critic_weight * errors.mean()


def actor_loss(actor, critics, alpha, obs, noise, c):
    """mean(α log π − min Q) and the entropy estimate."""
    action, log_prob = tanh_normal(*policy(actor, obs, *c.bounds), noise)
    q1, q2 = (q_value(k, obs, action) for k in critics)
    return (alpha * log_prob - smaller(q1, q2)).mean(), -log_prob.mean()


def temperature_gradient(log_alpha, entropy, target_entropy, form):
    """d/d log α of α (H − H̄) or of log α (H − H̄)."""
    return (np.exp(log_alpha) if form == "alpha" else 1.0) * (entropy - target_entropy)


class Adam:
    """Kingma & Ba, algorithm 1, on nested lists of arrays."""

    def __init__(self, rate, b1=0.9, b2=0.999, epsilon=1e-8):
        self.rate, self.b1, self.b2, self.epsilon = rate, b1, b2, epsilon
        self.step, self.m, self.v = 0, None, None

    def __call__(self, parameters, grads):
        g = flat(grads)
        if self.step == 0:
            self.m, self.v = np.zeros_like(g), np.zeros_like(g)
        self.step += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        m_hat = self.m / (1 - self.b1**self.step)
        v_hat = self.v / (1 - self.b2**self.step)
        change = -self.rate * m_hat / (np.sqrt(v_hat) + self.epsilon)
        result = copy.deepcopy(parameters)
        at = 0
        for array in _arrays(result):
            array += change[at : at + array.size].reshape(array.shape)
            at += array.size
        return result


def polyak(target, online, rate):
    result = copy.deepcopy(target)
    for a, b in zip(_arrays(result), _arrays(online), strict=True):
        a[...] = (1 - rate) * a + rate * b
    return result


class Sac:
    """An agent whose ``update`` is the whole of one gradient step."""

    def __init__(self, actor, critics, log_alpha, c):
        self.actor, self.critics = actor, critics
        self.targets = copy.deepcopy(critics)
        self.log_alpha = np.array(log_alpha, float)
        self.c = c
        self.actor_adam, self.critic_adam, self.alpha_adam = (Adam(rate) for rate in c.rates)

    def update(self, batch, target_noise, actor_noise):
        c, alpha = self.c, np.exp(self.log_alpha)
        y = critic_target(self.actor, self.targets, alpha, batch, target_noise, c)
        losses = SimpleNamespace(critic=critic_loss(self.critics, batch, y, c), target=y)
        grads = gradient(lambda k: critic_loss(k, batch, y, c), self.critics)
        self.critics = self.critic_adam(self.critics, grads)
        self.targets = polyak(self.targets, self.critics, c.tau)

        def loss(actor):
            return actor_loss(actor, self.critics, alpha, batch.obs, actor_noise, c)

        losses.actor, losses.entropy = loss(self.actor)
        self.actor = self.actor_adam(self.actor, gradient(lambda a: loss(a)[0], self.actor))
        slope = temperature_gradient(
            self.log_alpha, losses.entropy, c.target_entropy, c.temperature_form
        )
        (self.log_alpha,) = self.alpha_adam([self.log_alpha], [np.array(slope)])
        return losses


# --- dynamics ---------------------------------------------------------------------------------


def bounded_logvar(raw, low, high):
    """ℓ = ℓ_max − softplus(ℓ_max − ℓ), then ℓ = ℓ_min + softplus(ℓ − ℓ_min)."""
    logvar = high - softplus(high - raw)
    return low + softplus(logvar - low)


def gaussians(members, x, low, high):
    """Means and log-variances (E, B, D) of members, each with its own rows x[e]."""
    out = np.stack([mlp(net, rows, swish) for net, rows in zip(members, x, strict=True)])
    half = out.shape[-1] // 2
    return out[..., :half], bounded_logvar(out[..., half:], low, high)


def ensemble_loss(members, low, high, x, z, decay, penalty=None):
    """Σ_e mean_{b,d}[(z − μ)² e^{−ℓ} + ℓ] + Σ ½ λ_l ‖W_l‖² (+ penalty (Σ ℓ_max − Σ ℓ_min))."""
    mean, logvar = gaussians(members, x, low, high)
    total = 0.0
    for e, net in enumerate(members):
        squared = (z[e] - mean[e]) ** 2 * np.exp(-logvar[e])
        total = total + squared.mean() + logvar[e].mean()
        for rate, (weight, _) in zip(decay, net, strict=True):
            total = total + rate * (weight**2).sum() / 2
    if penalty is not None:
        total = total + penalty * high.sum() - penalty * low.sum()
    return total


def targets(cell, obs, next_obs, reward):
    """[Δ, r] for residual, [s′, r] for direct."""
    state = {"residual": next_obs - obs, "direct": next_obs}[cell]
    return np.column_stack([state, reward])


def training_rows(size, every, seed):
    """Slots to train on and slots held out: one hashed place in each full block of ``every``."""
    train, held = [], []
    for block in range(size // every):
        place = murmur_finaliser(block ^ seed) % every
        for within in range(every):
            (held if within == place else train).append(block * every + within)
    return np.array(train, int), np.array(held, int)


def murmur_finaliser(x):
    """fmix of MurmurHash3 as the package uses it, on Python integers."""
    x &= 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


def statistics(values, floor=1e-6):
    """Mean and std per column; a column whose std is a negligible share of its size gets std 0."""
    mean, std = values.mean(axis=0), values.std(axis=0)
    size = np.sqrt((values**2).mean(axis=0))
    return mean, np.where(std <= floor * size, 0.0, std)


def standardise(values, mean, std):
    live = std > 0
    return np.where(live, (values - mean) / np.where(live, std, 1.0), 0.0)


def physical(z, mean, std):
    return mean + std * z


# --- schedules --------------------------------------------------------------------------------


def rollout_length(step, first, last, before, after):
    """[e0, e1, l0, l1]: l0 until e0, linear to l1 at e1, then l1; truncated to a whole number."""
    if step <= first:
        return before
    if step >= last:
        return after
    # Exact in integers: no rounding can hold a length back by a step.
    return before + ((step - first) * (after - before)) // (last - first)


def kept_rows(step, schedule, per_step, retention_steps):
    """Synthetic rows of the last ``retention_steps`` steps, each of which starts ``per_step``."""
    return rollout_length(step, *schedule) * per_step * retention_steps
