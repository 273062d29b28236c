"""The LiteLLM strategy, with the real LiteLLM and mock answers."""

from __future__ import annotations

import asyncio
import itertools
import os

import numpy as np
import pytest

import uniroute_fast as uf
from serving import TEXTS, make_router

# Its prices come with it: nothing is to be fetched.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
litellm = pytest.importorskip("litellm", reason="litellm is not installed (extra litellm)")

from uniroute_fast.integrations.litellm import UniRouteStrategy  # noqa: E402

LLMS = ["small", "middle", "large"]


def deployment(llm: str, group: str = "auto", **more: object) -> dict:
    info = {"uniroute": llm, **more.pop("model_info", {})}
    called = {"model": f"openai/{llm}", "api_key": "none", "mock_response": f"by {llm}", **more}
    return {"model_name": group, "litellm_params": called, "model_info": info}


@pytest.fixture
def router() -> uf.Router:
    return make_router(names=LLMS)


@pytest.fixture
def proxy() -> litellm.Router:
    everyone = [deployment(llm) for llm in LLMS]
    return litellm.Router([*everyone, deployment("small", "plain")], num_retries=0)


def ask(text: str, **more: object) -> dict:
    return {"messages": [{"role": "user", "content": text}], **more}


def answer(reply: object) -> str:
    return reply.choices[0].message.content


def test_requests_go_where_the_router_sends_them(proxy: litellm.Router, router: uf.Router) -> None:
    UniRouteStrategy(proxy, router, "auto", cost_weight=0.02).install()
    expected = [router.route(text, 0.02).model for text in TEXTS[::7]]
    assert len(set(expected)) > 1
    found = [answer(proxy.completion("auto", **ask(text))) for text in TEXTS[::7]]
    assert found == [f"by {model}" for model in expected]

    async def all_at_once() -> list[str]:
        asked = (proxy.acompletion("auto", **ask(text)) for text in TEXTS[::7])
        return [answer(reply) for reply in await asyncio.gather(*asked)]

    assert asyncio.run(all_at_once()) == found


def test_other_groups_go_their_own_way(proxy: litellm.Router, router: uf.Router) -> None:
    UniRouteStrategy(proxy, router, "auto").install()
    assert answer(proxy.completion("plain", **ask("add 1"))) == "by small"
    assert answer(asyncio.run(proxy.acompletion("plain", **ask("add 1")))) == "by small"


def test_a_litellm_that_takes_no_group_back_is_told(
    proxy: litellm.Router, router: uf.Router
) -> None:
    strategy = UniRouteStrategy(proxy, router, "auto")
    # As LiteLLM 1.110 and later do: asked for a deployment, they ask the strategy.
    strategy._others = strategy.get_available_deployment
    strategy._async_others = strategy.async_get_available_deployment
    with pytest.raises(uf.errors.InvalidArgumentError, match="'plain'"):
        strategy.get_available_deployment("plain", **ask("add 1"))
    with pytest.raises(uf.errors.InvalidArgumentError, match="'plain'"):
        asyncio.run(strategy.async_get_available_deployment("plain", **ask("add 1")))
    assert strategy.get_available_deployment("auto", **ask("add 1"))["model_name"] == "auto"


def test_two_groups_have_a_strategy_each(router: uf.Router) -> None:
    groups = ["auto", "other", "plain"]
    proxy = litellm.Router([deployment(llm, group) for group in groups for llm in LLMS[:2]])
    UniRouteStrategy(proxy, router, "auto").install()
    UniRouteStrategy(proxy, router, "other", cost_weight=100.0).install()
    assert answer(proxy.completion("other", **ask("add 1"))) == "by small"
    for group in groups:
        assert answer(proxy.completion(group, **ask("add 1"))).startswith("by ")
        assert answer(asyncio.run(proxy.acompletion(group, **ask("add 1")))).startswith("by ")


def test_a_request_may_name_its_cost_weight(proxy: litellm.Router, router: uf.Router) -> None:
    UniRouteStrategy(proxy, router, "auto").install()
    metadata = {"uniroute": {"cost_weight": 100.0}}
    reply = proxy.completion("auto", **ask(TEXTS[0], metadata=metadata))
    assert answer(reply) == "by small"


def test_deployments_in_cooldown_are_passed_over(proxy: litellm.Router, router: uf.Router) -> None:
    strategy = UniRouteStrategy(proxy, router, "auto", cost_weight=0.02)
    text = TEXTS[0]
    decision = router.route(text, 0.02)
    ranked = [decision.model, *(other.model for other in decision.alternatives)]
    for best, second in itertools.pairwise(ranked):
        (cooled,) = [d for d in proxy.model_list if d["model_info"]["uniroute"] == best][:1]
        error = litellm.RateLimitError("slow down", "openai", best)
        proxy.cooldown_cache.add_deployment_to_cooldown(
            cooled["model_info"]["id"],
            original_exception=error,
            exception_status=429,
            cooldown_time=60.0,
        )
        chosen = strategy.get_available_deployment("auto", **ask(text))
        assert chosen["model_info"]["uniroute"] == second
        chosen = asyncio.run(strategy.async_get_available_deployment("auto", **ask(text)))
        assert chosen["model_info"]["uniroute"] == second


def test_pool_and_deployments_may_change(proxy: litellm.Router, router: uf.Router) -> None:
    strategy = UniRouteStrategy(proxy, router, "auto")
    perfect = np.zeros((router.n_clusters, 1), np.float32)
    router.insert(["late"], [0.0], perfect)
    # In the pool, but nobody serves it yet.
    assert strategy.choose(**ask(TEXTS[0]))["model_info"]["uniroute"] in LLMS
    proxy.add_deployment(litellm.Deployment(**deployment("late")))
    assert strategy.choose(**ask(TEXTS[0]))["model_info"]["uniroute"] == "late"
    router.disable_model("late")
    assert strategy.choose(**ask(TEXTS[0]))["model_info"]["uniroute"] in LLMS


def test_constraints_and_what_cannot_be_embedded(proxy: litellm.Router, router: uf.Router) -> None:
    cheap = uf.Constraints(max_cost=1.0)
    strategy = UniRouteStrategy(proxy, router, "auto", constraints=cheap)
    chosen = {strategy.choose(**ask(text))["model_info"]["uniroute"] for text in TEXTS}
    assert chosen == {"small"}
    strategy = UniRouteStrategy(proxy, router, "auto", cost_weight=0.01)
    mean = router.profiles.mean(axis=0, dtype=np.float64) + 0.01 * router.costs
    best = router.models[int(mean.argmin())]
    for prompt in (ask(""), {"messages": None, "input": None}, {"input": [1, 2]}):
        assert strategy.choose(**prompt)["model_info"]["uniroute"] == best
    with pytest.raises(uf.errors.InvalidArgumentError, match="allow"):
        UniRouteStrategy(proxy, router, "auto", constraints=uf.Constraints(allow=["small"]))
    with pytest.raises(uf.errors.InvalidArgumentError, match="group"):
        UniRouteStrategy(proxy, router, "nobody")


def test_deployments_of_one_model_share_its_requests(router: uf.Router) -> None:
    names = ["heavy", "light", "never"]
    weights = {"heavy": 9, "light": 1, "never": 0}
    same = [deployment("large", weight=weights[n], model_info={"id": n}) for n in names]
    strategy = UniRouteStrategy(litellm.Router(same), router, "auto")
    drawn = [strategy.choose(**ask(TEXTS[0]))["model_info"]["id"] for _ in range(1000)]
    counts = {name: drawn.count(name) for name in names}
    assert counts["never"] == 0
    assert 800 < counts["heavy"] < 980
