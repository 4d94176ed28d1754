"""What forms a row, and what it is called."""

import os

import pytest
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lit_credit.callbacks import Diagnostic, MetricHistory, PartFreezing
from lit_credit.comparison import compare
from lit_credit.comparison.known import _our_classes, with_known_callbacks
from lit_credit.comparison.labels import find_key, flat, refining_keys, value_text
from lit_credit.runs.acting import acting_callbacks, acts_by_path
from lit_credit.runs.history import History
from lit_credit.runs.run_folder import read_configured
from tests.cli.synthetic_runs import write_run


def run(folder, rule, seed, **changes):
    """A run of two epochs, with some dotted keys of its configuration changed."""
    write_run(folder, rule, seed, epochs=2)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in changes.items():
        node = config
        *path, last = key.split("__")
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def optimizer(lr, name="AdamW", **more):
    return {"class_path": f"torch.optim.{name}", "init_args": {"lr": lr, **more}}


def swept(folder, rules=("BP", "DFA"), rates=(0.1, 0.01), seeds=(1, 2)):
    for rule in rules:
        for lr in rates:
            for seed in seeds:
                place = folder / f"{rule}-{lr}-{seed}"
                run(place, rule, seed, model__init_args__optimizer=optimizer(lr))
    return folder


def plain(folder, values=None, rows=3):
    """A run without a configuration, as a script of one's own leaves it."""
    folder.mkdir(parents=True)
    history = History(folder / "metrics.jsonl")
    for epoch in range(rows):
        history.append(5 * epoch, epoch, "metrics", values or {"val/accuracy": 0.1 * epoch})
    return folder


def labels(found):
    return [row["rule"] for row in found.table]


def counts(found):
    return {row["rule"]: row["n"] for row in found.table}


def test_a_label_says_what_differs(tmp_path):
    found = compare(swept(tmp_path))
    assert labels(found) == ["BP lr=0.01", "BP lr=0.1", "DFA lr=0.01", "DFA lr=0.1"]
    assert set(counts(found).values()) == {2}


def test_a_rule_with_one_setting_has_no_key(tmp_path):
    swept(tmp_path, ["DFA"])
    run(tmp_path / "bp", "BP", 1, model__init_args__optimizer=optimizer(0.5))
    found = compare(tmp_path)
    assert labels(found) == ["BP", "DFA lr=0.01", "DFA lr=0.1"]


def test_what_differs_between_rules_is_said(tmp_path):
    run(tmp_path / "bp", "BP", 1, model__init_args__optimizer=optimizer(0.5))
    run(tmp_path / "dfa", "DFA", 1, model__init_args__optimizer=optimizer(0.1))
    assert "also differs: lr: 0.5 (BP); 0.1 (DFA)" in compare(tmp_path).notes


def test_a_label_repeats_nothing(tmp_path):
    small, large = {"batch_size": 8, "seed": 1}, {"batch_size": 64, "seed": 1}
    run(tmp_path / "a", "DFA", 1, model__init_args__optimizer=optimizer(0.1), data__init_args=small)
    run(tmp_path / "b", "DFA", 1, model__init_args__optimizer=optimizer(0.2), data__init_args=large)
    assert labels(compare(tmp_path)) == ["DFA lr=0.1", "DFA lr=0.2"]


def test_classes_come_first(tmp_path):
    for name, momentum in (("SGD", 0.9), ("SGD", 0.0), ("AdamW", 0.0)):
        place = tmp_path / f"{name}{momentum}"
        made = optimizer(0.1, name, momentum=momentum)
        run(place, "DFA", 1, model__init_args__optimizer=made)
    assert labels(compare(tmp_path)) == [
        "DFA optimizer=AdamW momentum=0",
        "DFA optimizer=SGD momentum=0",
        "DFA optimizer=SGD momentum=0.9",
    ]


def test_grouping_by_keys(tmp_path):
    swept(tmp_path)
    assert counts(compare(tmp_path, by="lr")) == {"lr=0.01": 4, "lr=0.1": 4}
    assert counts(compare(tmp_path, by="rule")) == {"BP": 4, "DFA": 4}
    by_both = counts(compare(tmp_path, by=["model.init_args.optimizer.init_args.lr", "rule"]))
    assert by_both == {"lr=0.01 BP": 2, "lr=0.01 DFA": 2, "lr=0.1 BP": 2, "lr=0.1 DFA": 2}
    assert counts(compare(tmp_path, by="seed_everything")) == {
        "seed_everything=1": 4,
        "seed_everything=2": 4,
    }


def test_keys_that_cannot_be_found():
    configs = [flat({"a": {"lr": 1}, "b": {"lr": 2}, "c": 1}), flat({"a": {"lr": 1}, "c": 2})]
    assert find_key("c", configs) == "c"
    assert find_key("lr", configs) == "b.lr"  # the one that differs
    with pytest.raises(ValueError, match=r"--by: no run has a key 'nothing'.*b\.lr, c"):
        find_key("nothing", configs)
    with pytest.raises(ValueError, match=r"'lr' may be a\.lr or b\.lr"):
        find_key("lr", [flat({"a": {"lr": 1}, "b": {"lr": 2}}), flat({"a": {"lr": 3}})])


def test_wrong_keys_and_labels_are_refused_before_anything_is_read(tmp_path, monkeypatch):
    swept(tmp_path)
    monkeypatch.setattr("lit_credit.comparison.reading.read_material", None)
    with pytest.raises(ValueError, match="--by: no run has a key 'width'"):
        compare(tmp_path, by="width")
    with pytest.raises(ValueError, match=r"--baseline: 'FA': no group has this label\. Give"):
        compare(tmp_path, baseline="FA")
    with pytest.raises(ValueError, match="--baseline: 'BP': 2 groups are of this rule"):
        compare(tmp_path, baseline="BP")


def test_values_in_labels():
    texts = [value_text(x) for x in (1e-5, True, None, "torch.optim.SGD", "a" * 99, [1, [2]], 3)]
    assert texts == ["1e-05", "true", "null", "SGD", f"{'a' * 22}..", "[1,[2]]", "3"]
    assert refining_keys([{"a": 1, "b": [1]}, {"a": 1, "b": [2]}]) == ["b"]


def test_equal_labels_are_told_apart_by_their_folders(tmp_path):
    plain(tmp_path / "x" / "net")
    plain(tmp_path / "y" / "net")
    run(tmp_path / "net", "BP", 1)
    assert labels(compare(tmp_path)) == ["BP", "net (x)", "net (y)"]


# Callbacks and options that act on training


class Noise(Callback):
    """One's own, of which nothing is known."""


class Watcher(Callback):
    acts_on_training = False


class OwnHistory(MetricHistory):
    pass


class OwnSaving(ModelCheckpoint):
    pass


class OwnFreezing(PartFreezing):
    pass


class OwnStopping(EarlyStopping):
    pass


class OwnDiagnostic(Diagnostic):
    pass


def callback(path, **arguments):
    return {"class_path": path, **({"init_args": arguments} if arguments else {})}


FREEZING = callback("lit_credit.callbacks.PartFreezing", frozen=["layers"])
STOPPING = callback("lightning.pytorch.callbacks.EarlyStopping", monitor="val/loss")
SAVING = callback("lightning.pytorch.callbacks.ModelCheckpoint", dirpath="x")
NORMS = callback("lit_credit.callbacks.ResidualNorms", every_n_epochs=3)


def with_callbacks(folder, seed, *nodes, rule="BP"):
    return run(folder, rule, seed, trainer__callbacks=list(nodes))


def test_a_callback_that_acts_on_training_forms_a_row(tmp_path):
    for seed in (1, 2):
        with_callbacks(tmp_path / f"plain{seed}", seed, SAVING)
    for seed in (11, 12, 1):
        with_callbacks(tmp_path / f"frozen{seed}", seed, FREEZING)
    found = compare(tmp_path, baseline="BP")
    assert counts(found) == {"BP": 2, "BP PartFreezing": 3}
    assert not any("twins" in note for note in found.notes)


def test_arguments_and_a_second_callback_are_told(tmp_path):
    other = callback("lit_credit.callbacks.PartFreezing", frozen=["head"])
    with_callbacks(tmp_path / "a", 1, FREEZING)
    with_callbacks(tmp_path / "b", 1, other)
    assert labels(compare(tmp_path)) == ['BP frozen=["head"]', 'BP frozen=["layers"]']
    with_callbacks(tmp_path / "c", 1, FREEZING, STOPPING)
    with_callbacks(tmp_path / "d", 1, STOPPING, FREEZING)  # the order does not count
    found = labels(compare(tmp_path))
    assert found[2] == 'BP EarlyStopping frozen=["layers"]'
    assert len(found) == 3
    assert list(acting_callbacks([FREEZING, STOPPING, other])) == [
        *("EarlyStopping", "PartFreezing", "PartFreezing_2")
    ]


def test_callbacks_that_watch_form_no_row(tmp_path):
    with_callbacks(tmp_path / "a", 1)
    with_callbacks(tmp_path / "b", 2, SAVING, NORMS)
    watching = [callback(f"{__name__}.{n}") for n in ("Watcher", "OwnHistory", "OwnSaving")]
    with_callbacks(tmp_path / "c", 3, *watching, callback(f"{__name__}.OwnDiagnostic"))
    with_callbacks(tmp_path / "d", 4, callback("lit_credit.callbacks.FiniteGuard", policy="warn"))
    bare = read_configured(tmp_path / "a").experiment
    assert "callbacks" not in bare
    assert {
        with_known_callbacks(read_configured(tmp_path / name)).experiment for name in "bcd"
    } == {bare}
    assert counts(compare(tmp_path, baseline="BP")) == {"BP": 4}


@pytest.mark.parametrize("name", ["Noise", "OwnFreezing"])
def test_a_callback_of_ones_own_acts(tmp_path, name):
    with_callbacks(tmp_path / "a", 1)
    with_callbacks(tmp_path / "b", 1, callback(f"{__name__}.{name}"))
    with_callbacks(tmp_path / "c", 1, callback("nowhere.Unknown"))
    assert set(labels(compare(tmp_path))) == {"BP", f"BP {name}", "BP Unknown"}


@pytest.mark.parametrize(("name", "unfinished"), [("OwnStopping", 0), ("Noise", 1)])
def test_a_subclass_of_early_stopping_ends_a_run(tmp_path, name, unfinished):
    folder = with_callbacks(tmp_path / "a", 1, callback(f"{__name__}.{name}"))
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("max_epochs: 2", "max_epochs: 9"))
    assert compare(tmp_path).table[0]["unfinished"] == unfinished


def test_the_guard_acts_where_it_skips(tmp_path):
    for policy in ("skip", "raise"):
        node = callback("lit_credit.callbacks.FiniteGuard", policy=policy)
        with_callbacks(tmp_path / policy, 1, node)
    assert labels(compare(tmp_path)) == ["BP", "BP FiniteGuard"]


def test_a_callback_that_differs_between_rules_is_said(tmp_path):
    with_callbacks(tmp_path / "a", 1)
    with_callbacks(tmp_path / "b", 1, STOPPING, rule="DFA")
    found = compare(tmp_path)
    assert labels(found) == ["BP", "DFA"]
    assert "also differs: EarlyStopping: without (BP); with (DFA)" in found.notes


def test_options_of_the_trainer_that_act_on_training(tmp_path):
    run(tmp_path / "a", "BP", 1)
    run(tmp_path / "b", "BP", 2, trainer__overfit_batches=0.0, trainer__accumulate_grad_batches=1)
    assert counts(compare(tmp_path)) == {"BP": 2}
    run(tmp_path / "c", "BP", 1, trainer__accumulate_grad_batches=4)
    assert counts(compare(tmp_path)) == {
        "BP accumulate_grad_batches=1": 2,
        "BP accumulate_grad_batches=4": 1,
    }
    run(tmp_path / "d", "DFA", 1, trainer__overfit_batches=2)
    assert "also differs: overfit_batches: 0 (BP accumulate_grad_batches=1" in str(
        compare(tmp_path)
    )


def test_of_our_callbacks_those_that_change_parameters_act():
    """The import path tells; so a new callback has to be put in its place here."""
    ours = [kind for kind in _our_classes() if issubclass(kind, Callback)]
    acting = {k.__name__ for k in ours if acts_by_path(f"{k.__module__}.{k.__name__}")}
    assert acting == {"FiniteGuard", "PartFreezing", "StagedTraining"}
    watching = {k.__name__ for k in ours if not issubclass(k, Diagnostic)} - acting
    assert watching == {"MemberCheckpoints", "MetricHistory", "SpacedCheckpoints", "TextSamples"}


# Runs without a configuration


def test_folders_of_seeds_form_a_group(tmp_path):
    for seed in (1, 2, 3):
        plain(tmp_path / "mine" / f"seed_{seed}" / "lightning_logs" / "version_0")
        plain(tmp_path / "other" / f"seed-{seed}")
    plain(tmp_path / "third" / "version_0")
    plain(tmp_path / "third" / "version_1")
    found = compare(tmp_path, baseline="other")
    assert counts(found) == {"mine": 3, "other": 3, "third/version_0": 1, "third/version_1": 1}
    assert found.table[0]["seeds"] == "1 2 3"
    assert found.table[0]["accuracy_diff_test"] == "paired by seed"


def test_what_lies_in_a_run_is_not_a_run(tmp_path):
    run(tmp_path / "a", "BP", 1)
    plain(tmp_path / "a" / "test")
    plain(tmp_path / "b")
    plain(tmp_path / "b" / "validate")
    assert labels(compare(tmp_path)) == ["BP", "b"]
    assert labels(compare(tmp_path / "a" / "test")) == ["test"]


def test_a_start_that_failed_is_left_out_and_named(tmp_path):
    run(tmp_path / "a", "BP", 1)
    left = plain(tmp_path / "failed", rows=1)
    found = compare(tmp_path)
    assert labels(found) == ["BP"]
    assert f"left out: {left}: no config.yaml, and no row after step 0" in found.notes
    assert labels(compare([tmp_path / "a", left])) == ["BP", "failed"]


# Twins


def aged(folder, seconds):
    for path in folder.iterdir():
        os.utime(path, (seconds, seconds))


def test_of_twins_the_newest_finished_is_shown(tmp_path):
    runs = {name: run(tmp_path / name, "BP", 1) for name in "abcd"}
    for name, age in zip("abcd", (100, 300, 200, 400), strict=True):
        aged(runs[name], age)
    lines = (runs["d"] / "metrics.jsonl").read_text().splitlines(keepends=True)
    for path in runs["d"].glob("*.jsonl"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert len(lines) == 3
    aged(runs["d"], 400)  # the newest, but not finished
    found = compare(tmp_path)
    assert counts(found) == {"BP": 1}
    (note,) = found.notes
    assert note.startswith(f"twins: BP, seed 1: {runs['b']} is shown, the newest finished run")
    assert all(str(runs[name]) in note for name in "acd")
    assert found.table[0]["epochs"] == 2


def test_of_unfinished_twins_the_newest_is_shown(tmp_path):
    for name, age in (("a", 300), ("b", 200)):
        write_run(tmp_path / name, "BP", 1, epochs=9, until=3)
        aged(tmp_path / name, age)
    assert f"{tmp_path / 'a'} is shown, the newest unfinished" in str(compare(tmp_path))


def test_runs_that_begin_with_other_weights_are_not_one_row(tmp_path):
    for seed in (1, 2):
        run(tmp_path / "plain" / f"seed_{seed}", "BP", seed)
        weights = f"pretrained/seed_{seed}/checkpoints/last.ckpt"
        run(tmp_path / "tuned" / f"seed_{seed}", "BP", seed, init_from=weights)
    assert list(counts(compare(tmp_path)).values()) == [2, 2]
    assert all("init_from" in label for label in labels(compare(tmp_path))[1:])
    assert not any("twins" in note for note in compare(tmp_path).notes)


def test_the_configuration_of_another_lightning_cli_is_not_ours(tmp_path):
    """Its program names the classes, so `model` holds arguments."""
    for name in ("wide", "deep"):
        for seed in (1, 2, 3):
            folder = plain(tmp_path / name / f"seed_{seed}")
            config = {"seed_everything": seed, "model": {"lr": 0.1}, "trainer": {"max_epochs": 2}}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run(tmp_path / "ours", "BP", 4)
    assert counts(compare(tmp_path)) == {"BP": 1, "deep": 3, "wide": 3}
    alone = plain(tmp_path / "alone")
    (alone / "config.yaml").write_text(yaml.safe_dump(config))
    assert compare(alone).table[0]["seeds"] == "3"


@pytest.mark.parametrize("config", ["model: resnet\nlr: 0.1\n", "lr: 0.1\n", "model: {width: 8}\n"])
def test_the_configuration_of_another_program_is_not_ours(config, tmp_path):
    for seed in (1, 2):
        folder = plain(tmp_path / "theirs" / f"seed_{seed}")
        (folder / "config.yaml").write_text(config)
    run(tmp_path / "ours", "BP", 4)
    assert counts(compare(tmp_path)) == {"BP": 1, "theirs": 2}


def test_by_says_what_a_row_pools(tmp_path):
    notes = compare(swept(tmp_path), by="rule").notes
    assert "pooled: lr has several values (0.01, 0.1) in BP, DFA" in notes
    assert "pooled: rule has several values (BP, DFA) in lr=0.01, lr=0.1" in (
        compare(tmp_path, by="lr").notes
    )
    assert not [n for n in compare(tmp_path, by=["rule", "lr"]).notes if n.startswith("pooled")]


def test_by_says_what_a_row_pools_in_part(tmp_path):
    swept(tmp_path, ["DFA"])
    run(tmp_path / "bp", "BP", 1, model__init_args__optimizer=optimizer(0.5))
    found = [n for n in compare(tmp_path, by="rule").notes if n.startswith("pooled")]
    assert found == ["pooled: lr has several values (0.01, 0.1) in DFA"]


def test_a_metric_that_is_not_finite_in_any_run_is_told(tmp_path):
    for seed in (1, 2):
        plain(tmp_path / str(seed), {"val/accuracy": 0.1, "val/loss": float("nan")})
    for label in ("1", "2"):
        note = f"undefined: {label}: loss is NaN or infinite at the end of seed None, and so is"
        assert any(n.startswith(note) for n in compare(tmp_path).notes), compare(tmp_path).notes
