"""What a run that was killed, and resumed, has in the end is what an uninterrupted one has."""

import shutil

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lit_credit.callbacks import (
    AttentionMaps,
    CircuitMatching,
    EmbeddingGeometry,
    FiniteGuard,
    HeadAttribution,
    MetricHistory,
    ResidualNorms,
    ScaleStability,
    SoftmaxJacobian,
    SymbolAttention,
)
from lit_credit.rules import BP, DFA
from lit_credit.runs.history import read_history
from tests import support
from tests.support import Foreign, Validated, files, fit, same_state

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


class Killed(Exception):
    pass


class Kill(Callback):
    """Ends the process, as far as others can tell, in a hook at a step."""

    def __init__(self, hook="on_train_end", step=0):
        self.step = step
        if hook:
            setattr(self, hook, self.kill)

    def kill(self, trainer, *_):
        if trainer.global_step >= self.step:
            raise Killed


def saving(folder, **kwargs):
    every = kwargs or {"save_on_train_epoch_end": True}
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **every)


def twice(folder, make, *callbacks, saved_at=12, kill=None, saves=None, **options):
    """A run that is killed, and the same run resumed; returns the module and the second Trainer."""
    given = {"enable_checkpointing": True, **options}

    def run(*first, **kwargs):
        module, own = make(), [make_one() for make_one in callbacks]
        parts = [*first, *own, saving(folder, **(saves or {}))]
        return module, fit(folder, module, *parts, **kwargs, **given), own

    with pytest.raises(Killed):
        run(Kill() if kill is None else kill)
    path = folder / f"step={saved_at}.ckpt"
    shutil.copy(path, folder / "kept.ckpt")  # a resumed run saves at this step again
    return run(ckpt_path=path)


# Figures, tables and readings

KEEP = [
    AttentionMaps,
    CircuitMatching,
    EmbeddingGeometry,
    HeadAttribution,
    ResidualNorms,
    ScaleStability,
    SoftmaxJacobian,
    SymbolAttention,
]


LENGTHS = [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 12}]
WITHOUT_SAMPLES = (CircuitMatching, EmbeddingGeometry, SymbolAttention)


@pytest.mark.few(5)
@pytest.mark.parametrize("length", LENGTHS, ids=str)
@pytest.mark.parametrize("kind", KEEP)
def test_figures_and_tables_come_after_a_kill_behind_the_last_checkpoint(kind, length, tmp_path):
    def made():
        return kind() if kind in WITHOUT_SAMPLES else kind(n_samples=7)

    def net():
        return support.rule(DFA, support.SymbolNet)

    fit(tmp_path / "whole", net(), made(), logger=False, **length)
    _, _, (own,) = twice(tmp_path / "cut", net, made, logger=False, **length)
    names = [name for name in files(tmp_path / "cut") if not name.endswith(".ckpt")]
    assert names == files(tmp_path / "whole")
    assert f"figures/{kind.name}.png" in names
    for name in names:
        if not name.endswith(".png"):
            assert (tmp_path / "cut" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()
    assert [row["step"] for row in own.history.rows] == [0, 4, 8, 12]


def test_the_last_row_comes_too_where_no_hook_of_training_is_called(tmp_path):
    """Its steps are taken, so Lightning returns before `on_train_start`."""
    options = {"max_epochs": -1, "max_steps": 10, "logger": False}
    whole = ResidualNorms(n_samples=7)
    fit(tmp_path / "whole", support.rule(BP), whole, **options)
    _, _, (own,) = twice(
        tmp_path / "cut",
        lambda: support.rule(BP),
        lambda: ResidualNorms(n_samples=7),
        saved_at=10,
        saves={"every_n_train_steps": 5},
        **options,
    )
    assert own.history.rows == whole.history.rows
    assert (tmp_path / "cut" / "figures" / "residual_norms.png").exists()


# Points of TensorBoard


def shown(folder, values):
    """All that TensorBoard shows: tag, step and number, as often as it does.

    Lightning writes the epoch beside whatever is logged, often twice at a step, and ``hp_metric``
    at every start of a logger of its own.
    """
    events = support.events(folder)
    found = []
    for kind, read in (
        ("scalars", events.Scalars),
        ("images", events.Images),
        ("tensors", events.Tensors),
    ):
        for tag in set(events.Tags()[kind]) - {"hp_metric"}:
            steps = [event.step for event in read(tag)]
            assert steps == sorted(steps), tag
            assert tag == "epoch" or len(steps) == len(set(steps)), (tag, steps)
            numbers = [str(getattr(event, "value", "")) if values else "" for event in read(tag)]
            found += [(tag, step, number) for step, number in zip(steps, numbers, strict=True)]
    return sorted(found)


SAVES = {"in mid-epoch": (6, {"every_n_train_steps": 3}), "at an end": (8, {})}


@pytest.mark.parametrize("ours", ["rule", "ours", "guard"])
@pytest.mark.parametrize("when", SAVES)
def test_tensorboard_shows_each_point_of_a_resumed_run_once(ours, when, tmp_path):
    saved_at, saves = SAVES[when]

    def made():
        return ResidualNorms(n_samples=7, units=["model.embed", "model.blocks.*"], every_n_steps=3)

    def net():
        return support.rule(DFA) if ours == "rule" else Validated()

    callbacks = {
        "rule": (),
        "ours": (made, MetricHistory),
        "guard": (FiniteGuard,),
    }[ours]
    options = {"log_every_n_steps": 1, "max_epochs": 4}
    fit(tmp_path / "whole", net(), *(one() for one in callbacks), **options)
    kill = Kill("on_train_batch_end", 11)
    _, trainer, _ = twice(
        tmp_path / "cut", net, *callbacks, saved_at=saved_at, kill=kill, saves=saves, **options
    )
    trainer.logger.experiment.flush()
    # Of a foreign module Lightning restores no random numbers, so that its dropout differs.
    whole, cut = (shown(tmp_path / name, ours == "rule") for name in ("whole", "cut"))
    assert cut == whole
    assert len(whole) > 30


def test_a_resume_from_an_earlier_checkpoint_and_another_after_it(tmp_path):
    """The points of the first resume, too, give way to those of the second."""
    options = {"log_every_n_steps": 1, "max_epochs": 4, "enable_checkpointing": True}

    def run(folder, *parts, **kwargs):
        own = [ResidualNorms(n_samples=7, every_n_steps=3), MetricHistory()]
        checkpoint = saving(folder, every_n_train_steps=2)
        return fit(folder, support.rule(DFA), *parts, *own, checkpoint, **options, **kwargs)

    run(tmp_path / "whole")
    cut = tmp_path / "cut"
    for start, stop in ((None, 11), (10, 15), (4, 9), (8, None)):
        path = None if start is None else cut / f"step={start}.ckpt"
        if stop is None:
            run(cut, ckpt_path=path)
        else:
            with pytest.raises(Killed):
                run(cut, Kill("on_train_batch_end", stop), ckpt_path=path)
    assert shown(cut, True) == shown(tmp_path / "whole", True)
    for name in ("residual_norms.jsonl", "metrics.jsonl"):
        assert (cut / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_resumed_run_with_a_folder_of_its_own_leaves_the_old_one_alone(tmp_path):
    options = {"enable_checkpointing": True, "max_epochs": 3}
    first = [ResidualNorms(n_samples=7), Kill("on_train_batch_end", 10)]
    with pytest.raises(Killed):
        fit(tmp_path / "a", support.rule(BP), *first, saving(tmp_path / "a"), **options)
    before = shown(tmp_path / "a", True)
    rows = read_history(tmp_path / "a" / "residual_norms.jsonl")
    own = ResidualNorms(n_samples=7)
    fit(tmp_path / "b", support.rule(BP), own, ckpt_path=tmp_path / "a" / "step=8.ckpt", **options)
    assert shown(tmp_path / "a", True) == before
    assert read_history(tmp_path / "a" / "residual_norms.jsonl") == rows
    assert read_history(tmp_path / "b" / "residual_norms.jsonl")[:3] == rows
    assert [row["step"] for row in own.history.rows] == [0, 4, 8, 12]


# Rows of metrics


class Stops(EarlyStopping):
    """Counts how often it is asked."""

    def __init__(self):
        super().__init__("val/loss", patience=100)
        self.asked = 0

    def on_validation_end(self, trainer, pl_module):
        self.asked += 1
        super().on_validation_end(trainer, pl_module)


VALIDATES = {
    "an epoch's end": ({}, 8),
    "every second epoch": ({"check_val_every_n_epoch": 2}, 8),
    "not at this epoch": ({"check_val_every_n_epoch": 2}, 4),
    "in mid-epoch": ({"val_check_interval": 2}, 6),
    "an epoch's end, with others": ({"val_check_interval": 0.5}, 8),
    "across epochs": ({"val_check_interval": 3, "check_val_every_n_epoch": None}, 6),
    "in an accumulated batch": ({"accumulate_grad_batches": 2}, 4),
    "the last step": ({"max_epochs": 2}, 8),
}


@pytest.mark.few(5)
@pytest.mark.parametrize("killed", ["before", "after"])
@pytest.mark.parametrize("way", VALIDATES)
@pytest.mark.parametrize("kind", ["rule", "foreign"])
def test_no_row_is_lost_where_a_checkpoint_is_saved_before_a_validation(
    kind, way, killed, tmp_path
):
    options, saved_at = VALIDATES[way]
    options = {"logger": False, "max_epochs": 4, **options}
    if kind == "rule" and "accumulate_grad_batches" in options:
        pytest.skip("rules optimize manually")

    def net():
        return support.rule(DFA) if kind == "rule" else Validated()

    whole = MetricHistory()
    fit(tmp_path / "whole", net(), whole, **options)
    hook = "on_validation_start" if killed == "before" else "on_train_epoch_end"
    kill = Kill(hook, saved_at)
    saves = {"every_n_train_steps": saved_at}
    module, _, (own, stops) = twice(
        tmp_path / "cut",
        net,
        MetricHistory,
        Stops,
        saved_at=saved_at,
        kill=kill,
        saves=saves,
        **options,
    )
    keys = [(row["step"], row["epoch"]) for row in whole.history.rows]
    assert [(row["step"], row["epoch"]) for row in own.history.rows] == keys
    assert read_history(tmp_path / "cut" / "metrics.jsonl") == own.history.rows
    if kind == "rule":
        assert own.history.rows == whole.history.rows
    # Training is that of a resumed run without the callback, and so is what others are asked.
    bare, again = net(), Stops()
    path = tmp_path / "cut" / "kept.ckpt"
    given = {"enable_checkpointing": True, **options}
    fit(tmp_path / "bare", bare, again, saving(tmp_path / "bare"), ckpt_path=path, **given)
    assert same_state(bare, module)
    assert again.asked == stops.asked


# The probe


def shuffled_anew():
    """No validation data, and an order that nobody has seeded."""
    return DataLoader(support.Rows(32, "tuple"), batch_size=8, shuffle=True), None


@pytest.mark.parametrize("changed", [False, True])
def test_the_probe_is_taken_again_and_another_one_is_told(changed, tmp_path):
    options = {"logger": False, "enable_checkpointing": True}
    units = {"units": ["model.embed", "model.blocks.*"]}
    first, second = (ResidualNorms(n_samples=7, **units) for _ in range(2))
    for epochs, own in ((1, first), (2, second)):
        parts = (own, saving(tmp_path))
        path = None if own is first else tmp_path / "step=4.ckpt"
        torch.rand(epochs)  # whatever has been drawn by now
        loaders = shuffled_anew()
        if changed and own is second:
            loaders[0].dataset.x += 1
            with pytest.warns(UserWarning, match="ResidualNorms: the data are not those that"):
                fit(
                    tmp_path,
                    Foreign(),
                    *parts,
                    loaders=loaders,
                    max_epochs=2,
                    ckpt_path=path,
                    **options,
                )
        else:
            fit(
                tmp_path,
                Foreign(),
                *parts,
                loaders=loaders,
                max_epochs=epochs,
                ckpt_path=path,
                **options,
            )
    same = torch.equal(first.probe.chunks[0][0], second.probe.chunks[0][0])
    assert same is not changed
    state = torch.load(tmp_path / "step=8.ckpt", weights_only=True)["callbacks"][second.state_key]
    assert not any(isinstance(value, torch.Tensor | tuple) for value in state.values())


# What cannot be made at the end


class Named(support.SymbolNet):
    """Its modules have names that torch allows: dollars, as around a formula, and a slash."""

    def __init__(self):
        super().__init__()
        block = self.embed[3]
        names = {r"x$\frac$": block.before, "en/de$": block.attention}
        del block.before, block.attention
        block.parts = nn.ModuleDict(names)
        block.forward = lambda x: _attended(block.parts.values(), x)

    credit_units = ("embed", "blocks.0", "blocks.1")


def _attended(parts, x):
    for part in parts:
        x = x + part(x, x, x, need_weights=False)[0]
    return x[:, -1]


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", KEEP)
def test_any_name_of_a_module_can_be_drawn(kind, tmp_path):
    callback = kind() if kind in WITHOUT_SAMPLES else kind(n_samples=7)
    fit(tmp_path, support.rule(DFA, Named), callback, max_epochs=1, logger=False)
    assert f"figures/{kind.name}.png" in files(tmp_path)


@pytest.mark.parametrize("part", ["draw", "table", "reading"])
def test_what_cannot_be_made_at_the_end_is_one_warning(part, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyError("nothing of the kind")

    monkeypatch.setattr(SoftmaxJacobian, part, fail)
    callback = SoftmaxJacobian(n_samples=7)
    module = support.rule(DFA, support.SymbolNet)
    name = "figure" if part == "draw" else part
    with pytest.warns(UserWarning, match=f"SoftmaxJacobian: {name} cannot be made: KeyError: 'not"):
        run = fit(tmp_path, module, callback, max_epochs=1, logger=False)
    assert run.state.finished
    made = {"softmax_jacobian.csv": "table", "figures/softmax_jacobian.png": "figure"}
    assert {what for name, what in made.items() if name in files(tmp_path)} == (
        {"table", "figure"} - {name}
    )
