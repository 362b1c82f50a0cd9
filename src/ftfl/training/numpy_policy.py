"""A trained policy that needs NumPy and nothing else.

`ftfl export` copies this file next to ``policy.npz``; it imports nothing of ftfl. In a program:

    from policy import Policy

    policy = Policy()
    action = policy(obs)
"""

from __future__ import annotations

import os

import numpy as np


class Policy:
    """Deterministic: the squashed mean of the trained Gaussian. One observation at a time.

    ``low`` and ``high`` are the actuators' bounds, float64 of shape (A,).
    """

    def __init__(self, path: str | os.PathLike[str] | None = None):
        """Load ``policy.npz`` from beside this file, or from ``path``. Nothing in it is executed.

        Raises:
            OSError: there is no such file.
            ValueError: it is not a policy.
        """
        if path is None:
            path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "policy.npz")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        count = sum(name.startswith("weight_") for name in arrays)
        names = [f"{kind}_{i}" for i in range(count) for kind in ("weight", "bias")]
        missing = [name for name in [*names, "low", "high"] if name not in arrays]
        if missing or not count:
            raise ValueError(f"{path} is not a policy: it lacks {', '.join(missing) or 'layers'}.")
        self.layers = [(arrays[f"weight_{i}"], arrays[f"bias_{i}"]) for i in range(count)]
        self.low, self.high = arrays["low"], arrays["high"]
        self.obs_dim = self.layers[0][0].shape[0]
        self.act_dim = self.low.shape[0]
        sizes = [self.obs_dim, *(bias.shape[0] for _, bias in self.layers)]
        fits = all(w.shape == (sizes[i], sizes[i + 1]) for i, (w, _) in enumerate(self.layers))
        if not fits or sizes[-1] != 2 * self.act_dim:
            raise ValueError(f"{path} is not a policy: its layers do not fit together.")

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Action within the actuators' bounds, float64 (A,), at an observation (O,).

        Raises:
            ValueError: the observation has another shape, or is not finite as float32.
        """
        action = self.unit(obs).astype(np.float64)
        scaled = (self.low + self.high) / 2 + (self.high - self.low) / 2 * action
        return np.clip(scaled, self.low, self.high)

    def unit(self, obs: np.ndarray) -> np.ndarray:
        """The same action before scaling: float32 (A,) in [-1, 1]."""
        x = np.asarray(obs)
        if x.shape != (self.obs_dim,):
            raise ValueError(f"the observation has shape {x.shape}, expected is ({self.obs_dim},).")
        with np.errstate(over="ignore"):  # an overflow becomes inf, which is refused below
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            where = ", ".join(map(str, np.flatnonzero(~np.isfinite(x))))
            raise ValueError(f"the observation is not finite at index {where}.")
        for weight, bias in self.layers[:-1]:
            x = np.maximum(x @ weight + bias, 0)
        weight, bias = self.layers[-1]
        mean = (x @ weight + bias)[: self.act_dim]
        return np.tanh(mean)
