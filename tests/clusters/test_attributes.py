"""Cluster maps from attributes that the user names."""

import numpy as np
import pytest

import uniroute_fast as uf
from made_up import fit_profiler
from uniroute_fast.clusters.attributes import attribute_head
from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError


def with_attributes(n=300, seed=0):
    """Embeddings that tell two attributes, and much else that does not matter."""
    rng = np.random.default_rng(seed)
    attributes = rng.random((n, 2)) < 0.5
    x = np.hstack([attributes - 0.5, rng.normal(size=(n, 2))]).astype(np.float32)
    return x, attributes


@pytest.mark.parametrize("n_clusters", [4, 10])
def test_prompts_with_the_same_attributes_share_a_cluster(n_clusters):
    x, attributes = with_attributes()
    head = attribute_head(x[:200], attributes[:200].astype(float), n_clusters)
    assert len(head.bias) == 4
    cluster = head.phi(x[200:]).argmax(axis=1)
    kind = attributes[200:] @ [1, 2]
    pairs = set(zip(kind.tolist(), cluster.tolist(), strict=True))
    assert len(pairs) == 4


@pytest.mark.parametrize("kinds", [1, 2])
def test_one_or_two_kinds_will_do(kinds):
    x, attributes = with_attributes()
    head = attribute_head(x, attributes[:, :1].astype(float) * (kinds - 1), 24)
    phi = head.phi(x)
    assert phi.shape == (300, kinds)
    np.testing.assert_allclose(phi.sum(axis=1), 1, atol=1e-6)
    if kinds == 2:
        assert (phi.argmax(axis=1) == attributes[:, 0]).mean() > 0.99


def test_fewer_clusters_than_kinds_join_those_alike():
    x, _ = with_attributes()
    attributes = np.random.default_rng(1).random((300, 3))
    assert attribute_head(x, attributes, 5).bias.shape == (5,)


@pytest.mark.parametrize("seen", [True, False])
def test_losses_that_follow_attributes_are_learned(seen):
    x, attributes = with_attributes(800)
    rng = np.random.default_rng(3)
    rates = rng.uniform(0.05, 0.95, size=(4, 24))[attributes @ [1, 2]]
    losses = (rng.random(rates.shape) < rates).astype(float)
    profiler = fit_profiler(
        x, losses[:, :16] if seen else None, attributes=attributes.astype(float)
    )
    phi = profiler.map.phi(x)
    profiles = profiler.profile(profiler.observe(phi[:300], losses[:300, 16:]))
    error = np.abs(phi[300:] @ profiles.psi - rates[300:, 16:]).mean()
    assert error < 0.5 * np.abs(profiles.mean - rates[300:, 16:]).mean()


def test_router_is_fitted_on_attributes_and_comes_back_from_a_file(tmp_path):
    texts = [
        f"{verb} {thing}"
        for verb in ("add", "multiply", "name", "describe")
        for thing in ("seven", "rain", "paris", "nine", "snow")
    ]
    sums = np.array([[t.startswith(("add", "mult"))] for t in texts])
    router = uf.Router.fit(texts, attributes=sums)
    router.add_models(["calculator", "atlas"], [1.0, 1.0], texts, np.hstack([~sums, sums]))
    assert router.route_batch(["add rain", "describe nine"]).models == ["calculator", "atlas"]
    router.save(tmp_path / "r.uniroute")
    loaded = uf.Router.load(tmp_path / "r.uniroute")
    np.testing.assert_array_equal(loaded.predict_loss(texts), router.predict_loss(texts))


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        (np.zeros((3, 1)), InvalidArgumentError, r"shape \(3, 1\); expected \(4, A\)"),
        (np.zeros(4), InvalidArgumentError, r"shape \(4,\)"),
        (np.full((4, 2), 2.0), InvalidArgumentError, "2 in row 0, column 0"),
        (np.full((4, 2), np.nan), InvalidArgumentError, "nan in row 0, column 0"),
        ([["a"]] * 4, ArgumentTypeError, "attributes: dtype"),
    ],
)
def test_bad_attributes_are_named(attributes, error, message):
    with pytest.raises(error, match=message):
        uf.Router.fit(["one", "two", "three", "four"], attributes=attributes)
