"""Arguments of the wrong type or out of range, across the package: refused by name."""

from __future__ import annotations

import enum
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import uniroute_fast as uf
from uniroute_fast import errors
from uniroute_fast._checks.scalars import as_count, as_number, at_least
from uniroute_fast.batch import BatchRouter
from uniroute_fast.integrations.among import allowing, route_among

TEXTS = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 10


@pytest.fixture(scope="module")
def router() -> uf.Router:
    router = uf.Router.fit(TEXTS, n_clusters=2)
    losses = np.random.default_rng(0).random((40, 2))
    router.add_models(["small", "large"], [1.0, 2.0], TEXTS, losses)
    return router


def pacer() -> uf.BudgetPacer:
    return uf.BudgetPacer(100.0, cost_weight=0.1, requests=100)


CURVE = uf.evaluate.deferral_curve([[0, 1]], [[0, 1]], [1, 2])

#: What takes the argument, and values that are no such thing.
CALLS: dict[str, tuple[Callable[[uf.Router, Any], Any], list[Any]]] = {
    "answer_tokens": (lambda r, v: uf.Constraints(answer_tokens=v), [-1, "1", 1.5, True, 2**64]),
    "fit_context": (lambda r, v: uf.Constraints(fit_context=v), [1, "yes"]),
    "max_cost": (lambda r, v: uf.Constraints(max_cost=v), ["1", True, -1.0]),
    "since": (lambda r, v: r.changes(since=v), [-1, "1", 1.5, 2**64]),
    "half_life": (
        lambda r, v: r.observe("2 + 2", "small", 0.5, half_life=v),
        ["1", [1.0], 0.0, np.nan, True],
    ),
    "expected": (lambda r, v: pacer().settle(v, 1.0), ["1", None, -1.0, np.inf]),
    "pool": (lambda r, v: BatchRouter(v), [None, 5]),
    "batch": (lambda r, v: BatchRouter(r)(v), [None, TEXTS]),
    "tokens": (lambda r, v: r.route(TEXTS[0], tokens=v), ["1", -1, 1.5, True]),
    "fallback": (lambda r, v: r.route(TEXTS[0], fallback=v), [5, b"small", "\ud800"]),
    "constraints": (lambda r, v: r.route(TEXTS[0], constraints=v), [{}, "small"]),
    "switch_cost": (lambda r, v: r.route(TEXTS[0], switch_cost=v), ["1", -1.0, np.nan, True]),
    "name": (lambda r, v: r.set_cost(v, 1.0), [5, None, "\ud800"]),
    "names": (lambda r, v: r.insert(v, [1.0], np.zeros((2, 1))), ["q", [5], ["\ud800"], ["a\nb"]]),
    "cost": (lambda r, v: r.set_cost("small", v), [True, "1", -1.0, np.inf]),
    "tags": (lambda r, v: r.set_metadata("small", tags=v), ["eu", ["\ud800"], ["a\nb"], [5]]),
    "heads": (lambda r, v: uf.Router(None, v), [5, [("nearest",)], "x"]),
    "fraction": (
        lambda r, v: uf.evaluate.area(
            uf.evaluate.deferral_curve([[0, 1]], [[0, 1]], [1, 2]), [1], v
        ),
        ["1", 0, 2],
    ),
    "prefix": (lambda r, v: BatchRouter(r, prefix=v), [5, "\ud800"]),
    "n": (
        lambda r, v: r.calibrate(TEXTS, quality_drop=0.0, n_bootstrap=1).cost_weights(v),
        [-1, 2.5, "3", None],
    ),
    "texts": (lambda r, v: uf.LexicalEmbedder.fit(v), [5, None, "abc", [1, 2], {"a": 1}]),
    "rows": (lambda r, v: uf.LexicalEmbedder.fit(TEXTS, rows=v), ["4", True, 3, 2**30]),
    "ngrams": (lambda r, v: uf.LexicalEmbedder.fit(TEXTS, ngrams=v), ["1", 0, 9]),
    "seed": (lambda r, v: uf.LexicalEmbedder.fit(TEXTS, seed=v), ["a", 1.5, -1]),
}


@pytest.mark.parametrize("argument", CALLS)
def test_what_is_no_such_thing_is_refused_by_name(router: uf.Router, argument: str) -> None:
    call, values = CALLS[argument]
    version = router.version
    for value in values:
        with pytest.raises(errors.UniRouteError, match=f"^{argument}: .*; expected ") as caught:
            call(router, value)
        assert isinstance(caught.value, (ValueError, TypeError))
    assert router.version == version


def test_numbers_are_numbers_in_range() -> None:
    for value in (1, 1.0, np.float32(1), np.int8(1), Fraction(1)):
        assert as_number("x", value, 0, 1) == 1.0
        assert isinstance(as_number("x", value), float)
    for value in (10**400, np.inf, np.nan, 0.0, 2.0):
        with pytest.raises(errors.InvalidArgumentError, match=r"x: .*; expected a number above 0"):
            as_number("x", value, 0, 1, above=True)
    with pytest.raises(errors.InvalidArgumentError, match=r"x: an? .*; expected 0 to 3"):
        as_count("x", 10**5000, 0, 3)


def test_rooms_open_when_they_are_asked_for() -> None:
    script = (
        "import sys, uniroute_fast as uf\n"
        "assert 'uniroute_fast.evaluate' not in sys.modules\n"
        "print(uf.evaluate.area.__name__, hasattr(uf, 'nothing'), 'evaluate' in dir(uf))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["area", "False", "True"]


def test_a_prompt_that_says_nothing_keeps_to_the_constraints(router: uf.Router) -> None:
    free = route_among(router, "", 0.0, allowing(["small", "large"], None))
    other = "large" if free == "small" else "small"
    denied = allowing(["small", "large"], uf.Constraints(deny=[free]))
    assert route_among(router, "", 0.0, denied) == other
    with pytest.raises(errors.NoCandidateError):
        route_among(router, "", 0.0, allowing([free], uf.Constraints(deny=[free])))


def test_a_least_value_is_shown_in_few_digits_that_will_do() -> None:
    for value in (1e-9, 0.1234512, 1.0, 3.14159, 99999.9, 1234567.0):
        text = at_least(value)
        assert value <= float(text) <= value * 1.001
        assert len(text.strip("0.").replace(".", "").split("e")[0]) <= 4


def test_an_interrupt_while_an_argument_is_converted_is_no_fault_of_the_argument(
    router: uf.Router,
) -> None:
    class Interrupting:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise KeyboardInterrupt

    class Failing:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("no array today")

    with pytest.raises(KeyboardInterrupt):
        router.route_batch(embeddings=Interrupting())
    with pytest.raises(errors.ArgumentTypeError, match=r"embeddings: .*no array today"):
        router.route_batch(embeddings=Failing())


def test_names_may_be_members_of_an_enum() -> None:
    class Name(str, enum.Enum):
        SMALL = "small"

    router = uf.Router.fit(TEXTS, n_clusters=2)
    router.add_models([Name.SMALL], [1.0], TEXTS, np.zeros((40, 1)))
    assert router.models == ["small"]
    router.observe(TEXTS[0], Name.SMALL, 1.0)
    router.remove_model(Name.SMALL)


def test_names_are_read_once() -> None:
    router = uf.Router.fit(TEXTS, n_clusters=2)
    router.add_models(["small"], [1.0], TEXTS, np.zeros((40, 1)))
    router.set_profiles(iter(["small"]), np.full((2, 1), 0.9))
    with pytest.raises(errors.InvalidArgumentError, match="nothing is recorded"):
        router.observe(TEXTS[0], "small", 0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": 1.5}, "loss: 1.5"),
        ({"loss": [0.5]}, "loss: a list"),
        ({"loss": None}, "loss: a NoneType"),
        ({"weight": 0.0}, "weight: 0"),
        ({"weight": 1e12}, "weight: 1e"),
        ({"model": 3}, "model: a int"),
    ],
)
def test_one_outcome_names_its_own_arguments(given: dict, message: str) -> None:
    router = uf.Router.fit(TEXTS, n_clusters=2)
    router.add_models(["small"], [1.0], TEXTS, np.zeros((40, 1)))
    before = router.version
    with pytest.raises(errors.UniRouteError, match=f"^{message}"):
        router.observe(**{"prompt": TEXTS[0], "model": "small", "loss": 0.5} | given)
    assert router.version == before


def test_prompts_are_told_by_position_and_named_back() -> None:
    router = uf.Router.fit(np.array(TEXTS), n_clusters=2)
    for probes in (router.suggest_probes(2), router.suggest_probes(2, np.array(TEXTS))):
        assert probes.texts == [TEXTS[i] for i in probes.indices]


def test_an_embedder_that_gives_another_number_of_vectors_is_found_out() -> None:
    class OneShort:
        def embed(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts) - 1, 3), np.float32)

    router = uf.Router(OneShort(), [("nearest", np.eye(3, dtype=np.float32))])
    router.insert(["a"], [1.0], np.zeros((3, 1)))
    for call in (router.route_batch, router.predict_loss, router.phi):
        with pytest.raises(
            errors.InvalidArgumentError, match=r"embedder: gave 39 vectors; expected one for each"
        ):
            call(TEXTS)
