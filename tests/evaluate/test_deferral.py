"""The deferral curve against the rule itself, applied at every cost weight that matters."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evaluate import DeferralCurve, area, deferral_curve, qnc, reaches_best

# Multiples of 1/8 make ties frequent and arithmetic exact.
EIGHTHS = st.integers(0, 8).map(lambda i: i / 8)


@st.composite
def problems(draw):
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    predicted = draw(arrays(np.float64, (n, m), elements=EIGHTHS))
    quality = draw(arrays(np.float64, (n, m), elements=EIGHTHS))
    costs = draw(arrays(np.float64, m, elements=st.integers(0, 5).map(float)))
    return predicted, quality, costs


def rule(predicted, costs, weight):
    """Choose by scanning: lowest loss + weight x cost, then cost, then index."""
    total = predicted + weight * costs
    order = np.lexsort((np.arange(costs.size), costs))
    return order[np.argmin(total[:, order], axis=1)]


def point(chosen, quality, costs):
    return costs[chosen].mean(), quality[np.arange(len(chosen)), chosen].mean()


def critical_weights(predicted, costs):
    """Every weight at which two LLMs of one row change places, in exact ratios of eighths."""
    found = {0.0}
    for row in predicted:
        for a in range(costs.size):
            for b in range(costs.size):
                if costs[a] < costs[b] and row[a] > row[b]:
                    found.add((row[a] - row[b]) / (costs[b] - costs[a]))
    return sorted(found)


@given(problems())
@settings(max_examples=300, deadline=None)
def test_corners_are_what_the_rule_gives_between_critical_weights(problem):
    predicted, quality, costs = problem
    weights = critical_weights(predicted, costs)
    between = [(a + b) / 2 for a, b in itertools.pairwise(weights)]
    probes = [*reversed([*between, 2 * weights[-1] + 1])]
    expected = [point(rule(predicted, costs, w), quality, costs) for w in probes]
    # At weight 0 equal losses go to the lower cost, as just above 0.
    expected.append(point(rule(predicted, costs, 0.0), quality, costs))
    distinct = [p for i, p in enumerate(expected) if i == 0 or not np.allclose(p, expected[i - 1])]

    curve = deferral_curve(predicted, quality, costs)
    points = list(zip(curve.cost, curve.quality, strict=True))
    points = [p for i, p in enumerate(points) if i == 0 or not np.allclose(p, points[i - 1])]
    np.testing.assert_allclose(points, distinct, atol=1e-12)


@given(problems())
@settings(max_examples=300, deadline=None)
def test_each_cost_weight_gives_its_corner(problem):
    predicted, quality, costs = problem
    curve = deferral_curve(predicted, quality, costs)
    assert curve.cost_weight[-1] == 0
    assert (np.diff(curve.cost_weight) < 0).all()
    for cost, mean, weight in zip(curve.cost, curve.quality, curve.cost_weight, strict=True):
        expected = point(rule(predicted, costs, weight), quality, costs)
        np.testing.assert_allclose((cost, mean), expected, atol=1e-12)


@given(problems(), st.sampled_from([0.25, 0.5, 1.0]))
@settings(max_examples=200, deadline=None)
def test_area_is_the_integral(problem, fraction):
    predicted, quality, costs = problem
    curve = deferral_curve(predicted, quality, costs)
    low, high = costs.min(), costs.max()
    if low == high:
        assert area(curve, costs, fraction) == pytest.approx(fraction * curve.quality[-1])
        return
    # A Riemann sum on a grid that is dense next to every corner.
    n = 20_001
    x = np.linspace(low, low + fraction * (high - low), n)
    expected = curve.at((x[1:] + x[:-1]) / 2).mean() * fraction
    assert area(curve, costs, fraction) == pytest.approx(expected, abs=2e-3)


def test_blind_prediction_is_the_same_as_one_row_for_all():
    rng = np.random.default_rng(0)
    means, quality, costs = rng.random(5), rng.random((40, 5)), rng.random(5)
    blind = deferral_curve(means, quality, costs)
    rows = deferral_curve(np.tile(means, (40, 1)), quality, costs)
    np.testing.assert_allclose(blind.cost, rows.cost)
    np.testing.assert_allclose(blind.quality, rows.quality)
    np.testing.assert_allclose(blind.cost_weight, rows.cost_weight)


def test_area_of_a_known_curve():
    curve = DeferralCurve(np.array([2.0, 4.0]), np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    costs = [1.0, 5.0]  # Flat at 0 to 2, up to 1 at 4, flat to 5.
    assert area(curve, costs) == pytest.approx((0 + 1 + 1) / 4)
    assert area(curve, costs, fraction=0.5) == pytest.approx(0.25 / 4)


def test_area_counts_a_vertical_step_from_the_right_side():
    curve = DeferralCurve(
        np.array([1.0, 3.0, 3.0, 5.0]), np.array([0.2, 0.2, 0.8, 0.8]), np.full(4, np.nan)
    )
    assert area(curve, [1.0, 5.0]) == pytest.approx(0.5)
    assert area(curve, [1.0, 5.0], fraction=0.5) == pytest.approx(0.1)


def test_qnc_interpolates_and_is_capped():
    quality = np.array([[0.0, 1.0], [0.0, 1.0]])
    costs = [1.0, 4.0]
    halfway = DeferralCurve(np.array([1.0, 3.0]), np.array([0.5, 1.5]), np.array([1.0, 0.0]))
    assert qnc(halfway, quality, costs) == pytest.approx(2.0 / 4.0)
    short = DeferralCurve(np.array([1.0, 3.0]), np.array([0.5, 0.9]), np.array([1.0, 0.0]))
    assert qnc(short, quality, costs) == 1.0
    assert not reaches_best(short, quality, costs)
    assert reaches_best(halfway, quality, costs)


def test_qnc_of_the_best_llm_alone_is_one():
    quality = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    curve = deferral_curve([0.9, 0.1], quality, [1.0, 2.0])
    assert qnc(curve, quality, [1.0, 2.0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("predicted", "quality", "costs", "message"),
    [
        ([[np.nan, 0]], [[0, 1]], [1, 2], r"predicted_loss: nan at \[0, 0\]"),
        ([[0, 0], [0, 1]], [[0, 1], [np.nan, 1]], [1, 2], r"quality: nan at \[1, 0\]"),
        ([[0, 0, 1]], [[0, 1]], [1, 2], r"predicted_loss: shape \(1, 3\)"),
        ([[0, 0]] * 2, [[0, 1]], [1, 2], r"predicted_loss: shape \(2, 2\)"),
        ([[0, 0]], [[0, 1]], [1, 2, 3], r"costs: shape \(3,\); expected \(2,\)"),
        ([[0, 0]], [[0, 1]], [1, -2], "costs: -2 at index 1"),
        ([[0, 0]], [[0, 1]], [np.inf, 2], "costs: inf at index 0"),
        (np.zeros((0, 2)), np.zeros((0, 2)), [1, 2], r"quality: shape \(0, 2\)"),
    ],
)
def test_bad_input_is_named(predicted, quality, costs, message):
    with pytest.raises(InvalidArgumentError, match=message):
        deferral_curve(predicted, quality, costs)


@pytest.mark.parametrize("fraction", [0, -1, 1.5, np.nan])
def test_bad_fraction_is_named(fraction):
    curve = deferral_curve([0.5, 0.1], [[0, 1]], [1, 2])
    with pytest.raises(InvalidArgumentError, match="fraction"):
        area(curve, [1, 2], fraction)
