"""LangChain: a chat model chosen by prompt, for agents and for chains.

The decision takes microseconds in process, with the GIL released: an event loop is not blocked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from uniroute_fast._checks.extras import imported
from uniroute_fast._checks.instances import as_instance
from uniroute_fast._checks.scalars import as_number
from uniroute_fast.embedding.chat import chat_text
from uniroute_fast.errors import ArgumentTypeError, InvalidArgumentError
from uniroute_fast.integrations.among import allowing, refuse_allow, route_among
from uniroute_fast.router import Router

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from uniroute_fast._native import Constraints


class ModelSelector:
    """Chooses among chat models by prompt: what the user wrote, as `chat_text` has it.

    Parameters
    ----------
    router : Router
    models : dict of str to chat model
        What is called for each LLM of the pool, by the LLM's name; an LLM that is missing here is
        never chosen. Any runnable that takes a chat model's input will do for `runnable`.
    cost_weight : float
        As in `Router.route`.
    constraints : Constraints, optional
        As in `Router.route`, without ``allow``: `models` says what is allowed.

    Raises
    ------
    InvalidArgumentError
        No models, or one that is not in the pool; constraints with ``allow``.

    Notes
    -----
    A prompt that cannot be embedded (empty, or of nothing the embedder knows) goes to the LLM with
    the least mean of predicted loss over the clusters + cost weight x cost. Changes of the pool
    count from the next call on.

    Examples
    --------
    >>> models = {"small": ChatOpenAI(...), "large": ChatAnthropic(...)}  # doctest: +SKIP
    >>> selector = ModelSelector(router, models, cost_weight=0.1)  # doctest: +SKIP
    >>> selector.runnable().invoke("What is 3 + 4?")  # doctest: +SKIP
    >>> create_agent(models["large"], tools, middleware=[selector.middleware()])  # doctest: +SKIP
    """

    def __init__(
        self,
        router: Router,
        models: Mapping[str, Any],
        *,
        cost_weight: float = 0.0,
        constraints: Constraints | None = None,
    ) -> None:
        as_instance("router", router, Router)
        as_instance("models", models, Mapping, "a dict of LLMs' names to chat models")
        cost_weight = as_number("cost_weight", cost_weight, 0)
        refuse_allow(constraints, "models")
        unknown = [name for name in models if name not in set(router.models)]
        if unknown or not models:
            raise InvalidArgumentError(
                f"models: {', '.join(map(repr, unknown)) or 'none'}; expected names of the pool"
            )
        self._router = router
        self._models = dict(models)
        self._cost_weight = cost_weight
        self._constraints = allowing(self._models, constraints)

    def choose(self, messages: Any) -> str:
        """Choose an LLM for one request.

        Parameters
        ----------
        messages : str, prompt value, or sequence of messages
            As a chat model takes them.

        Returns
        -------
        str
            Its name in the pool.

        Raises
        ------
        ArgumentTypeError
            An input that chat models do not take.
        NoCandidateError
            No LLM meets the constraints.
        MissingExtraError
            LangChain is not installed (extra ``langchain``).
        """
        text = messages if isinstance(messages, str) else chat_text(_as_chat(messages))
        return route_among(self._router, text, self._cost_weight, self._constraints)

    def runnable(self) -> Any:
        """Return a runnable that hands its input to the chat model chosen for it.

        It streams, batches and runs asynchronously as that model does. Tools and structured output
        are bound to the models beforehand.

        Returns
        -------
        langchain_core.runnables.Runnable

        Raises
        ------
        MissingExtraError
            LangChain is not installed (extra ``langchain``).
        """
        runnables = imported("langchain_core.runnables", "langchain", "LangChain")

        def select(messages: Any) -> Any:
            return self._models[self.choose(messages)]

        async def aselect(messages: Any) -> Any:
            return select(messages)

        return runnables.RunnableLambda(select, aselect, name="uniroute")

    def middleware(self) -> Any:
        """Return middleware for `create_agent`, which chooses for every call of the agent's model.

        The chosen model gets the agent's tools and settings. Within a turn the user's words are the
        same, so the model is too, unless the pool changes.

        Returns
        -------
        langchain.agents.middleware.AgentMiddleware

        Raises
        ------
        MissingExtraError
            LangChain is not installed (extra ``langchain``).
        """
        base = imported("langchain.agents.middleware", "langchain", "LangChain").AgentMiddleware
        selector = self

        class UniRouteMiddleware(base):  # type: ignore[misc, valid-type]
            def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
                return handler(selector._routed(request))

            async def awrap_model_call(
                self, request: Any, handler: Callable[[Any], Awaitable[Any]]
            ) -> Any:
                return await handler(selector._routed(request))

        return UniRouteMiddleware()

    def _routed(self, request: Any) -> Any:
        """Return an agent's request to a model as one to the model that is chosen for it."""
        return request.override(model=self._models[self.choose(request.messages)])


def _as_chat(messages: Any) -> Sequence[Mapping[str, Any]]:
    """Return what a chat model takes as messages of role and content."""
    core = imported("langchain_core.messages", "langchain", "LangChain")
    if hasattr(messages, "to_messages"):
        messages = messages.to_messages()
    try:
        known = core.convert_to_messages(messages)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ArgumentTypeError(
            f"messages: {error}; expected a str, a prompt value or messages"
        ) from None
    roles = {"human": "user"}
    return [{"role": roles.get(m.type, m.type), "content": m.content} for m in known]
