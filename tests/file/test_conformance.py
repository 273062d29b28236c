"""Stored routers and questions: decisions are those of the NumPy reference, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import decision_reference as reference
import uniroute_fast as uf
from uniroute_fast import errors

STORED = json.loads((reference.FOLDER / "decisions_v1.json").read_text())


def test_the_stored_answers_are_those_of_the_reference() -> None:
    assert reference.answers() == STORED


@pytest.mark.parametrize("name", reference.ROUTERS)
def test_decisions_are_the_stored_ones_bit_for_bit(name: str) -> None:
    router = uf.Router.load(reference.FOLDER / f"{name}.uniroute")
    for ask in STORED["routers"][name]:
        embedding = np.array(ask["embedding"], np.uint32).view(np.float32)
        asked: dict[str, Any] = {"tokens": ask["tokens"], "cost_weight": ask["cost_weight"]}
        if "max_cost" in ask:
            asked["constraints"] = uf.Constraints(deny=ask["deny"], max_cost=ask["max_cost"])
        if "current_model" in ask:
            asked |= {key: ask[key] for key in ("current_model", "switch_cost")}
        batch = router.route_batch(embeddings=embedding[None], **asked)
        expected = ask["decision"]
        if expected is None:
            assert batch.status == ["no_candidate"]
            with pytest.raises(errors.NoCandidateError):
                router.route(embeddings=embedding, **asked)
            continue
        one = router.route(embeddings=embedding, **asked)
        for decision in (
            (one.index, one.cluster, one.predicted_loss, one.cost),
            (batch.index[0], batch.cluster[0], batch.predicted_loss[0], batch.cost[0]),
        ):
            assert decision[0] == expected["index"]
            assert decision[1] == expected["cluster"]
            assert int(np.float32(decision[2]).view(np.uint32)) == expected["predicted_loss"]
            assert int(np.float64(decision[3]).view(np.uint64)) == expected["cost"]


def test_a_stored_profiler_profiles_as_it_did() -> None:
    router = uf.Router.load(reference.FOLDER / "fitted.uniroute")
    x = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    losses = reference.outcomes(60, 2)
    router.add_models(["again a", "again b"], [1.0, 2.0], embeddings=x[:60], losses=losses)
    profiles, errors_of = router.profiles, router.standard_errors()
    np.testing.assert_allclose(profiles[:, 2:], profiles[:, :2], rtol=1e-4)
    np.testing.assert_allclose(errors_of[:, 2:], errors_of[:, :2], rtol=1e-4)
    # A record that was kept is refined as one that is made now.
    for name in ("a", "again a"):
        router.observe(None, name, 1.0, embeddings=x[100])
    np.testing.assert_allclose(router.profiles[:, 2], router.profiles[:, 0], rtol=1e-4)
    assert not np.array_equal(router.profiles[:, 0], profiles[:, 0])
