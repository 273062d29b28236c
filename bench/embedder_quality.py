"""Routing quality by embedder: Area over random splits, everything else equal.

    python bench/embedder_quality.py --sets zeroeval mmlu_pro bfcl --trials 20 [--minilm VECTORS]

VECTORS is a folder of SET.npz files written by `bench/minilm_vectors.py`; with it, MiniLM itself
and the lexical embedder distilled from it are compared too. Prints one row for each set and
embedder: mean Area, 2 standard errors, and the mean difference to the first embedder of the set,
paired by trial, with 2 standard errors.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import uniroute_fast as uf
from uniroute_fast import datasets, evaluate

Embed = Callable[[Any, Any, int], NDArray[np.float32]]


def fitted(dim: int, rows: int) -> Embed:
    """Fit a lexical embedder on each split's training prompts."""

    def embed(block: Any, split: Any, seed: int) -> NDArray[np.float32]:
        train = [block.texts[i] for i in split.train]
        return uf.LexicalEmbedder.fit(train, dim=dim, rows=rows, seed=seed).embed(block.texts)

    return embed


def teacher(vectors: dict[str, NDArray[np.float32]]) -> Embed:
    """Take the teacher's own vectors."""
    return lambda block, split, seed: np.array([vectors[str(i)] for i in block.ids])


def distilled(vectors: dict[str, NDArray[np.float32]], dim: int, rows: int) -> Embed:
    """Distil a lexical embedder from the teacher on each split's training prompts."""

    def embed(block: Any, split: Any, seed: int) -> NDArray[np.float32]:
        train = [block.texts[i] for i in split.train]
        target = np.array([vectors[str(block.ids[i])] for i in split.train])
        student = uf.LexicalEmbedder.distill(train, target, dim=dim, rows=rows, seed=seed)
        return student.embed(block.texts)

    return embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("UNIROUTE_DATA", "../shared/data"))
    )
    parser.add_argument("--sets", nargs="+", default=["zeroeval", "mmlu_pro", "bfcl"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--shapes", nargs="+", default=["64x32768"], help="dim x rows of the table")
    parser.add_argument("--method", default="uniroute")
    parser.add_argument("--minilm", type=Path)
    arguments = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in arguments.shapes]

    print("| set | embedder | Area | 2 SE | difference | 2 SE |\n|---|---|---|---|---|---|")
    for name in arguments.sets:
        data = datasets.load(arguments.data / name)
        embedders: dict[str, Embed] = {}
        if arguments.minilm and (arguments.minilm / f"{name}.npz").exists():
            saved = np.load(arguments.minilm / f"{name}.npz")
            vectors = dict(zip(map(str, saved["ids"]), saved["vectors"], strict=True))
            embedders["all-MiniLM-L6-v2"] = teacher(vectors)
            for dim, rows in shapes:
                embedders[f"lexical, distilled, {dim} x {rows}"] = distilled(vectors, dim, rows)
        for dim, rows in shapes:
            embedders[f"lexical, fitted, {dim} x {rows}"] = fitted(dim, rows)
        first = None
        for label, embed in embedders.items():
            table = evaluate.run_trials(
                data, [arguments.method], trials=arguments.trials, embed=embed
            )
            area = table.figures[arguments.method][:, 0]
            first = area if first is None else first
            cells = [area, area - first]
            shown = " | ".join(
                f"{x.mean():.4f} | {2 * x.std(ddof=1) / np.sqrt(len(x)):.4f}" for x in cells
            )
            print(f"| {name} | {label} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
