"""An embedder that takes its time: others go on, and a replaced router is not mixed up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors

TEXTS = [f"{kind} {i}" for i in range(30) for kind in ("add up", "name the river", "rhyme on")]
LOSSES = np.random.default_rng(0).random((len(TEXTS), 2))
SLOW = "slow: "


class Slow:
    """An embedder that waits, where a text says so, until it is let go."""

    def __init__(self) -> None:
        self.own = uf.LexicalEmbedder.fit(TEXTS, dim=16)
        self.waiting, self.go = threading.Event(), threading.Event()

    def embed(self, texts: list[str]) -> np.ndarray:
        if any(text.startswith(SLOW) for text in texts):
            self.waiting.set()
            assert self.go.wait(60)
        return self.own.embed(texts)


@pytest.fixture
def embedder() -> Slow:
    return Slow()


@pytest.fixture
def router(embedder: Slow) -> uf.Router:
    router = uf.Router.fit(TEXTS, embedder=embedder, n_clusters=4)
    router.add_models(["a", "b"], [1.0, 2.0], TEXTS, LOSSES)
    return router


SLOWLY = [SLOW + text for text in TEXTS]

CALLS: dict[str, Callable[[uf.Router], object]] = {
    "add_models": lambda router: router.add_models(["c", "d"], [1.0, 2.0], SLOWLY, LOSSES),
    "observe": lambda router: router.observe(SLOWLY[0], "a", 1.0),
    "observe_many": lambda router: router.observe_many(SLOWLY, "a", LOSSES[:, 0]),
    "suggest_probes": lambda router: router.suggest_probes(3, SLOWLY),
    "fit_tokens": lambda router: router.fit_tokens(SLOWLY, 100 * LOSSES, names=["a", "b"]),
    "add_model_from_preferences": lambda router: router.add_model_from_preferences(
        "c", cost=1.0, opponents="a", wins=LOSSES[:, 0] > 0.5, texts=SLOWLY
    ),
}


class Job:
    """A call on a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("call", CALLS)
def test_others_go_on_while_texts_are_embedded(
    router: uf.Router, embedder: Slow, call: str, tmp_path: Path
) -> None:
    slow = Job(lambda: CALLS[call](router))
    assert embedder.waiting.wait(60)
    others = {
        "route": lambda: router.route(TEXTS[0]),
        "observe": lambda: router.observe(TEXTS[0], "b", 1.0),
        "explain": lambda: router.explain(TEXTS[0]),
        "save": lambda: router.save(tmp_path / "pool.uniroute"),
        "add_model": lambda: router.insert(["e"], [1.0], np.zeros((router.n_clusters, 1))),
    }
    for name, other in others.items():
        job = Job(other)
        job.end()
        assert job.error is None, name
    assert not embedder.go.is_set()
    embedder.go.set()
    slow.end()
    assert slow.error is None
    if call == "add_models":
        assert router.models == ["a", "b", "e", "c", "d"]


def test_a_router_that_is_replaced_meanwhile_learns_by_the_new_one(
    router: uf.Router, embedder: Slow
) -> None:
    slow = Job(lambda: CALLS["add_models"](router))
    assert embedder.waiting.wait(60)
    other = uf.Router.fit(TEXTS, n_clusters=7)
    other.add_models(["x"], [1.0], TEXTS, LOSSES[:, :1])
    router.replace(other)
    embedder.go.set()
    slow.end()
    assert slow.error is None
    assert router.models == ["x", "c", "d"]
    other.add_models(["c", "d"], [1.0, 2.0], SLOWLY, LOSSES)
    np.testing.assert_array_equal(router.profiles, other.profiles)


def test_prompts_of_a_router_that_is_replaced_are_refused(
    router: uf.Router, embedder: Slow
) -> None:
    prompts = router.embed(TEXTS)
    router.replace(uf.Router.fit(TEXTS, n_clusters=7))
    with pytest.raises(errors.InvalidArgumentError, match="of another embedder"):
        router.add_models(["c", "d"], [1.0, 2.0], prompts, LOSSES)
    assert router.models == []


def test_an_llm_that_leaves_meanwhile_is_refused(router: uf.Router, embedder: Slow) -> None:
    slow = Job(lambda: router.observe_many(SLOWLY, "a", LOSSES[:, 0]))
    assert embedder.waiting.wait(60)
    router.remove_model("a")
    before = router.version
    embedder.go.set()
    slow.end()
    assert isinstance(slow.error, errors.UnknownModelError)
    assert router.version == before


def test_outcomes_of_one_pass_are_checked_before_anything_is_embedded(
    router: uf.Router, embedder: Slow
) -> None:
    with pytest.raises(errors.UnknownModelError):
        router.observe_many(SLOWLY, "nobody", LOSSES[:, 0])
    with pytest.raises(errors.InvalidArgumentError, match="output_tokens"):
        router.add_models(["c", "d"], None, SLOWLY, LOSSES, output_tokens=-LOSSES - 1)
    assert not embedder.waiting.is_set()


def test_a_profile_that_is_only_asked_for_changes_nothing(router: uf.Router) -> None:
    from uniroute_fast.profiles.learner import Labels

    before = router.version
    profile = router.learner.profile(router, Labels.of(["it"], TEXTS, LOSSES[:, :1]))
    assert router.version == before
    router.add_models(["it"], [1.0], TEXTS, LOSSES[:, :1])
    np.testing.assert_array_equal(profile[:, 0], router.profiles[:, 2])
