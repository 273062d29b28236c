"""The cluster map of fitting is that of serving: one object, the same bits, the definition's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import decision_reference as reference
import uniroute_fast as uf
from uniroute_fast.clusters.cluster_map import FLOOR, ClusterMap, SoftmaxHead, hard_map
from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError

X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)


@pytest.mark.parametrize("seen", [0, 8])
def test_phi_of_fitting_and_of_serving_are_one(seen: int, tmp_path: Path) -> None:
    outcomes = uf.Outcomes(reference.outcomes(300, seen)) if seen else None
    router = uf.Router.fit(embeddings=X, seen=outcomes)
    router.save(tmp_path / "pool.uniroute")
    loaded = uf.Router.load(tmp_path / "pool.uniroute")
    # Near, between and far from all prompts of the fit.
    for x in (X, X / 2, 10 * X):
        expected = router.learner.fitted().map.phi(x)
        for one in (router, loaded):
            np.testing.assert_array_equal(one.phi(embeddings=x), expected)
            np.testing.assert_array_equal(one.learner.fitted().map.phi(x), expected)
        if seen:
            assert (expected[:, router.learner.fitted().map.backgrounds] > 0).any() == (
                x[0, 0] != 0
            )
        np.testing.assert_array_equal(ClusterMap(loaded.heads()).phi(x), expected)


@pytest.mark.parametrize("name", reference.ROUTERS)
def test_phi_is_that_of_the_definition_bit_for_bit(name: str) -> None:
    path = reference.FOLDER / f"{name}.uniroute"
    pool, router = reference.Pool(path), uf.Router.load(path)
    x = np.random.default_rng(1).normal(size=(40, pool.dim)).astype(np.float32)
    expected = np.stack([pool.phi(row) for row in x])
    np.testing.assert_array_equal(ClusterMap(router.heads()).phi(x), expected)
    np.testing.assert_array_equal(router.phi(embeddings=x), expected)


def test_a_map_is_made_again_from_its_parts() -> None:
    soft = SoftmaxHead.around(X[:3], 2.0)
    both = ClusterMap([soft.with_background(-1.0).part(), *hard_map(X[:5]).heads()])
    assert (both.sizes, both.n_clusters, both.dim, both.backgrounds) == ([4, 5], 9, 4, [3])
    for again in (ClusterMap(both.heads()), pickle.loads(pickle.dumps(both))):
        assert again.backgrounds == both.backgrounds
        np.testing.assert_array_equal(again.phi(X), both.phi(X))
    router = uf.Router(None, both)
    np.testing.assert_array_equal(router.phi(embeddings=X), both.phi(X))
    assert uf.Router(None, both.heads()).fingerprint() == router.fingerprint()


def test_landmarks_make_the_last_clusters_backgrounds() -> None:
    head = ("softmax", np.zeros((2, 1)), np.zeros(2), FLOOR)
    assert ClusterMap([head, head]).backgrounds == []
    landmarks = ("familiarity", [[0.0]], 1.0)
    assert ClusterMap([head, head, landmarks]).backgrounds == [1, 3]


@pytest.mark.parametrize(
    "heads",
    [
        [],
        [("softmax", np.zeros((1, 1)), np.zeros(1), FLOOR, True)],
        [("softmax", np.zeros((2, 1)), np.zeros(2), FLOOR, 1)],
        [("softmax", np.zeros((2, 1)), np.zeros(2), 2.0)],
        [("nearest", np.zeros((2, 1))), ("familiarity", [[0.0]], 1.0)],
        [("nearest", np.zeros((2, 1))), ("nearest", np.zeros((2, 3)))],
        [("magic", np.zeros((2, 1)))],
        "heads",
        3,
    ],
)
def test_heads_that_do_not_fit_are_refused(heads: object) -> None:
    with pytest.raises((InvalidArgumentError, ArgumentTypeError), match=r"heads|floor|landmarks"):
        ClusterMap(heads)  # type: ignore[arg-type]
