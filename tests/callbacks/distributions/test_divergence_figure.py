"""Divergence of several runs over training."""

import pytest

from lit_credit.callbacks.distributions import divergence_figure
from tests.support import drawn


def texts(ax):
    return [text.get_text() for text in ax.texts]


def rows(kl, bound=True):
    found = []
    for step, value in enumerate(kl):
        values = {"kl": value, "kl_uniform": 2.0, "accuracy": 0.5, "accuracy_max": 0.9}
        values |= {"memorized": 10 * step, "contexts": 100}
        values |= {"memorized_bound": 60} if bound else {}
        tagged = {f"divergence/{tag}": v for tag, v in values.items()}
        found.append({"step": 10 * step, "epoch": step, "name": "", "values": tagged})
    return found


def test_divergence_of_several_runs_with_its_levels():
    runs = {"BP": [rows([1.0, 0.01]), rows([1.0, 0.0001])], "FA": [rows([1.0, 0.1], bound=False)]}
    figure = drawn(divergence_figure(runs, title="Learning"))
    divergence, accuracy, memorized = figure.axes
    assert [float(y) for y in divergence.lines[0].get_ydata()] == pytest.approx([1.0, 0.001])
    assert divergence.get_yscale() == "log"
    assert {"BP 0.001", "FA 0.1", "uniform guess 2"} == set(texts(divergence))
    assert "best there is 0.9" in texts(accuracy)
    assert {"all 100", "lower bound 60"} <= set(texts(memorized))


def test_large_counts_are_written_out():
    many = rows([1.0, 0.5])
    for row in many:
        row["values"] |= {"divergence/memorized": 1234.0, "divergence/contexts": 1600.0}
    shown = texts(drawn(divergence_figure({"BP": [many]})).axes[2])
    assert {"1,234", "all 1,600"} <= set(shown)


def test_a_level_that_runs_do_not_share_is_not_drawn():
    other = rows([1.0, 0.5])
    for row in other:
        row["values"]["divergence/kl_uniform"] = 3.0
    figure = drawn(divergence_figure({"a": [rows([1.0, 0.1])], "b": [other]}))
    assert not any("log N" in text for text in texts(figure.axes[0]))
    assert [texts(ax) for ax in drawn(divergence_figure({})).axes] == [["n/a"]] * 3
