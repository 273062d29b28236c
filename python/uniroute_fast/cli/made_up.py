"""Made-up prompts and LLMs, for trying things out where no data is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.datasets import Dataset

if TYPE_CHECKING:
    from numpy.random import Generator

#: Of each topic its templates and, for every slot in them, the words that may fill it.
TOPICS: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "arithmetic": (
        [
            "What is {n} times {n}, plus {n}?",
            "A shop sells {n} {thing} at {n} euros each. How much is that?",
            "If {n} {thing} weigh {n} grams, what do {n} of them weigh?",
        ],
        {"thing": ["apples", "pencils", "bolts", "tickets", "bricks"]},
    ),
    "code": (
        [
            "Write a {language} function that {task} a list of {n} {type}.",
            "This {language} code {task} {type} but fails for {n} items: find the bug.",
            "Refactor the {language} class that {task} {type}.",
        ],
        {
            "language": ["Python", "Rust", "Go", "C++", "TypeScript"],
            "task": ["sorts", "reverses", "filters", "parses", "merges"],
            "type": ["integers", "strings", "timestamps", "tuples", "records"],
        },
    ),
    "translation": (
        [
            "Translate into {tongue}: the {noun} is {adjective} today.",
            "How do you say '{adjective} {noun}' in {tongue}?",
            "Correct my {tongue}: I wrote that the {noun} was {adjective}.",
        ],
        {
            "tongue": ["French", "Greek", "Japanese", "Swahili", "Finnish"],
            "noun": ["train", "neighbour", "harbour", "winter", "library"],
            "adjective": ["late", "quiet", "crowded", "beautiful", "closed"],
        },
    ),
    "history": (
        [
            "Why did the {realm} decline in the {n}th century?",
            "Who ruled the {realm} before the {event}?",
            "Compare the {realm} before and after the {event}.",
        ],
        {
            "realm": ["Roman Empire", "Ottoman Empire", "Ming dynasty", "Hanseatic League"],
            "event": ["plague", "revolution", "civil war", "great fire", "reformation"],
        },
    ),
    "chemistry": (
        [
            "Balance the reaction of {substance} with {reagent}.",
            "How many moles are {n} grams of {substance}?",
            "Which bond forms when {substance} meets {reagent}?",
        ],
        {
            "substance": ["sodium chloride", "ethanol", "ammonia", "copper sulphate", "benzene"],
            "reagent": ["oxygen", "hydrochloric acid", "water", "nitric acid", "chlorine"],
        },
    ),
    "poetry": (
        [
            "Write a {form} about {subject}.",
            "Continue this {form}: {subject}, you never answer me.",
            "Give my {form} on {subject} a better last line.",
        ],
        {
            "form": ["sonnet", "haiku", "ballad", "limerick", "villanelle"],
            "subject": ["autumn rain", "an old clock", "the sea", "lost letters", "a stray cat"],
        },
    ),
    "law": (
        [
            "May a {party} end the {contract} without notice?",
            "What happens when the {party} breaches a {contract}?",
            "Draft a clause on {matter} for a {contract}.",
        ],
        {
            "party": ["tenant", "landlord", "employer", "licensee", "supplier"],
            "contract": ["lease", "employment contract", "licence agreement", "loan"],
            "matter": ["liability", "confidentiality", "arbitration", "termination"],
        },
    ),
    "cooking": (
        [
            "How long do I roast {n} grams of {food}?",
            "What can replace {herb} in a stew of {food}?",
            "A dinner with {food} and {herb} for {n} guests, please.",
        ],
        {
            "food": ["lamb", "aubergine", "salmon", "lentils", "potatoes"],
            "herb": ["coriander", "thyme", "saffron", "sage", "fennel"],
        },
    ),
}


def make_dataset(n_prompts: int = 3000, n_models: int = 24, seed: int = 0) -> Dataset:
    """Make up prompts of several topics and LLMs with skills and prices.

    An LLM has a general ability, which its price follows, and a skill of its own in every topic;
    some cheap ones are as good as dear ones in a topic or two. The outcome of a prompt is drawn
    from skill and difficulty.

    Parameters
    ----------
    n_prompts, n_models : int
    seed : int
        Same arguments, same dataset.

    Returns
    -------
    Dataset
        Scores of 0 and 1, costs in made-up USD per 1,000 prompts.

    Examples
    --------
    >>> data = make_dataset(n_prompts=10, n_models=3)
    >>> data.scores.shape
    (10, 3)
    """
    rng = np.random.default_rng(seed)
    names = list(TOPICS)
    topic = rng.integers(len(names), size=n_prompts)
    texts = [_prompt(names[t], rng) for t in topic]

    ability = np.linspace(-1.0, 1.8, n_models)
    skill = ability[:, None] + rng.normal(0.0, 0.7, (n_models, len(names)))
    for model in range(n_models // 2):
        talents = rng.choice(len(names), 2, replace=False)
        skill[model, talents] += rng.uniform(1.0, 2.5)
    costs = np.round(0.2 * np.exp(1.3 * (ability + 1.0)) * rng.lognormal(0.0, 0.3, n_models), 3)
    difficulty = rng.normal(0.0, 0.7, n_prompts)
    chance = 1 / (1 + np.exp(difficulty[:, None] - skill.T[topic]))
    return Dataset(
        name="made-up",
        ids=[str(i) for i in range(n_prompts)],
        tasks=[names[t] for t in topic],
        texts=texts,
        scores=(rng.random(chance.shape) < chance).astype(float),
        models=[f"made-up-{m:02}" for m in range(n_models)],
        costs=costs,
        cost_unit="made-up USD per 1,000 prompts",
    )


def _prompt(topic: str, rng: Generator) -> str:
    templates, words = TOPICS[topic]
    text = templates[rng.integers(len(templates))]
    while "{n}" in text:
        text = text.replace("{n}", str(rng.integers(2, 99)), 1)
    return text.format(**{slot: words[slot][rng.integers(len(words[slot]))] for slot in words})
