"""Tests of several models and seeds, power, calibration: against SciPy, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medkit.evaluation.statistics import (
    bootstrap_interval,
    calibration,
    design_effect,
    detectable,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    paired_permutation,
    power_of,
    questions_needed,
    repeats,
    selective_accuracy,
    sums_interval,
)


def test_holm_by_hand():
    # sorted .005 .01 .03 .04 times 4 3 2 1, never falling: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_family_at_five_percent():
    p_values = np.random.default_rng(0).random((4000, 6))
    false_calls = np.mean([min(holm(row)) <= 0.05 for row in p_values])
    assert 0.04 <= false_calls <= 0.06


def test_permutation_agrees_with_scipy():
    rng = np.random.default_rng(3)
    before, after = rng.random(25), rng.random(25) + 0.1
    expected = stats.permutation_test(
        (after - before,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    )
    assert paired_permutation(before, after, resamples=20_000) == pytest.approx(expected.pvalue, abs=0.015)


def _equal_models(rng, groups, each=4):
    """Two equally good models; images differ in difficulty and in which model they suit."""
    hard = rng.normal(0.8, 1.0, groups)
    suits = rng.normal(0.0, 0.8, groups)
    return [
        (rng.random((groups, each)) < 1 / (1 + np.exp(-(hard + side * suits)))[:, None]).ravel().astype(float)
        for side in (1, -1)
    ]


def test_paired_test_finds_nothing_where_nothing_is():
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(60), 4).tolist()
    clustered = naive = 0
    for simulation in range(2000):
        before, after = _equal_models(rng, 60)
        p = paired_permutation(before, after, groups, resamples=999, seed=simulation)
        clustered += p <= 0.05
        naive += mcnemar_exact(int((after > before).sum()), int((after < before).sum())) <= 0.05
    assert 0.04 <= clustered / 2000 <= 0.06
    assert naive / 2000 > 0.07  # McNemar takes questions about one image as independent


def test_paired_interval_covers_the_true_difference():
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(60), 4).tolist()
    inside = 0
    for simulation in range(2000):
        before, after = _equal_models(rng, 60)
        found = paired_bootstrap(before, after, groups, resamples=1000, seed=simulation)
        inside += found.low <= 0 <= found.high
    assert 0.93 <= inside / 2000 <= 0.97


def test_repeats_cover_seeds_and_questions():
    rng = np.random.default_rng(9)
    groups = np.repeat(np.arange(40), 3).tolist()
    inside = 0
    for _ in range(2000):
        chance = np.repeat(rng.beta(7, 3, 40), 3)[None] + rng.normal(0, 0.04, (4, 1))  # mean 0.7
        found = repeats(rng.binomial(1, np.clip(chance, 0, 1)), groups).mean
        inside += found.low <= 0.7 <= found.high
    assert 0.93 <= inside / 2000 <= 0.97


def test_repeats_by_hand():
    found = repeats(np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 1.0]]))
    assert (found.mean.value, found.seeds) == (0.625, 2)
    assert found.deviation == pytest.approx(0.25 / 2**0.5)
    assert repeats(np.ones((3, 40))).mean.low == pytest.approx(0.912, abs=0.001)
    with pytest.raises(ValueError, match="two seeds"):
        repeats(np.ones((1, 4)))


def test_questions_needed_by_hand():
    # (1.959964 * sqrt(.2) + .841621 * sqrt(.2 - .0009))**2 / .0009
    assert questions_needed(0.03, 0.2) == 1742
    assert questions_needed(-0.03, 0.2) == 1742
    assert questions_needed(0.03, 0.2, design=2) == 3484
    with pytest.raises(ValueError, match="discordant"):
        questions_needed(0.3, 0.2)


def test_power_agrees_with_simulation_and_with_its_inverses():
    assert power_of(1742, 0.03, 0.2) == pytest.approx(0.8, abs=0.001)
    assert detectable(1742, 0.2) == pytest.approx(0.03, abs=1e-4)
    assert detectable(4, 0.2) == pytest.approx(0.2)
    rng = np.random.default_rng(2)
    counts = rng.multinomial(questions_needed(0.1, 0.3), [0.2, 0.1, 0.7], 2000)
    seen = [(wins - losses) ** 2 / (wins + losses) >= stats.chi2.ppf(0.95, 1) for wins, losses, _ in counts]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.03)


def test_design_effect_of_copies_is_their_number():
    values = np.random.default_rng(4).binomial(1, 0.5, 500).astype(float)
    assert design_effect(values) == 1.0
    copies = design_effect(np.repeat(values, 4), np.repeat(np.arange(500), 4).tolist())
    assert copies == pytest.approx(4, rel=0.01)


def test_calibration_by_hand():
    found = calibration([0.9, 0.9, 0.9, 0.9, 0.3, 0.3], [1, 1, 1, 0, 0, 0])
    assert found["ece"] == pytest.approx((4 * 0.15 + 2 * 0.3) / 6)
    assert found["mce"] == pytest.approx(0.3)
    assert found["brier"] == pytest.approx((3 * 0.01 + 0.81 + 2 * 0.09) / 6)
    assert [(one["low"], one["high"], one["count"], one["accuracy"]) for one in found["bins"]] == [
        (0.2, 0.3, 2, 0.0),
        (0.8, 0.9, 4, 0.75),
    ]
    low, high = stats.binomtest(3, 4).proportion_ci(0.95, "wilson")
    assert (found["bins"][1]["accuracy_low"], found["bins"][1]["accuracy_high"]) == pytest.approx((low, high))


def test_a_model_that_means_what_it_says_is_calibrated():
    rng = np.random.default_rng(5)
    sure = rng.random(50_000)
    assert calibration(sure, rng.random(50_000) < sure)["ece"] < 0.01
    assert calibration(sure, rng.random(50_000) < sure**2)["ece"] > 0.1
    with pytest.raises(ValueError, match=r"0\.\.1"):
        calibration([1.2], [1])
    with pytest.raises(ValueError, match="shapes"):
        calibration([0.2], [1, 0])


def test_selective_accuracy_by_hand():
    found = selective_accuracy([0.2, 0.9, 0.6, 0.8], [0, 1, 0, 1], [0.25, 0.5, 1])
    assert [(one["count"], one["accuracy"], one["threshold"]) for one in found["at"]] == [
        (1, 1.0, 0.9),
        (2, 1.0, 0.8),
        (4, 0.5, 0.2),
    ]
    assert found["area"] == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)


def test_equal_confidences_say_nothing_about_order():
    for correct in ([1, 0, 0, 1], [0, 1, 1, 0]):
        assert selective_accuracy([0.5] * 4, correct, [0.25])["at"][0]["accuracy"] == 0.5
    with pytest.raises(ValueError, match="coverage"):
        selective_accuracy([0.5], [1], [0.0])


def test_the_interval_of_a_mean_written_as_sums_is_that_of_the_mean():
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(40), rng.integers(1, 6, 40)).tolist()
    values = rng.random(len(groups)) + 0.3 * np.asarray(groups) / 40
    rows = np.stack([values, np.ones(len(values))], axis=1)
    found = sums_interval(rows, lambda sums: sums[:, 0] / sums[:, 1], groups, seed=1)
    wanted = bootstrap_interval(values, groups, seed=2)
    assert found is not None
    assert found.value == pytest.approx(wanted.value, abs=1e-12)
    assert found[1:] == pytest.approx(wanted[1:], abs=0.01)
    assert found == sums_interval(rows, lambda sums: sums[:, 0] / sums[:, 1], groups, seed=1)


def test_sums_of_one_group_or_without_spread_have_no_interval():
    rows = np.ones((4, 2))
    assert sums_interval(rows, lambda sums: sums[:, 0], ["a"] * 4) is None
    assert sums_interval(rows, lambda sums: sums[:, 0] / sums[:, 1], list("abcd")) is None
    with pytest.raises(ValueError, match="a group for each value, got 3 for 4"):
        sums_interval(rows, lambda sums: sums[:, 0], list("abc"))
    with pytest.raises(ValueError, match="at least one value"):
        sums_interval(np.ones((0, 2)), lambda sums: sums[:, 0], [])
