import math

from lit_credit.runs.series import layer_mean, layer_tags, series


def row(step, epoch, **values):
    return {"step": step, "epoch": epoch, "name": "x", "values": values}


ROWS = [
    row(0, 0, **{"n/L10": 1.0, "n/L9": 2.0, "n_sd/L00": 9.0}),
    row(5, 1, **{"n/L10": 3.0, "n/L9": math.nan}),
    row(7, 1, **{"n/L10": 4.0, "n/L9": 5.0}),
]


def test_layers_are_ordered_by_number():
    assert layer_tags(ROWS, "n/") == ["n/L9", "n/L10"]
    assert layer_tags([row(0, 0, **{"a/w": 1.0, "a/b": 1.0})], "a/") == ["a/w", "a/b"]
    assert layer_tags([], "n/") == []


def test_the_first_row_of_an_epoch_counts():
    assert series(ROWS, "n/L10") == {0: 1.0, 1: 3.0}
    assert series(ROWS, "n/L10", by="step") == {0: 1.0, 5: 3.0, 7: 4.0}
    assert series(ROWS, "absent") == {}


def test_mean_over_layers_keeps_nan():
    mean = layer_mean(ROWS, "n/")
    assert mean[0] == 1.5
    assert math.isnan(mean[1])
    assert layer_mean(ROWS, "absent/") == {}
