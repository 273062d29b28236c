"""The LangChain selector, with the real LangChain and fake chat models."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import uniroute_fast as uf
from serving import TEXTS, make_router

pytest.importorskip("langchain", reason="langchain is not installed (extra langchain)")

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

from uniroute_fast.integrations.langchain import ModelSelector

LLMS = ["small", "middle", "large"]


class Fake(BaseChatModel):
    """Says who it is; with tools, calls the first one before."""

    llm: str
    tools: tuple[str, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: list, **_: object) -> BaseChatModel:
        return Fake(llm=self.llm, tools=tuple(tool.name for tool in tools))

    def _generate(self, messages: list, *_: object, **__: object) -> ChatResult:
        calls = []
        if self.tools and messages[-1].type != "tool":
            calls = [{"name": self.tools[0], "args": {"x": 1}, "id": "1"}]
        message = AIMessage(f"by {self.llm}", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages: list, *_: object, **__: object):
        for piece in ("by ", self.llm):
            yield ChatGenerationChunk(message=AIMessageChunk(piece))


@pytest.fixture
def router() -> uf.Router:
    return make_router(names=LLMS)


def selector(router: uf.Router, **more: object) -> ModelSelector:
    return ModelSelector(router, {llm: Fake(llm=llm) for llm in LLMS}, cost_weight=0.02, **more)


def test_chains_go_where_the_router_sends_them(router: uf.Router) -> None:
    runnable = selector(router).runnable()
    texts = TEXTS[::7]
    expected = [f"by {router.route(text, 0.02).model}" for text in texts]
    assert len(set(expected)) > 1
    assert [runnable.invoke(text).content for text in texts] == expected
    assert [reply.content for reply in runnable.batch(texts)] == expected

    async def all_at_once() -> list[str]:
        return [r.content for r in await asyncio.gather(*map(runnable.ainvoke, texts))]

    assert asyncio.run(all_at_once()) == expected
    chain = ChatPromptTemplate([("system", "poem"), ("human", "{text}")]) | runnable
    assert [chain.invoke({"text": text}).content for text in texts] == expected


def test_answers_are_streamed(router: uf.Router) -> None:
    runnable = selector(router).runnable()
    expected = f"by {router.route(TEXTS[0], 0.02).model}"
    pieces = [piece.content for piece in runnable.stream(TEXTS[0])]
    assert (len([p for p in pieces if p]), "".join(pieces)) == (2, expected)

    async def streamed() -> str:
        return "".join([piece.content async for piece in runnable.astream(TEXTS[0])])

    assert asyncio.run(streamed()) == expected


def test_what_the_user_wrote_decides(router: uf.Router) -> None:
    messages = [
        SystemMessage("river poem rust"),
        HumanMessage("add 3"),
        AIMessage("river"),
        HumanMessage([{"type": "text", "text": "add 4"}, {"type": "image_url", "image_url": {}}]),
    ]
    chosen = selector(router)
    expected = router.route("add 3\nadd 4", 0.02).model
    assert chosen.choose(messages) == expected
    dicts = [{"role": "system", "content": "x"}, {"role": "user", "content": "add 3\nadd 4"}]
    assert chosen.choose(dicts) == expected
    assert chosen.choose([("user", "add 3\nadd 4")]) == expected


def test_agents_go_where_the_router_sends_them(router: uf.Router) -> None:
    @tool
    def double(x: int) -> int:
        """Double a number."""
        return 2 * x

    agent = create_agent(Fake(llm="nobody"), [double], middleware=[selector(router).middleware()])
    for text in TEXTS[::20]:
        expected = f"by {router.route(text, 0.02).model}"
        asked = {"messages": [{"role": "user", "content": text}]}
        for answer in (agent.invoke(asked), asyncio.run(agent.ainvoke(asked))):
            messages = answer["messages"]
            # The chosen model has the agent's tools, and answers again after the tool has.
            assert [m.type for m in messages] == ["human", "ai", "tool", "ai"]
            assert [m.content for m in messages[1:]] == [expected, "2", expected]


def test_the_pool_may_change(router: uf.Router) -> None:
    chosen = selector(router)
    first = chosen.choose(TEXTS[0])
    router.disable_model(first)
    assert chosen.choose(TEXTS[0]) != first
    assert chosen.choose("") != first
    for llm in LLMS:
        router.remove_model(llm)
    router.insert(["other"], [1.0], [[0.0]] * router.n_clusters)
    for text in (TEXTS[0], ""):
        with pytest.raises(uf.errors.NoCandidateError):
            chosen.choose(text)


def test_only_what_is_given_and_meets_the_constraints_is_chosen(router: uf.Router) -> None:
    models = {llm: Fake(llm=llm) for llm in LLMS[:2]}
    constraints = uf.Constraints(max_cost=2.0)
    chosen = ModelSelector(router, models, constraints=constraints)
    assert {chosen.choose(text) for text in TEXTS} == {"small"}
    for bad in ({"nobody": Fake(llm="x")}, {}):
        with pytest.raises(uf.errors.InvalidArgumentError, match="names of the pool"):
            ModelSelector(router, bad)
    with pytest.raises(uf.errors.InvalidArgumentError, match="allow"):
        ModelSelector(router, models, constraints=uf.Constraints(allow=["small"]))
    with pytest.raises(uf.errors.ArgumentTypeError, match="messages"):
        chosen.choose(3)


def test_without_langchain_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["langchain"] = sys.modules["langchain_core"] = None
from serving import make_router
from uniroute_fast.errors import MissingExtraError
from uniroute_fast.integrations.langchain import ModelSelector
selector = ModelSelector(make_router(), {"small": None})
for call in (selector.runnable, selector.middleware, lambda: selector.choose([])):
    try:
        call()
    except MissingExtraError as error:
        assert "uniroute_fast[langchain]" in str(error)
    else:
        raise AssertionError("it was found")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
