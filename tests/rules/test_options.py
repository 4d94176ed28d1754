"""Options of the rules under a Trainer: clipping, schedules, precision, what is refused."""

import itertools
import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.tuner import Tuner
from torch.optim import SGD

from lit_credit.datamodules import TensorLoader
from lit_credit.models import MLP, ResidualMLP
from lit_credit.rules import (
    BP,
    DFA,
    FA,
    FDFA,
    PEPITA,
    BlockFA,
    DirectKolenPollack,
    ForwardGradient,
    KolenPollack,
    LocalLosses,
    PredictiveCoding,
    TargetPropagation,
    WeightMirror,
)
from lit_credit.tasks import Classification
from tests.support import gradients, images, loader, quiet_trainer, seeded


def small():
    return ResidualMLP(20, width=12, num_classes=5, depth=2)


def rule(kind=BP, **kwargs):
    return seeded(lambda: kind(small(), Classification(5), **kwargs))


class Norms(Callback):
    """The gradient norms that the optimizer sees."""

    def __init__(self, *names):
        self.names = names
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        parts = [pl_module.net.get_submodule(name) for name in self.names]
        squares = [sum(p.grad.pow(2).sum() for p in part.parameters()) for part in parts]
        self.seen.append([math.sqrt(square) for square in squares])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_clipping_bounds_the_norms_that_the_optimizer_sees(precision):
    probe = Norms("blocks.0", "blocks.1", "embed")
    quiet_trainer(max_steps=4, callbacks=[probe], precision=precision).fit(
        rule(DFA, normalize_credit=True, clip_per_unit={"blocks.*": 0.1}), loader()
    )
    for first, second, embed in probe.seen:
        assert max(first, second) <= 0.1 * (1 + 1e-4)
        assert embed > 0.3
    whole = Norms("")
    quiet_trainer(max_steps=4, callbacks=[whole]).fit(rule(clip_norm=0.2), loader())
    assert all(abs(norm - 0.2) < 1e-4 for (norm,) in whole.seen)


BUILT = [DirectKolenPollack, FDFA, LocalLosses]  # from a batch, before the training
PASSES = [PEPITA, PredictiveCoding, ForwardGradient, TargetPropagation]


@pytest.mark.parametrize(
    ("precision", "kind"),
    [
        *itertools.product(
            ["bf16-mixed", "16-mixed", "64-true"],
            [BP, FA, BlockFA, DFA, KolenPollack, WeightMirror, *BUILT, *PASSES],
        ),
    ],
)
def test_every_precision_trains_about_what_float32_trains(kind, precision):
    trained = []
    for chosen in ("32-true", precision):
        r = rule(kind, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        x, y = images()
        batches = TensorLoader([x.double() if chosen == "64-true" else x, y], batch_size=16)
        quiet_trainer(max_epochs=1, precision=chosen).fit(r, batches)
        trained.append({n: p.detach().float() for n, p in r.net.named_parameters()})
    start = dict(rule(kind).net.named_parameters())
    for name, value in trained[0].items():
        moved = (value - start[name]).norm()
        assert (trained[1][name] - value).norm() <= 0.1 * moved + 1e-4, name


def test_the_scheduler_steps_per_epoch_or_per_step():
    def halve(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    for interval, expected in (("epoch", 1e-3 / 4), ("step", 1e-3 / 2**12)):
        r = rule(lr_scheduler=halve, lr_interval=interval)
        trainer = quiet_trainer(max_epochs=2)
        trainer.fit(r, loader())
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected)
        assert trainer.global_step == 12


def plateau(**kwargs):
    return lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0, **kwargs)


def test_a_plateau_is_seen_in_the_metric_that_the_scheduler_names():
    r = rule(lr_scheduler=plateau(monitor="val/loss", mode="max"))  # a falling loss is a plateau
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(r, loader(), loader())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 / 4)


def test_a_scheduler_that_watches_nothing_is_named():
    r = rule(lr_scheduler=plateau(monitor="val/lost"))
    with pytest.raises(MisconfigurationException, match=r"'val/lost'.* one of: .*val/loss"):
        quiet_trainer(max_epochs=1).fit(r, loader(), loader())
    r = rule(lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(ValueError, match=r"lightning.pytorch.cli.ReduceLROnPlateau"):
        quiet_trainer(max_epochs=1).fit(r, loader(), loader())


def test_parameter_groups_are_named_and_hold_every_parameter_once():
    groups = rule().configure_optimizers().param_groups
    assert [group["name"] for group in groups] == ["units", "readout"]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(set(held))
    assert len(held) == len(list(small().parameters()))


@pytest.mark.parametrize(
    ("option", "remedy"),
    [({"gradient_clip_val": 1.0}, "clip_norm"), ({"accumulate_grad_batches": 2}, "batch_size")],
)
def test_trainer_options_without_effect_are_refused_with_what_to_use(option, remedy):
    with pytest.raises(MisconfigurationException, match=f"under manual optimization.*`?{remedy}"):
        quiet_trainer(max_steps=1, **option).fit(rule(), loader())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip_norm": 0.0}, "`clip_norm` is 0.0"),
        ({"clip_per_unit": {"blocks.*": -1.0}}, r"`clip_per_unit\['blocks.\*'\]` is -1.0"),
        ({"clip_per_unit": 1.0, "units": []}, "`clip_per_unit`: .* matches nothing"),
        ({"clip_per_unit": {"block": 1.0}}, "`clip_per_unit`: 'block' matches nothing"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        rule(**arguments)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (DFA, {"shared_feedback": {"embed": "block"}}, "`shared` names 'block'"),
        (DFA, {"feedback": "weight"}, "direct feedback has no weight"),
        (BlockFA, {"feedback": "weight"}, "`distribution` is 'weight'"),
    ],
)
def test_bad_feedback_is_named(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        rule(kind, **arguments)


def test_sizes_that_do_not_fit_name_both_numbers():
    with pytest.raises(ValueError, match=r"`in_features` is 20(.|\n)*has 7 numbers"):
        rule().batch_loss(images(features=7))
    with pytest.raises(ValueError, match=r"\(96, 5\), expected \(96, 7\)"):
        BP(small(), Classification(7)).batch_loss(images())


def test_shared_and_top_and_flattened_feedback_have_their_shapes():
    def drawn(**kwargs):
        r = rule(DFA, **kwargs)
        r.credit(images())
        return r.feedback.matrix

    assert drawn().shape == (36, 5)
    assert drawn(shared_feedback=True).shape == (12, 5)
    assert drawn(shared_feedback={"embed": "blocks.0"}).shape == (24, 5)
    assert torch.equal(drawn(feedback_scale=3.0), 3.0 * drawn())
    random_top = rule(BlockFA, top="random")
    assert random_top.credit(images())["net.blocks.1"].shape == (96, 12)
    assert random_top.top_feedback.matrix.shape == (12, 5)


def test_any_loss_works():
    task = Classification(5, loss=torch.nn.MSELoss(), one_hot=True)
    r = seeded(lambda: DFA(MLP(20, [12], num_classes=5), task))
    found = gradients(r, images())
    exact = gradients(seeded(lambda: BP(MLP(20, [12], num_classes=5), task)), images())
    torch.testing.assert_close(found["head.weight"], exact["head.weight"])


def test_feedback_is_redrawn_each_step_where_asked():
    class Record(Callback):
        def __init__(self):
            self.matrices = []

        def on_train_batch_end(self, trainer, pl_module, *_):
            pairs = pl_module.feedback_matrices()
            self.matrices.append(pairs["net.out_head"].feedback.clone())
            signs = pairs["net.out_head"].weight.sign()
            assert (self.matrices[-1].sign() == signs).all()

    record = Record()
    r = rule(FA, feedback_sign="weight", redraw=True)
    quiet_trainer(max_steps=3, callbacks=[record]).fit(r, loader())
    first, second, third = record.matrices
    assert not torch.allclose(first.abs(), second.abs())
    assert not torch.allclose(second.abs(), third.abs())


@pytest.mark.filterwarnings("ignore:`weights_only` was not set")
def test_lr_find_gives_the_curve_of_a_loop_by_hand(tmp_path):
    def lr_find(module):
        trainer = quiet_trainer(default_root_dir=tmp_path, max_epochs=20)
        options = {"num_training": 40, "min_lr": 1e-3, "max_lr": 100.0, "update_attr": False}
        return Tuner(trainer).lr_find(module, loader(), loader(n=32), **options)

    module = rule(optimizer=lambda p: SGD(p, lr=0.1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = lr_find(module)
    for name, value in before.items():
        assert torch.equal(module.state_dict()[name], value)
    rates, losses = found.results["lr"], found.results["loss"]
    assert rates[0] < rates[5] < rates[20]
    assert 1e-3 < found.suggestion() < 100
    net = rule().net
    average, data = 0.0, itertools.chain.from_iterable(loader() for _ in range(9))
    optimizer = SGD(net.parameters(), lr=0.1)
    for step, (rate, (x, y)) in enumerate(zip(rates[:6], data, strict=False), 1):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        average = 0.98 * average + 0.02 * loss.item()
        assert losses[step - 1] == pytest.approx(average / (1 - 0.98 ** (step + 1)), rel=1e-4)
