"""The search space: one for all rules, quasi-random, the same in every run."""

import math

import pytest

from lit_credit.cli.benchmark.search import (
    CREDIT_SCALES,
    LEARNING_RATES,
    WEIGHT_DECAYS,
    draw_trials,
)
from lit_credit.cli.benchmark.suites import Entry, read_entries

ENTRIES = read_entries()


def test_all_rules_get_the_same_learning_rates_and_decays():
    points = {
        tuple((t.study, t.number, t.lr, t.weight_decay) for t in draw_trials(entry, 3, 5))
        for entry in ENTRIES.values()
    }
    assert len(points) == 1
    (rates,) = ([point[2] for point in found] for found in points)
    assert len(set(rates)) == 15
    assert all(LEARNING_RATES[0] <= rate <= LEARNING_RATES[1] for rate in rates)


def test_a_longer_search_begins_with_the_shorter_one():
    entry = ENTRIES["DFA"]
    short, long = draw_trials(entry, 2, 3), draw_trials(entry, 3, 8)
    assert [t for t in long if t.study <= 2 and t.number <= 3] == short


def test_many_trials_cover_the_space_evenly():
    """Of 256 points, a Sobol sequence puts the same number into each decade of the rate."""
    trials = draw_trials(ENTRIES["PEPITA"], 1, 256)
    decades = [math.floor(math.log10(t.lr)) for t in trials]
    assert all(decades.count(decade) == pytest.approx(64, abs=2) for decade in (-5, -4, -3, -2))
    for values, chosen in (
        (WEIGHT_DECAYS, [t.weight_decay for t in trials]),
        (CREDIT_SCALES, [t.credit_scale for t in trials]),
        ((0.02, 0.05, 0.2), [t.knob for t in trials]),
    ):
        assert all(chosen.count(value) == pytest.approx(256 / 3, abs=2) for value in values)


def test_overrides_keep_the_groups_of_the_rule():
    entry = Entry(
        "mine",
        "my_rules.Mine",
        {"group_options": {"feedback": {"weight_decay": 0.0}}, "rank": 4},
        knob="normalize_credit",
        values=[True],
    )
    trial = next(t for t in draw_trials(entry, 1, 5) if t.credit_scale == 10)
    found = trial.overrides(entry)
    assert found["model.class_path"] == "my_rules.Mine"
    assert found["model.init_args.rank"] == 4
    assert found["model.init_args.normalize_credit"] is True
    groups = found["model.init_args.group_options"]
    assert groups["feedback"] == {"weight_decay": 0.0}
    assert groups["units"]["lr"] == pytest.approx(10 * trial.lr, rel=1e-3)


def test_a_knob_inside_the_groups_replaces_that_group():
    entry = ENTRIES["FDFA"]
    trial = draw_trials(entry, 1, 1)[0]
    groups = trial.overrides(entry)["model.init_args.group_options"]
    assert groups["feedback"] == trial.knob != {}


def test_frozen_units_have_no_credit_scale():
    assert {t.credit_scale for t in draw_trials(ENTRIES["FrozenUnits"], 3, 5)} == {None}
