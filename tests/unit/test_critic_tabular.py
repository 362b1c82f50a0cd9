"""The critic account on a tabular MDP, whose terms are solutions of linear equations."""

import numpy as np
import pytest
from scipy.special import ndtr

from ftfl.forensics.branches import Path
from ftfl.forensics.instruments.critic import critic_account
from ftfl.forensics.learned import Agent, Imagined, WorldModel

STATES, ACTIONS, STEPS, DISCOUNT, TEMPERATURE = 5, 3, 150, 0.9, 0.1
STARTS = 1500


class Tabular:
    """States are one-hot observations, action i is the number i; policy, worlds and critic drawn.

    The model moves by one of two equally likely maps, one an elite, so that its expectation is
    exact; the world by any distribution. Q is what evaluating the policy in the *model* gives, plus
    an error of fit; all that the account says of it follows in closed form.
    """

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.policy = rng.dirichlet(np.ones(ACTIONS) * 2, STATES)
        self.moves = rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
        self.paid = rng.normal(size=(STATES, ACTIONS))
        self.maps = rng.integers(0, STATES, (2, STATES, ACTIONS))
        self.told = self.paid + rng.normal(size=(STATES, ACTIONS))
        self.imagined = np.eye(STATES)[self.maps].mean(axis=0)
        self.q = self.evaluate(self.imagined, self.told)
        self.q = self.q + 0.5 * rng.normal(size=self.q.shape)

    def value(self, q):
        """V(s) = Σ π (Q − α log π)."""
        return (self.policy * (q - TEMPERATURE * np.log(self.policy))).sum(axis=1)

    def discounted(self, moves, terms):
        """Σ γᵗ E[terms(s_t, a_t)] from every state and action, under ``moves`` and the policy."""
        onward = np.einsum("sak,kb->sakb", moves, self.policy).reshape(STATES * ACTIONS, -1)
        whole = np.eye(STATES * ACTIONS) - DISCOUNT * onward
        return np.linalg.solve(whole, terms.ravel()).reshape(STATES, ACTIONS)

    def evaluate(self, moves, paid):
        """Q of the policy: entropy is paid from the next state on."""
        entropy = -(self.policy * np.log(self.policy)).sum(axis=1)
        return self.discounted(moves, paid + DISCOUNT * TEMPERATURE * moves @ entropy)

    def parts(self):
        """What the account must say, by term, from every state and action."""
        v = self.value(self.q)
        terms = {
            "critic_fit": self.q - self.told - DISCOUNT * self.imagined @ v,
            "reward_model": self.told - self.paid,
            "next_state_model": DISCOUNT * (self.imagined - self.moves) @ v,
        }
        return {name: self.discounted(self.moves, term) for name, term in terms.items()}

    def choose(self, state, noise):
        """Action of each state by inverse distribution function."""
        edges = self.policy[state].cumsum(axis=1)[:, :-1]
        return (ndtr(noise) > edges).sum(axis=1)

    def agent(self):
        def act(obs, noise):
            state = np.argmax(obs, axis=1)
            action = self.choose(state, noise)
            return action[:, None].astype(float), np.log(self.policy[state, action])

        def q(obs, action):
            of = self.q[np.argmax(obs, axis=1), action[:, 0].astype(int)]
            return np.stack([of, of], axis=1)

        return Agent(act, q, lambda o, a: np.zeros_like(a), TEMPERATURE, DISCOUNT, 1)

    def model(self):
        def imagine(obs, action, noise):
            state, chosen = np.argmax(obs, axis=1), action[:, 0].astype(int)
            after = np.eye(STATES)[self.maps[:, state, chosen].T]
            paid = np.repeat(self.told[state, chosen][:, None], 2, axis=1)
            return Imagined(after, paid, np.zeros(paid.shape, bool), np.zeros(paid.shape))

        return WorldModel(imagine, 2, STATES + 1)

    def branches(self, seed=1):
        """True branches from every state in turn, with the policy's noise."""
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(STARTS, STEPS + 1, 1))
        states, actions = [np.arange(STARTS) % STATES], []
        for t in range(STEPS):
            actions.append(self.choose(states[-1], noise[:, t]))
            edges = self.moves[states[-1], actions[-1]].cumsum(axis=1)[:, :-1]
            states.append((rng.random((STARTS, 1)) > edges).sum(axis=1))
        state, action = np.array(states).T, np.array(actions).T
        paths = [
            Path(np.eye(STATES)[s], a[:, None].astype(float), self.paid[s[:-1], a], "going on")
            for s, a in zip(state, action, strict=True)
        ]
        return paths, list(noise), np.arange(STARTS), state[:, 0], action[:, 0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_term_is_the_solution_of_its_linear_equation(seed):
    mdp = Tabular(seed)
    paths, noise, clusters, state, action = mdp.branches()
    told = critic_account(mdp.agent(), paths, noise, clusters, model=mdp.model())
    bias = told.twins["smaller"]
    exact = {name: part[state, action].mean() for name, part in mdp.parts().items()}
    for name, want in exact.items():
        part = bias.parts[name]
        # four standard errors, and these small against what is measured
        assert abs(part.value - want) < part.high - part.low, name
        assert part.high - part.low < 0.4 * max(map(abs, exact.values())), name
    truth = mdp.evaluate(mdp.moves, mdp.paid)
    assert abs(bias.truth.value - truth[state, action].mean()) < bias.truth.high - bias.truth.low
    whole = (mdp.q - truth)[state, action].mean()
    assert sum(exact.values()) == pytest.approx(whole)
    assert abs(bias.bias.value - whole) < bias.bias.high - bias.bias.low
    assert bias.identity_gap < 1e-10


def test_a_true_model_and_a_critic_that_solves_it_leave_nothing():
    mdp = Tabular()
    mdp.moves, mdp.told = mdp.imagined, mdp.paid
    mdp.q = mdp.evaluate(mdp.moves, mdp.paid)
    paths, noise, clusters, _, _ = mdp.branches()
    told = critic_account(mdp.agent(), paths, noise, clusters, model=mdp.model())
    bias = told.twins["smaller"]
    for estimate in (bias.bias, *bias.parts.values()):
        assert abs(estimate.value) <= estimate.high - estimate.low
        assert estimate.high - estimate.low < 0.5
    assert bias.parts["reward_model"].value == 0
    assert told.findings() == []
