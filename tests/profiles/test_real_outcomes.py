"""The main job on real outcomes of real LLMs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import datasets, evaluate

SETS = ["zeroeval", "mmlu_pro", "metabench", "routerbench_subset", "bfcl"]


def test_a_pool_of_a_thousand_llms_is_added_in_one_call_and_routed(
    real_data: Callable[[str], Path],
) -> None:
    outcomes = datasets.load(real_data("metabench"))
    losses = 1 - outcomes.scores
    router = uf.Router.fit(outcomes.texts, n_clusters=12)
    router.add_models(outcomes.models, outcomes.costs, outcomes.texts, losses)
    assert router.models == list(outcomes.models)
    assert len(router.models) > 1000
    decisions = router.route_batch(outcomes.texts, 1e-3)
    assert decisions.ok.all()
    # What the float64 oracle of the predicted losses says, on the whole pool.
    objective = router.predict_loss(outcomes.texts).astype(np.float64) + 1e-3 * router.costs
    np.testing.assert_array_equal(
        objective[np.arange(len(objective)), decisions.index], objective.min(axis=1)
    )


@pytest.mark.parametrize("name", SETS)
def test_routing_unseen_llms_is_near_the_prompt_blind_baseline_or_better(
    real_data: Callable[[str], Path], name: str
) -> None:
    table = evaluate.run_trials(
        datasets.load(real_data(name)),
        ["zero_router", "uniroute", "oracle"],
        trials=2,
        embed=small_embedding,
    )
    area = {row.method: row.area for row in table.rows}
    assert area["uniroute"] > area["zero_router"] - 0.02
    assert area["oracle"] > max(area["uniroute"], area["zero_router"])


def small_embedding(outcomes: datasets.Dataset, split: evaluate.Split, seed: int) -> np.ndarray:
    """A smaller embedder than the default, to keep the test short."""
    train = [outcomes.texts[i] for i in split.train[:2000]]
    return uf.LexicalEmbedder.fit(train, dim=32, seed=seed).embed(outcomes.texts)


@pytest.mark.parametrize("name", SETS)
def test_real_embeddings_find_the_centroid_that_float64_brute_force_finds(
    real_data: Callable[[str], Path], name: str
) -> None:
    texts = datasets.load(real_data(name)).texts[:1500]
    x = uf.LexicalEmbedder.fit(texts, dim=48).embed(texts)
    centroids = x[:: len(x) // 64][:64]
    difference = x[:, None].astype(np.float64) - centroids
    distances = (difference**2).sum(axis=-1)
    labels, found = uf.nearest_centroid(x, centroids)
    np.testing.assert_array_equal(labels, distances.argmin(axis=1))
    np.testing.assert_array_equal(found, distances.min(axis=1).astype(np.float32))
