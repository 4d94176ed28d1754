"""Which row counts as the end of a run, and which runs have ended."""

import math

import pytest
import yaml

from lit_credit.comparison import compare
from lit_credit.runs.history import History
from tests.comparison.test_groups import counts, optimizer, plain, run

RUN = {"model__init_args__optimizer": optimizer(0.1)}


def rows(folder, places, tag="val/accuracy", file="metrics"):
    """Rewrite a history: (step, epoch, value) a row, NaN for a row without the tag."""
    (folder / f"{file}.jsonl").unlink(missing_ok=True)
    history = History(folder / f"{file}.jsonl")
    for step, epoch, value in places:
        values = {"val/loss": 1.0} | ({} if math.isnan(value) else {tag: value})
        history.append(step, epoch, file, values)


def bare(folder, seed, places, rule="BP", **changes):
    """A run with a history of metrics alone."""
    run(folder, rule, seed, **RUN, **changes)
    for path in folder.glob("*.jsonl"):
        path.unlink()
    rows(folder, places)
    return folder


def test_of_an_epoch_with_several_rows_the_last_one_is_the_end(tmp_path):
    places = [(0, 0, 0.1), (5, 0, 0.2), (10, 1, 0.3), (15, 1, 0.4), (20, 2, 0.5), (25, 2, 0.65)]
    bare(tmp_path / "a", 1, places)
    found = compare(tmp_path)
    assert found.table[0]["accuracy"] == 0.65
    assert found.table[0]["epochs"] == 2
    (line,) = (
        line for line in found.figures["comparison"].axes[0].lines if len(line.get_xdata()) > 1
    )
    assert list(line.get_xdata()) == [0, 5, 10, 15, 20, 25]


def test_the_mean_over_layers_is_that_of_the_last_row_too(tmp_path):
    folder = run(tmp_path / "a", "BP", 1)
    (folder / "credit_alignment.jsonl").unlink()
    history = History(folder / "credit_alignment.jsonl")
    for step, epoch, value in ((0, 0, 0.1), (12, 1, 0.2), (24, 2, 0.3), (30, 2, 0.5)):
        history.append(
            step, epoch, "", {"credit/cosine/L00": value, "credit/cosine/L01": value + 0.2}
        )
    assert compare(tmp_path).table[0]["cosine"] == pytest.approx(0.6)


FULL = [(100 * i, i, 0.1 + 0.08 * i) for i in range(11)]
QUARTERS = [(25 * i, i // 4, 0.02 * i) for i in range(41)]


@pytest.mark.parametrize(
    ("trainer", "full", "until", "said"),
    [
        ({"max_epochs": -1, "max_steps": 1000}, FULL, 2, "step 100 of 1000"),
        ({"max_epochs": None, "max_steps": 1000}, FULL, 2, "step 100 of 1000"),
        ({"max_epochs": 10, "val_check_interval": 0.25}, QUARTERS, 4, "epoch 0 of 10"),
        ({"max_epochs": 10, "val_check_interval": 0.25}, QUARTERS, 6, "epoch 1 of 10"),
        ({"max_epochs": 10, "max_steps": -1}, FULL, 5, "epoch 4 of 10"),
    ],
)
def test_a_killed_run_is_in_no_mean(tmp_path, trainer, full, until, said):
    changes = {f"trainer__{key}": value for key, value in trainer.items()}
    bare(tmp_path / "a", 1, full, **changes)
    bare(tmp_path / "b", 2, full[:until], **changes)
    found = compare(tmp_path)
    (row,) = found.table
    assert (row["accuracy"], row["accuracy_n"]) == (full[-1][2], 1)
    assert row["unfinished"] == 1
    assert f"{said}, in no number of the row but n" in str(found)


@pytest.mark.parametrize("last", [900, 1000])
def test_a_run_of_so_many_steps_has_ended_where_no_row_was_due(tmp_path, last):
    places = [(step, 0, 0.5) for step in range(0, last + 1, 300 if last == 900 else 100)]
    bare(tmp_path / "a", 1, places, trainer__max_epochs=-1, trainer__max_steps=1000)
    assert compare(tmp_path).table[0]["unfinished"] == 0


def test_a_row_within_the_last_epoch_is_no_early_stop(tmp_path):
    """The test data are measured at step 45 of a run of 45 steps, which ends within an epoch."""
    folder = bare(tmp_path / "a", 1, [(0, 0, 0.1), (21, 1, 0.2), (42, 2, 0.3)])
    rows(folder, [(45, 3, 0.3)], "test/accuracy", "test")
    assert "stops early" not in str(compare(tmp_path))


def test_a_history_and_a_tag_that_stop_are_told(tmp_path):
    folder = run(tmp_path / "a", "BP", 1, trainer__max_epochs=4)
    rows(folder, [(12 * i, i, 0.1 * i if i < 2 else math.nan) for i in range(5)])
    text = str(compare(tmp_path))
    assert "the last accuracy is of step 12" in text
    assert "residual_norms.jsonl ends at epoch 2" in text


# Runs that are not the same


def test_limits_of_validation_are_told_apart(tmp_path):
    run(tmp_path / "a", "BP", 1)
    run(tmp_path / "b", "BP", 2, trainer__limit_val_batches=1.0)
    run(tmp_path / "debug", "BP", 1, trainer__limit_val_batches=1)
    expected = {"BP limit_val_batches=null": 2, "BP limit_val_batches=1": 1}
    assert counts(compare(tmp_path)) == expected


@pytest.mark.parametrize(
    ("kind", "rows_found"),
    [
        ("lit_credit.datamodules.ImageFolder", 2),
        ("mine.Pictures", 2),
        ("lit_credit.datamodules.MNIST", 1),
    ],
)
def test_a_root_is_data_unless_the_class_has_one_content(tmp_path, kind, rows_found):
    for place in ("cats", "xray"):
        for seed in (1, 2):
            folder = run(tmp_path / place / str(seed), "BP", seed + 2 * (place == "xray"))
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["data"] = {"class_path": kind, "init_args": {"root": f"data/{place}"}}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert len(compare(tmp_path).table) == rows_found


def test_runs_without_a_configuration_keep_their_rows(tmp_path):
    for name in ("resnet", "linear"):
        plain(tmp_path / name)
    run(tmp_path / "a", "BP", 1, **RUN)
    run(tmp_path / "b", "BP", 2)
    assert counts(compare(tmp_path, by="lr")) == {
        "lr=0.1": 1,
        "lr=unset": 1,
        "linear": 1,
        "resnet": 1,
    }


def test_a_mapping_is_a_value(tmp_path):
    run(tmp_path / "a", "FA", 1, model__init_args__group_options=None)
    for seed in (1, 2):
        options = {"units": {"lr": 0.01}}
        run(tmp_path / str(seed), "FA", seed, model__init_args__group_options=options)
    found = counts(compare(tmp_path, by="group_options"))
    assert found == {"group_options=null": 1, 'group_options={"units.lr":0.01}': 2}


def test_what_only_some_rules_have_is_told_and_the_arguments_of_other_classes_are_not(tmp_path):
    run(tmp_path / "bp", "BP", 1, model__init_args__group_options=None)
    options = {"units": {"lr": 0.01}}
    changes = {"model__init_args__group_options": options, "model__init_args__feedback": "normal"}
    run(tmp_path / "fa", "FA", 1, init_from="runs/before", **changes)
    notes = compare(tmp_path).notes
    assert 'also differs: group_options: null (BP); {"units.lr":0.01} (FA)' in notes
    assert "also differs: init_from: unset (BP); runs/before (FA)" in notes
    assert "feedback" not in "\n".join(notes)


def test_two_rows_of_frozen_units_are_told(tmp_path):
    run(tmp_path / "bp", "BP", 1)
    for seed, lr in ((1, 0.1), (1, 0.01)):
        folder = tmp_path / f"frozen {lr}"
        run(folder, "FrozenUnits", seed, model__init_args__optimizer=optimizer(lr))
    notes = "\n".join(compare(tmp_path).notes)
    assert "several baselines: FrozenUnits lr=0.01, FrozenUnits lr=0.1 train one net" in notes


# Pairs


def ended(folder, rule, seed, value, **changes):
    return bare(folder, seed, [(0, 0, 0.1), (12, 1, 0.2), (24, 2, value)], rule, **changes)


def test_pairs_have_the_seeds_that_make_the_most_pairs(tmp_path):
    for split in (1, 2, 3, 4):
        for rule, value in (("BP", 0.9 + split / 100), ("FA", 0.8 + split**2 / 100)):
            seed = {"data__init_args__split_seed": split, "data__init_args__seed": 0}
            ended(tmp_path / rule / str(split), rule, 42, value, **seed)
    row = compare(tmp_path, baseline="BP").table[1]
    assert (row["accuracy_diff_n"], row["accuracy_diff_test"]) == (4, "paired by seed")
    assert row["accuracy_diff"] == pytest.approx(-0.1 + (30 - 10) / 400)


def test_runs_of_one_seed_that_are_averaged_are_told(tmp_path):
    for seed in (1, 2, 3):
        ended(tmp_path / "BP" / str(seed), "BP", seed, 0.9)
        for lr in (0.1, 0.2):
            place = tmp_path / f"FA {lr}" / str(seed)
            ended(place, "FA", seed, 0.8 + lr * seed / 10, trainer__gradient_clip_val=lr)
    found = compare(tmp_path, by="rule", baseline="BP")
    assert found.table[1]["accuracy_diff_n"] == 3
    assert "averaged: runs of one seed count as one in the differences: FA" in found.notes


def test_a_run_without_a_seed_is_in_no_pair(tmp_path):
    for seed in (1, 2, 3, 9):
        without = {"seed_everything": None} if seed == 9 else {}
        ended(tmp_path / "BP" / str(seed), "BP", seed, 0.9 + seed / 100, **without)
        ended(tmp_path / "FA" / str(seed), "FA", seed, 0.8 + seed**2 / 100, **without)
    row = compare(tmp_path, baseline="BP").table[1]
    assert (row["n"], row["accuracy_diff_n"]) == (4, 3)
    assert row["accuracy_diff_test"] == "paired by seed"
    assert row["accuracy_diff"] == pytest.approx(-0.1 + (14 - 6) / 300)


def test_rows_without_a_difference_are_named(tmp_path):
    for seed in (1, 2):
        ended(tmp_path / "BP" / str(seed), "BP", seed, 0.9)
        ended(tmp_path / "DFA" / str(seed), "DFA", seed, 0.9)
        bare(tmp_path / "FA" / str(seed), seed, [(0, 0, 0.1)], "FA")
    notes = compare(tmp_path, baseline="BP").notes
    assert "no difference of FA: no finished run measured what BP did" in notes


def test_links_are_followed_and_a_run_reached_twice_is_one(tmp_path):
    run(tmp_path / "runs" / "a", "BP", 1)
    run(tmp_path / "elsewhere" / "b", "BP", 2)
    (tmp_path / "runs" / "b").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "runs" / "again").symlink_to(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "a" / "up").symlink_to(tmp_path / "runs")
    assert counts(compare(tmp_path / "runs")) == {"BP": 2}


def test_runs_by_steps_and_by_epochs_are_drawn_over_steps(tmp_path):
    bare(tmp_path / "a", 1, [(0, 0, 0.1), (12, 1, 0.2), (24, 2, 0.3)])
    bare(tmp_path / "b", 1, [(0, 0, 0.1), (6, 0, 0.2), (24, 2, 0.3)], "DFA")
    ax = compare(tmp_path).figures["comparison"].axes[0]
    assert ax.get_xlabel() == "optimizer steps"
    drawn = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) > 1]
    assert sorted(drawn) == [[0, 6, 24], [0, 12, 24]]


@pytest.mark.parametrize("metrics", [["val/accuracy"], ["val/accuracy", "val/loss"], []])
def test_the_caption_stays_in_the_figure(tmp_path, metrics):
    for seed in range(1, 4):
        for rule in ("BP", "DFA", "FA")[: 1 + seed]:
            run(tmp_path / f"{rule}{seed}", rule, seed)
    figure = compare(tmp_path, metric=metrics).figures["comparison"]
    figure.draw_without_rendering()
    (caption,) = (t for t in figure.texts if t.get_text().startswith("Line:"))
    box = caption.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_no_run_and_no_choice(tmp_path):
    with pytest.raises(ValueError, match="RUN: no run is given"):
        compare([])
    run(tmp_path / "a", "BP", 1, **RUN)
    assert counts(compare(tmp_path, metric=None, by=None)) == {"BP": 1}
    assert counts(compare(tmp_path, by=("lr", "lr"))) == {"lr=0.1": 1}


def test_a_run_that_has_just_begun_is_left_out_and_named(tmp_path):
    run(tmp_path / "a", "BP", 1)
    begun = run(tmp_path / "b", "BP", 2)
    for path in begun.glob("*.jsonl"):
        path.write_text("")
    found = compare(tmp_path)
    assert counts(found) == {"BP": 1}
    assert f"left out: {begun}: its histories have no row yet" in found.notes
    with pytest.raises(ValueError, match="no rows"):
        compare(begun)


def test_the_caption_of_a_factor_stays_in_the_figure(tmp_path):
    for lr in (0.1, 0.01, 0.001):
        changes = {"model__init_args__optimizer": optimizer(lr)}
        run(tmp_path / f"{lr}", "BP", 1, **changes)
    figure = compare(tmp_path, metric="val/accuracy").figures["over_lr"]
    figure.draw_without_rendering()
    (caption,) = (t for t in figure.texts if t.get_text().startswith("Point:"))
    box = caption.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
