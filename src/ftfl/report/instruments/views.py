"""All instruments as a report shows them: what the numbers mean, and their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ftfl.report.instruments import critic, model, refits
from ftfl.report.parts import Figure


@dataclass(frozen=True)
class View:
    """How one instrument is shown."""

    meaning: str
    figures: tuple[Callable[[Mapping[str, Any]], Figure], ...]
    """Each from the instrument's results by run."""


VIEWS: dict[str, View] = {
    "target_scales": View(
        "One network predicts every channel of the next state and, unless told otherwise, the"
        " reward. Trained on raw numbers, it takes large ones seriously and small ones not: sizes"
        " then decide who shapes the shared layers, whether a bound on the predicted noise binds,"
        " how far one step of Adam throws an output, and which members become elites. None of this"
        " should depend on the unit somebody chose.",
        (model.sizes, model.shares),
    ),
    "model_variance": View(
        "Every member of the ensemble predicts a mean and a standard deviation, and rollouts draw"
        " from both. Where the std is too small, screens and penalties trust what they should not;"
        " where it is too large, synthetic data are noisier than the world. Skill compares a draw"
        " with assuming that nothing moves.",
        (model.honesty,),
    ),
    "reward_fidelity": View(
        "The critic of a model-based agent learns mostly from rewards that the model made up. They"
        " are compared with the true ones as r̂ = r̄ + b + ρ (r − r̄) + noise. A small slope ρ alone"
        " makes the critic flat but changes no preference between actions; noise, a shift b where"
        " episodes can end, and ranking the actions of a state wrongly do harm. Everything is"
        " before a screen takes its penalty.",
        (model.fidelity,),
    ),
    "rollout_error": View(
        "Model and simulator are given the same actions from the same real states. Synthetic"
        " branches are only as good as the step at which they are still better than assuming that"
        " nothing moves, and imagined states outside all real data are places no reward or critic"
        " was ever fitted to.",
        (model.skill,),
    ),
    "screen_sight": View(
        "A screen trusts one number of each imagined row. Here that number is set beside what"
        " really happened: do rows it distrusts have larger errors, and are the rows it stores"
        " better than all? A screen that looks at the next state alone cannot see a reward head"
        " that has collapsed.",
        (model.sight,),
    ),
    "critic_account": View(
        "What the critic promises from real states, against what the simulator then paid the same"
        " policy. The difference is split exactly into what the critic did not fit of its own"
        " targets, what the reward model and what the next-state model put into those targets, and"
        " what a screen's penalty took. A run without a model has the first part alone: read a"
        " model-based run beside one of sac, for critics err by themselves.",
        (critic.account, critic.slopes),
    ),
    "critic_health": View(
        "Critics trained with many updates a step can fail without any model: units stop firing,"
        " features lose rank, weights and values grow. Before synthetic data are blamed, the critic"
        " is compared with a fresh one.",
        (critic.health,),
    ),
    "share_history": View(
        "What trains the shared layers, as a model is trained anew on the run's own rows: the"
        " reward's part of loss, of the gradient's signal and of Adam's step, at the start and"
        " after 10, 100 and more updates. A reward that has no part in the beginning may have"
        " one once the channels are fitted, and the other way round.",
        (refits.history,),
    ),
    "unit_invariance": View(
        "A change of units changes nothing about a task. The model is trained anew on the same"
        " rows in other units (powers of two, so that not even rounding differs), and its"
        " predictions are mapped back.",
        (refits.units,),
    ),
    "residual_or_direct": View(
        "A model can predict the next state or the change of it. Which is the smaller target"
        " depends on how slowly a channel moves; on this replay both were trained and compared.",
        (refits.targets,),
    ),
    "attribution": View(
        "To say which choice lost what, the model is trained anew on the run's own rows: as it is,"
        " in all four combinations of target and scale, and with one door opened at a time.",
        (refits.reward_doors, refits.state_doors),
    ),
    "paired_forks": View(
        "What a change does to a model need not matter to the agent. Here the same agent goes on"
        " from one checkpoint several times over, with one thing changed each time: without a"
        " model, with each repair, with more real rows. Within a seed all forks have the same"
        " randomness.",
        (refits.forks,),
    ),
}
