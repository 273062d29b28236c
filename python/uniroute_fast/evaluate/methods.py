"""The routing methods that a study can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evaluate import baselines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from uniroute_fast.evaluate.deferral import BlindPlan
    from uniroute_fast.evaluate.trial import Access, Trial


@dataclass(frozen=True)
class Method:
    """A routing method, as a study runs it.

    Parameters
    ----------
    name : str
        What tables call it.
    predict : callable
        Takes a `Trial`; returns the predicted losses of the unseen LLMs on the test prompts
        (float[N, U], or float[U]) or a `BlindPlan`.
    access : {"validation", "train", "test"}
        Which labels of the unseen LLMs it is given: see `Trial`.
    """

    name: str
    predict: Callable[[Trial], NDArray[Any] | BlindPlan]
    access: Access = "validation"


METHODS = {
    method.name: method
    for method in (
        Method("best_single", baselines.best_single),
        Method("random_mixture", baselines.random_mixture),
        Method("zero_router", baselines.zero_router),
        Method("knn", baselines.knn),
        Method("kmeans", baselines.kmeans_paper),
        Method("kmeans_tuned", baselines.kmeans_tuned),
        Method("top3_clusters", baselines.top3_clusters),
        Method("learned_map", baselines.learned_map),
        Method("learned_map_tuned", baselines.learned_map_tuned),
        Method("learned_map_deep", baselines.learned_map_deep),
        Method("retrained_mlp", baselines.retrained_mlp),
        Method("retrained_mf", baselines.retrained_mf),
        Method("hierarchical", baselines.hierarchical_shrinkage),
        Method("uniroute_unseen", baselines.uniroute_unseen),
        Method("uniroute", baselines.uniroute),
        Method("clairvoyant_mlp", baselines.clairvoyant_mlp, access="train"),
        Method("clairvoyant_mf", baselines.clairvoyant_mf, access="train"),
        Method("oracle", baselines.oracle, access="test"),
    )
}


def resolve(methods: Iterable[str | Method] | None) -> list[Method]:
    """Return methods for names, or all of them for None.

    Raises
    ------
    InvalidArgumentError
        An unknown name, two methods of one name, or none at all.
    """
    found: dict[str, Method] = {}
    for method in METHODS if methods is None else methods:
        if isinstance(method, str):
            if method not in METHODS:
                raise InvalidArgumentError(
                    f"methods: no method {method!r}; there are {', '.join(METHODS)}"
                )
            method = METHODS[method]
        if method.name in found:
            raise InvalidArgumentError(f"methods: {method.name!r} is named twice")
        found[method.name] = method
    if not found:
        raise InvalidArgumentError("methods: empty; expected one name or more")
    return list(found.values())


def describe(names: Iterable[str]) -> dict[str, str]:
    """Return what each of this package's own methods does, in a line."""
    known = (METHODS[name] for name in names if name in METHODS)
    return {method.name: (method.predict.__doc__ or "").partition("\n")[0] for method in known}
