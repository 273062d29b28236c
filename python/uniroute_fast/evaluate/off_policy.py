"""What another routing rule would have scored, from the log of one that explored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from uniroute_fast._checks.arrays import as_array, as_numbers
from uniroute_fast.errors import InvalidArgumentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Estimate:
    """A mean loss and its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class OffPolicy:
    """Estimates of the mean loss of a rule, from what another one logged.

    Attributes
    ----------
    ips : Estimate
        Inverse propensity scoring: unbiased.
    self_normalised : Estimate
        The same divided by the sum of the weights: a little biased, less noisy.
    doubly_robust : Estimate or None
        Predicted losses, corrected by weighted residuals: unbiased, and the less noisy the better
        the predictions. None without predictions.
    effective_size : float
        How many logged prompts the weights are worth: (sum w)² / sum w².
    largest_weight : float
        Above a few hundred, one prompt may decide: explore more evenly.
    """

    ips: Estimate
    self_normalised: Estimate
    doubly_robust: Estimate | None
    effective_size: float
    largest_weight: float


def off_policy(
    policy: ArrayLike,
    chosen: ArrayLike,
    losses: ArrayLike,
    propensities: ArrayLike,
    predicted: ArrayLike | None = None,
) -> OffPolicy:
    """Estimate the mean loss of a routing rule from the log of another.

    Parameters
    ----------
    policy : int[N], or float[N, M]
        The rule: the LLM that it chooses for each logged prompt, or the probability of each LLM.
    chosen : int[N]
        The LLM that answered each prompt, by index.
    losses : float[N]
        Of these answers, in [0, 1].
    propensities : float[N]
        The probability that this LLM was drawn with, in (0, 1]: `Exploration.propensity`.
    predicted : float[N, M], optional
        Predicted loss of every LLM on each prompt, such as `Router.predict_loss`, made without the
        losses of this log.

    Returns
    -------
    OffPolicy

    Raises
    ------
    InvalidArgumentError, ArgumentTypeError
        Shapes or values that cannot be used; a rule that never chooses what was logged.

    Notes
    -----
    O(N M). Standard errors are those of a mean over independent prompts; they hold the sampling of
    prompts as well as that of LLMs. Unbiased only where the log explores whatever the rule may
    choose: an LLM that was never drawn for some prompts cannot be judged on them.

    Examples
    --------
    >>> found = off_policy([0, 0, 1, 1], [0, 1, 1, 0], [0.0, 1.0, 0.0, 1.0], [0.5] * 4)
    >>> found.ips.value, found.self_normalised.value
    (0.0, 0.0)

    References
    ----------
    Dudik, Langford and Li, "Doubly Robust Policy Evaluation and Learning", 2011; Swaminathan and
    Joachims, "The Self-Normalized Estimator for Counterfactual Learning", 2015.
    """
    model, n = _indices("chosen", chosen)
    if n < 2:
        raise InvalidArgumentError(f"chosen: {n} prompts; expected two or more")
    loss = _column("losses", losses, n)
    if not ((loss >= 0) & (loss <= 1)).all():
        raise InvalidArgumentError("losses: a value outside 0 to 1; expected losses in [0, 1]")
    propensity = _column("propensities", propensities, n)
    if not ((propensity > 0) & (propensity <= 1)).all():
        raise InvalidArgumentError("propensities: a value outside (0, 1]; expected probabilities")
    probabilities, matched = _policy(policy, model)
    weight = matched / propensity
    if not weight.any():
        raise InvalidArgumentError(
            "policy: it never chooses an LLM that was logged; expected some overlap"
        )
    total = weight.sum()
    ratio = float(weight @ loss / total)
    residual = float(np.sqrt(np.square(weight * (loss - ratio)).sum()) / total)
    doubly_robust = None
    if predicted is not None:
        doubly_robust = _mean(_corrected(predicted, probabilities, model, loss, weight))
    return OffPolicy(
        ips=_mean(weight * loss),
        self_normalised=Estimate(ratio, residual * float(np.sqrt(n / (n - 1)))),
        doubly_robust=doubly_robust,
        effective_size=float(total**2 / np.square(weight).sum()),
        largest_weight=float(weight.max()),
    )


def _mean(values: NDArray[np.float64]) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def _corrected(
    predicted: ArrayLike,
    probabilities: NDArray[np.float64] | NDArray[np.intp],
    model: NDArray[np.intp],
    loss: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return what each prompt adds to the doubly robust estimate, float64[N]."""
    guess, rows = as_array("predicted", predicted), np.arange(len(model))
    fits = probabilities.shape if probabilities.ndim == 2 else (len(model), guess.shape[-1])
    if guess.ndim != 2 or guess.shape != fits or guess.shape[1] <= model.max():
        raise InvalidArgumentError(
            f"predicted: shape {guess.shape}; expected a row for each of {len(model)} prompts and "
            "a column for each LLM"
        )
    guess = guess.astype(np.float64)
    if not np.isfinite(guess).all():
        raise InvalidArgumentError("predicted: a value that is not finite; expected losses")
    if probabilities.ndim == 2:
        expected = (probabilities * guess).sum(axis=1)
    elif probabilities.max() < guess.shape[1]:
        expected = guess[rows, probabilities.astype(np.intp)]
    else:
        raise InvalidArgumentError(
            f"policy: LLM {probabilities.max()}; expected one of the {guess.shape[1]} of predicted"
        )
    return np.asarray(expected + weight * (loss - guess[rows, model]))


def _policy(
    policy: ArrayLike, model: NDArray[np.intp]
) -> tuple[NDArray[np.float64] | NDArray[np.intp], NDArray[np.float64]]:
    """Return the rule, and the probability with which it chooses what was logged."""
    array, n = as_array("policy", policy), len(model)
    if array.ndim == 1:
        choice, rows = _indices("policy", array)
        if rows != n:
            raise InvalidArgumentError(f"policy: {rows} choices; expected {n}, one a prompt")
        return choice, (choice == model).astype(np.float64)
    if array.ndim != 2 or len(array) != n or array.shape[1] <= model.max():
        raise InvalidArgumentError(
            f"policy: shape {array.shape}; expected [{n}], or [{n}, M] with a column for each LLM"
        )
    array = array.astype(np.float64)
    if not ((array >= 0).all() and np.allclose(array.sum(axis=1), 1)):
        raise InvalidArgumentError("policy: rows that are no probabilities; expected sums of 1")
    return array, array[np.arange(n), model]


def _indices(argument: str, values: ArrayLike) -> tuple[NDArray[np.intp], int]:
    array = as_numbers(argument, values, "indices of LLMs", "iu")
    if array.ndim != 1 or (len(array) and array.min() < 0):
        raise InvalidArgumentError(f"{argument}: shape {array.shape}; expected [N], 0 or more")
    return array.astype(np.intp), len(array)


def _column(argument: str, values: ArrayLike, n: int) -> NDArray[np.float64]:
    array = as_numbers(argument, values)
    if array.shape != (n,):
        raise InvalidArgumentError(f"{argument}: shape {array.shape}; expected ({n},)")
    return array.astype(np.float64)
