"""What routing loses where an embedder stands in for its teacher."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evaluate.deferral import area, area_of, deferral_curve
from uniroute_fast.profiles.fit import fit_profiler

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uniroute_fast.datasets import Dataset
    from uniroute_fast.embedding.lexical import LexicalEmbedder


def against_teacher(
    student: LexicalEmbedder,
    teacher_vectors: ArrayLike,
    dataset: Dataset,
    *,
    trials: int = 20,
    seed: int = 0,
) -> LexicalEmbedder:
    """Measure how much Area routing loses on a student's embeddings, beside its teacher's.

    In each trial half of the prompts, drawn at random, profile all LLMs and the others are routed,
    once on the student's embeddings and once on the teacher's, everything else the same.

    Parameters
    ----------
    student : LexicalEmbedder
        Distilled from the teacher, on other prompts than these.
    teacher_vectors : float[N, E]
        The teacher's vectors of ``dataset.texts``.
    dataset : Dataset
        Prompts and scores; only prompts that all LLMs were run on are used.
    trials : int
        At least 2.
    seed : int

    Returns
    -------
    LexicalEmbedder
        The student, and in its ``info`` ``teacher_area``, ``area_loss`` (the teacher's mean Area
        less the student's) and ``area_loss_2se`` (two standard errors of it over trials, paired).
        They are saved with every router that uses the embedder: ``router.embedder.info``.

    Raises
    ------
    InvalidArgumentError
        Vectors of another number than the prompts, fewer than two trials, too few prompts.
    MissingExtraError
        The extra ``fit`` is not installed.

    Notes
    -----
    O(trials N (M + E K)).
    """
    vectors = np.asarray(teacher_vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(dataset.texts):
        raise InvalidArgumentError(
            f"teacher_vectors: shape {vectors.shape}; "
            f"expected one vector for each of {len(dataset.texts)} prompts"
        )
    if trials < 2:
        raise InvalidArgumentError(f"trials: {trials}; expected at least 2")
    complete = np.flatnonzero(~np.isnan(dataset.scores).any(axis=1))
    if len(complete) < 4:
        raise InvalidArgumentError(
            f"dataset: {len(complete)} prompts that all LLMs were run on; expected at least 4"
        )
    quality, costs = np.asarray(dataset.scores)[complete], np.asarray(dataset.costs)
    embeddings = student.embed([dataset.texts[i] for i in complete.tolist()]), vectors[complete]
    rng = np.random.default_rng(seed)
    areas = np.zeros((trials, 2))
    for trial in areas:
        learned, routed = np.array_split(rng.permutation(len(complete)), 2)
        trial[:] = [_area(x, quality, costs, learned, routed, seed) for x in embeddings]
    losses = areas[:, 1] - areas[:, 0]
    figures = {
        "teacher_area": areas[:, 1].mean(),
        "area_loss": losses.mean(),
        "area_loss_2se": 2 * losses.std(ddof=1) / np.sqrt(trials),
    }
    rounded = {name: round(float(figure), 4) for name, figure in figures.items()}
    return student.with_info_json(json.dumps(student.info | rounded))


def _area(
    x: NDArray[np.float32],
    quality: NDArray[np.float64],
    costs: NDArray[np.float64],
    learned: NDArray[np.intp],
    routed: NDArray[np.intp],
    seed: int,
) -> float:
    """Return the Area of routing some prompts with profiles learned on others."""
    profiler = fit_profiler(x[learned], seed=seed, area=area_of)
    evidence = profiler.observe(profiler.map.phi(x[learned]), 1 - quality[learned])
    predicted = profiler.map.phi(x[routed]) @ profiler.profile(evidence).psi
    return area(deferral_curve(predicted, quality[routed], costs), costs)
