"""LiteLLM: a routing strategy for its `Router`, which then chooses by prompt.

The decision takes microseconds in process, with the GIL released: LiteLLM's event loop is not
blocked.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.extras import imported
from uniroute_fast._checks.instances import as_instance
from uniroute_fast._checks.scalars import as_number
from uniroute_fast.embedding.chat import chat_text
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.integrations.among import allowing, refuse_allow, route_among
from uniroute_fast.router import Router

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uniroute_fast._native import Constraints

Deployment = dict[str, Any]

#: Strategies that have handed the request at hand back to LiteLLM, by id.
_HANDED_BACK: ContextVar[frozenset[int]] = ContextVar("handed back", default=frozenset())


class UniRouteStrategy:
    """Sends the requests of one LiteLLM model group to the deployment that the router chooses.

    A deployment stands for the LLM of the pool that its ``model_info`` names under ``"uniroute"``,
    else for the one that is called as its ``litellm_params["model"]``. Several may stand for one
    LLM: one of them is drawn, by their ``weight`` if they have any. Deployments that LiteLLM has
    put into cooldown, or paused, are passed over, for the next best LLM if need be. Requests for
    other groups go LiteLLM's own way, where it takes them back: 1.110 and later do not.

    Parameters
    ----------
    litellm_router : litellm.Router
    router : Router
    group : str
        The ``model_name`` of the deployments to choose among; what clients ask for.
    cost_weight : float
        As in `Router.route`. A request may name its own in its metadata:
        ``metadata={"uniroute": {"cost_weight": 0.1}}``.
    constraints : Constraints, optional
        As in `Router.route`, without ``allow``: the deployments are what is allowed.

    Raises
    ------
    MissingExtraError
        LiteLLM is not installed (extra ``litellm``).
    InvalidArgumentError
        No deployment of the group stands for an LLM of the pool; constraints with ``allow``.

    Notes
    -----
    A prompt that cannot be embedded (empty, or of nothing the embedder knows) goes to the LLM with
    the least mean of predicted loss over the clusters + cost weight x cost.

    Examples
    --------
    >>> import litellm  # doctest: +SKIP
    >>> proxy = litellm.Router(model_list)  # doctest: +SKIP
    >>> UniRouteStrategy(proxy, router, "auto", cost_weight=0.1).install()  # doctest: +SKIP
    >>> await proxy.acompletion("auto", messages)  # doctest: +SKIP
    """

    def __init__(
        self,
        litellm_router: Any,
        router: Router,
        group: str,
        *,
        cost_weight: float = 0.0,
        constraints: Constraints | None = None,
    ) -> None:
        imported("litellm", "litellm", "LiteLLM")
        as_instance("router", router, Router)
        cost_weight = as_number("cost_weight", cost_weight, 0)
        refuse_allow(constraints, "the deployments")
        self._proxy = litellm_router
        self._router = router
        self._group = group
        self._cost_weight = cost_weight
        self._constraints = constraints
        self._others = litellm_router.get_available_deployment
        self._async_others = litellm_router.async_get_available_deployment
        self._index = _Index(self._proxy.model_list, router, group, constraints)
        if not self._index.deployments:
            raise InvalidArgumentError(
                f"group: no deployment of {group!r} stands for a model of the pool; expected "
                "model_info['uniroute'] or litellm_params['model'] to name one"
            )

    def install(self) -> None:
        """Make the LiteLLM router use this strategy."""
        self._proxy.set_custom_routing_strategy(self)

    def choose(
        self,
        messages: Sequence[dict[str, Any]] | None = None,
        input: str | list[Any] | None = None,
        request_kwargs: dict[str, Any] | None = None,
        *,
        avoid: frozenset[str] = frozenset(),
    ) -> Deployment:
        """Choose a deployment of the group for one request, cooldowns aside.

        Parameters
        ----------
        messages, input, request_kwargs
            As LiteLLM hands them to a strategy.
        avoid : set of str
            Ids of deployments that may not be chosen.

        Raises
        ------
        NoCandidateError
            No deployment is left.
        """
        index = self._current_index()
        names, constraints = index.deployments, index.constraints
        if avoid:
            left = {n: [d for d in all_ if _id(d) not in avoid] for n, all_ in names.items()}
            names = {name: some for name, some in left.items() if some}
            constraints = index.allowing(names)
        asked = _asked(request_kwargs)
        weight = asked.get("cost_weight", self._cost_weight)
        text = _text(messages, input)
        return _draw(names[route_among(self._router, text, weight, constraints)])

    def get_available_deployment(
        self,
        model: str,
        messages: list[dict[str, str]] | None = None,
        input: str | list[Any] | None = None,
        specific_deployment: bool | None = False,
        request_kwargs: dict[str, Any] | None = None,
    ) -> Deployment:
        """Answer LiteLLM: the deployment that takes a request."""
        if model != self._group or specific_deployment:
            with self._handed_back(model):
                deployment: Deployment = self._others(
                    model=model,
                    messages=messages,
                    input=input,
                    specific_deployment=specific_deployment,
                    request_kwargs=request_kwargs,
                )
            return deployment
        avoid: frozenset[str] = frozenset()
        while True:
            chosen = self.choose(messages, input, request_kwargs, avoid=avoid)
            cooling = self._proxy.cooldown_cache.get_active_cooldowns(
                model_ids=[_id(chosen)], parent_otel_span=None
            )
            if not cooling:
                return chosen
            avoid |= {_id(chosen)}

    async def async_get_available_deployment(
        self,
        model: str,
        messages: list[dict[str, str]] | None = None,
        input: str | list[Any] | None = None,
        specific_deployment: bool | None = False,
        request_kwargs: dict[str, Any] | None = None,
    ) -> Deployment:
        """Answer LiteLLM: the deployment that takes a request."""
        if model != self._group or specific_deployment:
            with self._handed_back(model):
                deployment: Deployment = await self._async_others(
                    model=model,
                    messages=messages,
                    input=input,
                    specific_deployment=specific_deployment,
                    request_kwargs=request_kwargs or {},
                )
            return deployment
        avoid: frozenset[str] = frozenset()
        while True:
            chosen = self.choose(messages, input, request_kwargs, avoid=avoid)
            cooling = await self._proxy.cooldown_cache.async_get_active_cooldowns(
                model_ids=[_id(chosen)], parent_otel_span=None
            )
            if not cooling:
                return chosen
            avoid |= {_id(chosen)}

    @contextmanager
    def _handed_back(self, model: str) -> Iterator[None]:
        """Let LiteLLM choose instead; an error where it asks this strategy again."""
        if id(self) in _HANDED_BACK.get():
            raise InvalidArgumentError(
                f"model: this LiteLLM asks a strategy for every deployment, here one of {model!r}, "
                f"and takes none back; expected requests for {self._group!r} that name no "
                "deployment, or LiteLLM below 1.110"
            )
        token = _HANDED_BACK.set(_HANDED_BACK.get() | {id(self)})
        try:
            yield
        finally:
            _HANDED_BACK.reset(token)

    def _current_index(self) -> _Index:
        """Return the index, made anew if LiteLLM's deployments or the pool have changed."""
        index = self._index
        if not index.is_current(self._proxy.model_list, self._router):
            index = _Index(self._proxy.model_list, self._router, self._group, self._constraints)
            self._index = index
        return index


class _Index:
    """The deployments of a group by the LLM that they stand for, at one moment."""

    def __init__(
        self,
        model_list: list[Deployment],
        router: Router,
        group: str,
        constraints: Constraints | None,
    ) -> None:
        self._version, self._models = router.version, router.models
        # Kept, so that none of their ids can come to stand for another object.
        self._seen = list(model_list)
        self._given = constraints
        known = set(self._models)
        self.deployments: dict[str, list[Deployment]] = {}
        for deployment in model_list:
            info = deployment.get("model_info") or {}
            name = info.get("uniroute") or deployment["litellm_params"]["model"]
            if deployment["model_name"] == group and name in known and not info.get("blocked"):
                self.deployments.setdefault(name, []).append(deployment)
        self.constraints = self.allowing(self.deployments)

    def is_current(self, model_list: list[Deployment], router: Router) -> bool:
        """Whether deployments and names of the pool are the same: O(deployments), of `is`."""
        version = router.version
        if version != self._version and router.models == self._models:
            # Other costs or profiles: the router knows them.
            self._version = version
        return version == self._version and model_list == self._seen

    def allowing(self, names: dict[str, Any]) -> Constraints:
        """Return the caller's constraints, with the LLMs of these names alone allowed."""
        return allowing(names, self._given)


def _id(deployment: Deployment) -> str:
    identity: str = deployment["model_info"]["id"]
    return identity


def _draw(deployments: list[Deployment]) -> Deployment:
    if len(deployments) == 1:
        return deployments[0]
    weights = [float(d["litellm_params"].get("weight") or 0) for d in deployments]
    return random.choices(deployments, weights if any(weights) else None)[0]


def _asked(request_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a request's metadata says under "uniroute"."""
    metadata = (request_kwargs or {}).get("metadata") or {}
    asked = metadata.get("uniroute") or {}
    if not isinstance(asked, dict):
        raise InvalidArgumentError(f"metadata['uniroute']: {asked!r}; expected a dict")
    return asked


def _text(messages: Sequence[dict[str, Any]] | None, input: str | list[Any] | None) -> str:
    if messages is not None:
        return chat_text(messages)
    if isinstance(input, list):
        return "\n".join(item for item in input if isinstance(item, str))
    return input or ""
