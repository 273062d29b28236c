"""Files whose checksum fits and whose content lies: refused by name, or routers that work."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import uniroute_fast as uf
from forged import put_together, taken_apart
from uniroute_fast import errors

STORED = Path(__file__).parent.parent / "conformance"
TEXTS = ["2 + 2", "3 * 7", "name a river", "name a lake"] * 5


@functools.cache
def stored(kind: str) -> bytes:
    """Return a small file with everything in it that a router of a kind has."""
    if kind == "bayes":
        router = uf.Router.load(STORED / "fitted.uniroute")
        x = np.eye(4, dtype=np.float32)
        router.observe_many(None, "a", np.zeros(4), embeddings=x)
        router.set_metadata("a", tags=["eu"], context_length=9, latency=1.0, cached_input_price=0.1)
    else:
        router = uf.Router.fit(TEXTS, embedder=uf.LexicalEmbedder.fit(TEXTS, dim=2), n_clusters=2)
        losses = np.tile([[0.0, 1.0], [1.0, 0.5]], (10, 1))
        router.add_models(["a", "b"], [1.0, 2.0], TEXTS, losses)
    clusters = router.n_clusters
    router.set_metadata("b", input_price=1.0, output_price=2.0)
    router.set_usage(["b"], np.ones((clusters, 1)), [1.0], [2.0])
    router.disable_model("a")
    router.enable_model("a")
    return router.to_bytes()


def use(router: uf.Router) -> None:
    """Do all that a router can do; nothing may fail, and no number be none."""
    own = router.embedder is not None
    x = np.random.default_rng(0).normal(size=(6, router.snapshot().dim)).astype(np.float32)
    prompts: Any = TEXTS[:6] if own else None
    given: dict[str, Any] = {} if own else {"embeddings": x}
    one: dict[str, Any] = {} if own else {"embeddings": x[0]}
    decisions = router.route_batch(prompts, cost_weight=0.1, tokens=3, **given)
    usable = np.asarray(decisions.status) == "ok"
    assert np.isfinite(decisions.predicted_loss[usable]).all()
    assert np.isfinite(router.predict_loss(prompts, **given)[usable]).all()
    profiled = router.learner.profiler is not None
    if usable[0]:
        explained = router.explain(TEXTS[0] if own else None, 0.1, tokens=3, **one)
        assert np.isfinite(list(explained.standard_errors.values())).all()
        assert str(explained)
    known = [name for name in router.models if profiled and name in router.learner.records]
    if usable.any() and known:
        answered = [known[i % len(known)] for i in range(6)]
        router.observe_many(prompts, answered, np.linspace(0, 1, 6), **given)
        router.observe(0, known[0], 0.5)
    if profiled and usable.any():
        router.add_model("new", cost=1.0, texts=prompts, losses=np.linspace(0, 1, 6), **given)
        assert np.isfinite(router.standard_errors()[:, -1]).all()
    assert np.isfinite(router.profiles).all()
    again = uf.Router.from_bytes(router.to_bytes())
    assert again.models == router.models


def refused_or_works(file: bytes) -> bool:
    """Load a file; if it is not refused as one should be, use what it holds."""
    try:
        router = uf.Router.from_bytes(file)
    except errors.ArtifactError as error:
        message = str(error)
    else:
        use(router)
        return False
    assert len(message.encode()) <= 2048
    assert message.isprintable()
    return True


def set_one(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        with np.errstate(all="ignore"):
            changed.flat[array.size // 2 : array.size // 2 + 1] = np.array(value).astype(
                array.dtype
            )
        return changed

    return change


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nan": set_one(np.nan),
    "inf": set_one(np.inf),
    "negative": set_one(-1.0),
    "a little": set_one(1e-38),
    "huge": set_one(3e38),
    "far below": set_one(-3e38),
    "greatest": set_one(2.0**63 - 1024),
    "zeros": np.zeros_like,
    "all negative": lambda a: np.full_like(a, -1 if a.dtype.kind != "u" else 1),
    "all huge": lambda a: np.full_like(a, 1e30 if a.dtype.kind == "f" else 100),
    "shorter": lambda a: a[:-1],
    "longer": lambda a: np.concatenate([a, a[:1]]),
    "empty": lambda a: a[:0],
    "one more axis": lambda a: a[None],
    "flat": np.ravel,
    "backwards": lambda a: a[::-1],
    "other width": lambda a: a.astype(np.float64 if a.dtype != np.float64 else np.float32),
    "integers": lambda a: a.astype(np.int32 if a.dtype != np.int32 else np.int8),
}


@pytest.mark.parametrize("kind", ["bayes", "means"])
def test_what_is_stored_unchanged_works(kind: str) -> None:
    file = put_together(*taken_apart(stored(kind)))
    assert not refused_or_works(file)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["bayes", "means"])
def test_changed_tensors_are_refused_or_work(kind: str, change: str) -> None:
    manifest, tensors = taken_apart(stored(kind))
    for name, array in tensors.items():
        with np.errstate(all="ignore"):
            changed = tensors | {name: np.ascontiguousarray(CHANGES[change](array))}
        try:
            refused_or_works(put_together(manifest, changed))
        except BaseException as error:
            raise AssertionError(f"{name} {change}") from error


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value in JSON."""
    yield path
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for key, inner in inside:
        yield from places(inner, (*path, key))


def with_value(manifest: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(manifest)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


VALUES: dict[str, Any] = {
    "null": None,
    "negative": -1,
    "zero": 0,
    "huge": 1e308,
    "large integer": 2**64 - 1,
    "text": "x",
    "long text": "\u202e" * 100_000,
    "true": True,
    "list": [],
    "list of lists": [[]] * 3,
    "numbers": list(range(2000)),
    "deep": functools.reduce(lambda inner, _: [inner], range(120), []),
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", ["bayes", "means"])
def test_changed_manifests_are_refused_or_work(kind: str, value: str) -> None:
    manifest, tensors = taken_apart(stored(kind))
    for path in places(manifest):
        try:
            refused_or_works(put_together(with_value(manifest, path, VALUES[value]), tensors))
        except BaseException as error:
            raise AssertionError(f"{path} {value}") from error
