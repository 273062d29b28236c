"""What a choice costs inside LiteLLM, at 1,000 deployments, beside its simple-shuffle.

    python bench/litellm_choice.py ../shared/data/mmlu_pro

Real prompts; profiles and costs are drawn at random, and each deployment stands for an LLM of its
own. Three things are timed, each over the same requests: the strategy's own work; the call that
LiteLLM makes for a deployment, with the strategy installed (cooldowns looked up); and the same call
under simple-shuffle, LiteLLM's default, which looks at no prompt.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable

import numpy as np

# LiteLLM's prices come with it: nothing is to be fetched.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
import litellm

import uniroute_fast as uf
from uniroute_fast import datasets
from uniroute_fast.integrations.litellm import UniRouteStrategy


def deployments(count: int) -> list[dict]:
    return [
        {
            "model_name": "auto",
            "litellm_params": {"model": f"openai/llm-{i}", "api_key": "none"},
            "model_info": {"uniroute": f"llm-{i}"},
        }
        for i in range(count)
    ]


def show(what: str, nanoseconds: list[int]) -> float:
    median, slow = np.percentile(np.array(nanoseconds) / 1e3, [50, 99])
    print(f"{what:44}{median:12.1f}{slow:12.1f}", flush=True)
    return float(median)


def timed(call: Callable[[list[dict]], object], chats: list[list[dict]]) -> list[int]:
    taken = []
    for chat in chats:
        start = time.perf_counter_ns()
        call(chat)
        taken.append(time.perf_counter_ns() - start)
    return taken


async def awaited(router: litellm.Router, chats: list[list[dict]]) -> list[int]:
    taken = []
    for chat in chats:
        start = time.perf_counter_ns()
        await router.async_get_available_deployment("auto", request_kwargs={}, messages=chat)
        taken.append(time.perf_counter_ns() - start)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--deployments", type=int, default=1000)
    arguments = parser.parse_args()
    texts = list(datasets.load(arguments.folder).texts)
    router = uf.Router.fit(texts, n_clusters=64)
    rng = np.random.default_rng(0)
    names = [f"llm-{i}" for i in range(arguments.deployments)]
    shape = (router.n_clusters, len(names))
    router.insert(names, rng.random(len(names)), rng.random(shape, dtype=np.float32))
    chats = [[{"role": "user", "content": text}] for text in texts[:4000]]
    plain = litellm.Router(deployments(len(names)))
    proxy = litellm.Router(deployments(len(names)))
    strategy = UniRouteStrategy(proxy, router, "auto", cost_weight=0.1)
    strategy.install()
    timed(strategy.choose, chats)
    print(f"{len(names):,} deployments, hard map, K 64")
    print(f"{'':44}{'p50 us':>12}{'p99 us':>12}")
    show("strategy's own choice", timed(strategy.choose, chats))
    ours = show("LiteLLM's call, this strategy", asyncio.run(awaited(proxy, chats)))
    shuffle = show("LiteLLM's call, simple-shuffle", asyncio.run(awaited(plain, chats[:200])))
    print(f"simple-shuffle / this strategy: {shuffle / ours:.1f}")


if __name__ == "__main__":
    main()
