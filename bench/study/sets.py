"""The real outcomes that the study runs on: where they are, and embeddings that are made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from uniroute_fast.datasets import Dataset, load
from uniroute_fast.embedding.lexical import LexicalEmbedder
from uniroute_fast.evaluate import Split, random_split
from uniroute_fast.evaluate.trial import Trial, make_trial

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("UNIROUTE_DATA", ROOT.parent / "shared" / "data"))
SETS = ("zeroeval", "mmlu_pro", "metabench", "routerbench_subset", "bfcl")
CACHE = Path(os.environ.get("UNIROUTE_STUDY_CACHE", ROOT / "target" / "study"))


def complete(name: str) -> Dataset:
    """Return the complete block of a set."""
    return load(DATA / name).complete_block()


def embed(dataset: Dataset, split: Split, seed: int) -> np.ndarray:
    """Embed with a `LexicalEmbedder` fitted on the training prompts; kept on disk by split."""
    version = f"v{LexicalEmbedder.fit(['a b', 'b c'], dim=1).info.get('version', 1)}"
    file = CACHE / f"{dataset.name}-{len(dataset.ids)}-{len(split.train)}-{seed}-{version}.npy"
    if file.exists():
        return np.load(file)
    embedder = LexicalEmbedder.fit([dataset.texts[i] for i in split.train], seed=seed)
    embeddings = embedder.embed(list(dataset.texts))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, embeddings)
    partial.replace(file)
    return embeddings


def trials(name: str, first_seed: int, count: int) -> Iterator[Trial]:
    """Yield `count` trials of a set's complete block, on splits of seeds from `first_seed`."""
    dataset = complete(name)
    for seed in range(first_seed, first_seed + count):
        split = random_split(dataset, seed)
        yield make_trial(dataset, split, embed(dataset, split, seed), seed)
