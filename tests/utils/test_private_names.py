"""Each private name is still there and still means this; no other file of lit_credit uses one."""

import ast
import importlib
import inspect
import re
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.compile import from_compiled
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
)
from torch.utils import checkpoint as torch_checkpoint
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from transformers import GPT2Config

from lit_credit.utils import private_names as private

# Modules of torch


@pytest.mark.parametrize("table", private.MODULE_TABLES)
def test_module_tables_hold_what_a_module_owns(table):
    net = nn.BatchNorm1d(2)
    net.child = nn.Linear(2, 2)
    assert {
        private.PARAMETERS: {"weight", "bias"},
        private.BUFFERS: {"running_mean", "running_var", "num_batches_tracked"},
        private.SUBMODULES: {"child"},
    }[table] == set(vars(net)[table])


def test_own_parameters_are_those_of_the_module_itself():
    net = nn.Sequential(nn.Linear(2, 2, bias=False))
    assert not private.own_parameters(net)
    assert private.own_parameters(net[0]) == {"weight": net[0].weight, "bias": None}


def test_own_buffers_can_be_set_to_none():
    net = nn.BatchNorm1d(2)
    private.own_buffers(net)["running_mean"] = None
    assert net.running_mean is None
    assert "running_mean" not in net.state_dict()


def test_own_submodules_have_both_names_of_one():
    net = nn.Module()
    net.one = net.other = nn.ReLU()
    assert dict(private.own_submodules(net)) == {"one": net.one, "other": net.one}


def test_replaced_parameters_are_used_and_the_dict_of_before_is_left_alone():
    net = nn.Linear(1, 1, bias=False)
    before, old = private.own_parameters(net), net.weight
    private.replace_own_parameters(net, {"weight": nn.Parameter(torch.full((1, 1), 3.0))})
    assert net(torch.ones(1)).item() == 3
    assert before["weight"] is old


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_a_module_has_hooks_as_long_as_they_stand(register):
    net = nn.Linear(1, 1)
    assert not private.has_hooks(net)
    handle = getattr(net, register)(lambda *_: None)
    assert private.has_hooks(net)
    assert not private.has_hooks(nn.Sequential(net))
    handle.remove()
    assert not private.has_hooks(net)


def test_gradient_hooks_are_the_dict_that_autograd_calls():
    x, seen = torch.ones(1, requires_grad=True), []
    assert private.gradient_hooks(x) is None
    x.register_hook(seen.append)
    private.gradient_hooks(x).clear()
    x.sum().backward()
    assert not seen


def test_tensor_hooks_are_all_that_can_be_registered():
    x = torch.ones(1, requires_grad=True)
    assert [getattr(x, name) for name in private.TENSOR_HOOKS] == [None, None]
    x.register_hook(lambda grad: None)
    x.register_post_accumulate_grad_hook(lambda tensor: None)
    assert [len(getattr(x, name)) for name in private.TENSOR_HOOKS] == [1, 1]
    assert private.gradient_hooks(x) is getattr(x, private.TENSOR_HOOKS[0])


def test_loading_is_noticed_before_and_after():
    class Net(private.NoticesLoading):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(2))
            self.child = nn.Linear(1, 1)
            self.seen = []

        def before_loading(self, saved):
            self.seen.append((set(saved), self.table.sum().item()))

        def after_loading(self):
            self.seen.append(self.table.sum().item())

    net = nn.Sequential(Net())
    net.load_state_dict(net.state_dict() | {"0.table": torch.ones(2)})
    assert net[0].seen == [({"table"}, 0), 2]


def test_compiled_is_where_torch_holds_the_module():
    net = nn.Linear(1, 1)
    assert getattr(torch.compile(net), private.COMPILED) is net
    assert f"{private.COMPILED}.weight" in dict(torch.compile(net).named_parameters())


def test_compiled_in_place_or_by_lightning():
    net = nn.Linear(1, 1)
    assert not private.is_compiled(net)
    net.compile()
    assert private.is_compiled(net)
    assert not private.is_compiled(BoringModel())
    assert private.is_compiled(from_compiled(torch.compile(BoringModel())))


def test_private_torch_is_where_nothing_has_a_public_name():
    private_ones = [name for name in sys.modules if name.startswith(private.PRIVATE_TORCH)]
    assert f"{private.PRIVATE_TORCH}C" in private_ones
    assert torch.nn.functional.linear.__module__.startswith(private.PRIVATE_TORCH)


@pytest.mark.parametrize(
    ("base", "kinds", "others"),
    [
        ("NormWithStatistics", [nn.BatchNorm1d(1), nn.InstanceNorm2d(1)], [nn.LayerNorm(1)]),
        ("AnyConvolution", [nn.Conv1d(1, 1, 1), nn.ConvTranspose3d(1, 1, 1)], [nn.Linear(1, 1)]),
        ("AnyDropout", [nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout()], [nn.Identity()]),
    ],
)
def test_base_classes_of_layers(base, kinds, others):
    base = getattr(private, base)
    assert all(isinstance(kind, base) for kind in kinds)
    assert not any(isinstance(other, base) for other in others)
    assert issubclass(private.NormWithStatistics, nn.Module)


def test_forward_methods_compute_the_output():
    class Doubled(nn.Conv1d):
        def __init__(self, method):
            super().__init__(1, 1, 1)
            original = getattr(self, method)
            setattr(self, method, lambda *args: 2 * original(*args))

    plain, x = nn.Conv1d(1, 1, 1), torch.ones(1, 1, 1)
    for method in private.FORWARD_METHODS:
        net = Doubled(method)
        net.load_state_dict(plain.state_dict())
        assert torch.equal(net(x), 2 * plain(x)), method


# Autograd and operations of torch


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        Twice.was_in_backward = private.in_backward()
        return 2 * grad


def test_in_backward_is_true_in_a_backward_pass_alone():
    x = torch.ones(1, requires_grad=True)
    y = Twice.apply(x)
    assert not private.in_backward()
    y.backward()
    assert Twice.was_in_backward
    assert not private.in_backward()


def test_function_of_a_node_is_the_one_that_made_it():
    x = torch.ones(1, requires_grad=True)
    assert private.function_of(Twice.apply(x).grad_fn) is Twice
    assert private.function_of((2 * x).grad_fn) is None
    assert private.function_of(None) is None


def test_saved_factors_are_those_that_a_gradient_needs():
    x, y = torch.ones(1, requires_grad=True), torch.full((1,), 2.0, requires_grad=True)
    assert [f.item() for f in private.saved_factors((x * y).grad_fn)] == [1, 2]
    first, second = private.saved_factors((x * y.detach()).grad_fn)
    assert first is None
    assert second.item() == 2


class Operations(private.TorchDispatchMode):
    """Notes the names and the schemas of operations, and the modules that stand between."""

    def __init__(self):
        super().__init__()
        self.names, self.written, self.between = [], [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        schema = private.schema_of(func)
        self.names.append(schema.name.partition("::")[2])
        self.written.append(schema.is_mutable)
        frame = inspect.currentframe().f_back
        while frame.f_globals["__name__"] in private.DISPATCHERS:
            frame = frame.f_back
        self.between.append(frame.f_globals["__name__"])
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_operations_and_their_schemas():
    x = torch.ones(1)
    with Operations() as seen:
        x.to(torch.float64)
        x.add_(1)
    assert seen.names == [private.TO_DTYPE, "add_"]
    assert seen.written == [False, True]
    assert private.schema_of(torch.ops.higher_order.cond) is None


def test_between_an_operation_and_its_mode_stand_dispatchers_alone():
    x = torch.ones(1, requires_grad=True)
    with Operations() as seen:
        (x * x).sum().backward()
    assert set(seen.between) <= {
        __name__,
        "torch.autograd",
        "torch.autograd.graph",
        "torch._tensor",
    }
    assert "torch.autograd.graph" in seen.between


def test_private_draws_are_random():
    draws = {"_standard_gamma": torch.ones(9), "_sample_dirichlet": torch.ones(3, 3)}
    assert set(draws) == set(private.PRIVATE_DRAWS)
    for name, x in draws.items():
        assert not torch.equal(getattr(torch, name)(x), getattr(torch, name)(x))
        with Operations() as seen:
            getattr(torch, name)(x)
        assert seen.names == [name]


def test_checkpoint_generators_run_the_function_at_their_one_yield(monkeypatch):
    known = [name for name in private.CHECKPOINT_GENERATORS if hasattr(torch_checkpoint, name)]
    entered = []

    def noted(original):
        def generator(*args, **kwargs):
            entered.append("before")
            yield from original(*args, **kwargs)
            entered.append("after")

        return generator

    for name in known[-1:]:
        monkeypatch.setattr(torch_checkpoint, name, noted(getattr(torch_checkpoint, name)))

    def function(x):
        entered.append("function")
        return x * x

    x = torch.ones(1, requires_grad=True)
    torch_checkpoint.checkpoint(function, x, use_reentrant=False)
    assert entered == ["before", "function", "after"]


def test_without_view_others_may_work_in_place():
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, cut):
            y = (x @ x.mT).view(4)
            return private.without_view(y) if cut else y

        @staticmethod
        def backward(ctx, grad):
            return torch.zeros(2, 2), None

    x = torch.ones(2, 2, requires_grad=True)
    assert Product.apply(x, True).add_(1).tolist() == [3, 3, 3, 3]


def test_multiply_each_scales_every_tensor_by_its_own_factor():
    tensors = [torch.ones(2), torch.ones(1, 3)]
    private.multiply_each(tensors, [torch.tensor(2.0), torch.tensor(3.0)])
    assert [t.tolist() for t in tensors] == [[2.0, 2.0], [[3.0, 3.0, 3.0]]]


def test_operations_in_place_count():
    tensor = torch.zeros(2)
    before = private.version_of(tensor)
    tensor.add_(1)
    assert private.version_of(tensor) == before + 1


def test_norms_of_several_tensors():
    norms = private.norms_of([torch.tensor([3.0, 4.0]), torch.tensor([[2.0]])])
    assert [norm.item() for norm in norms] == [5, 2]
    assert private.norms_of([torch.tensor([torch.nan])])[0].isnan()


# Optimizers, schedulers and loaders of torch


@pytest.mark.parametrize("fused", [True, False])
def test_a_fused_optimizer_unscales_gradients_itself(fused):
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    assert private.unscales_gradients_itself(optimizer) is fused
    # GradScaler asks for the same, and hands over its scale in place of unscaling.
    weight.grad = torch.full((1,), 8.0)
    optimizer.grad_scale = torch.tensor(8.0) if fused else None
    optimizer.found_inf = torch.tensor(0.0) if fused else None
    optimizer.step()
    assert weight.item() == (0 if fused else -7)


def schedulers():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    first, second = ConstantLR(optimizer), LinearLR(optimizer)
    return first, second, optimizer


@pytest.mark.parametrize("kind", [SequentialLR, ChainedScheduler])
def test_schedulers_within_another_and_within_its_state(kind):
    first, second, optimizer = schedulers()
    both = [first, second]
    found = kind(optimizer, both, milestones=[3]) if kind is SequentialLR else kind(both)
    assert private.schedulers_within(found) == both
    states = private.schedulers_within(found.state_dict())
    assert [state["last_epoch"] for state in states] == [s.last_epoch for s in both]
    assert private.schedulers_within(first) == private.schedulers_within(first.state_dict()) == []
    assert private.schedulers_within(None) == []


def test_milestones_are_the_steps_of_change():
    first, second, optimizer = schedulers()
    found = SequentialLR(optimizer, [first, second], milestones=[3])
    assert private.milestones(found) == [3]


def test_arguments_of_schedulers_with_an_underscore_do_not_change_with_its_steps():
    first, second, optimizer = schedulers()
    sequential = SequentialLR(optimizer, [first, second], milestones=[3])
    cycle = OneCycleLR(optimizer, 1.0, total_steps=9)
    held = vars(sequential) | vars(cycle)
    arguments = {name: held[name] for name in private.SCHEDULER_ARGUMENTS}
    assert arguments["_milestones"] == [3]
    assert arguments["_schedulers"] == [first, second]
    assert len(arguments["_schedule_phases"]) == 2
    assert callable(arguments["_anneal_func_type"]) or arguments["_anneal_func_type"] == "cos"
    before = repr(arguments)
    optimizer.step()
    sequential.step()
    cycle.step()
    held = vars(sequential) | vars(cycle)
    assert repr({name: held[name] for name in private.SCHEDULER_ARGUMENTS}) == before


def test_a_copy_of_a_loader_forgets_the_iterator():
    plain = DataLoader(range(2), num_workers=0)
    plain._iterator = object()  # as with persistent workers
    private.forget_iterator(plain)
    assert [x.item() for x in plain] == [0, 1]
    combined = iter(CombinedLoader([[1, 2], [3, 4]]))
    assert next(combined)[0] == [1, 3]
    private.forget_iterator(combined)
    assert len(list(combined)) == 2


# Lightning


class Watched(BoringModel):
    """Asks for private names in the midst of a run."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.seen = {}
        self.other = nn.Linear(1, 1)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return (batch, "seen")

    def training_step(self, batch, batch_idx):
        self.seen["transferred"] = batch[1]
        first = self.optimizers()[0]
        self.seen["before"] = dict(private.requires_grad_before_toggle(self))
        self.toggle_optimizer(first)
        self.seen["trained"] = self.other.weight.requires_grad
        self.seen["toggled"] = dict(private.requires_grad_before_toggle(self))
        self.untoggle_optimizer(first)
        first.step()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return super().validation_step(batch[0], batch_idx)

    def val_dataloader(self):
        return [super().val_dataloader(), super().val_dataloader()]

    def on_train_batch_end(self, *_):
        private.add_batches_that_stepped(self.trainer, 10)
        self.seen["done"] = self.seen.get("done", [])
        self.seen["done"].append(private.last_steps_are_done(self.trainer))

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.layer, self.other)]

    def on_train_epoch_end(self):
        pass


@pytest.fixture(scope="module")
def fitted():
    net = Watched()
    trainer = Trainer(
        max_steps=2,
        min_steps=2,
        min_epochs=0,
        accelerator="cpu",
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net)
    return trainer, net


pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec. is deprecated"),
]


def test_trainer_of_a_module(fitted):
    trainer, net = fitted
    assert private.trainer_of(net) is trainer
    assert private.trainer_of(BoringModel()) is None
    assert private.trainer_of(nn.Linear(1, 1)) is None


def test_places_of_the_trainer_are_attributes_of_every_module():
    assert all(name in vars(LightningModule()) for name in private.PLACES_OF_TRAINER)


def test_requires_grad_of_before_a_toggle(fitted):
    _, net = fitted
    assert net.seen["before"] == {}
    assert net.seen["trained"] is False
    assert net.seen["toggled"][net.other.weight] is True


def test_before_batch_transfer_calls_the_hook(fitted):
    _, net = fitted
    assert net.seen["transferred"] == "seen"
    assert private.before_batch_transfer(net, 3) == (3, "seen")


def test_state_keys_tell_arguments_apart():
    class Keyed(Callback):
        pass

    keys = {private.state_key_of(Keyed(), a=a) for a in (1, 2)}
    assert len(keys) == 2
    assert all("Keyed" in key for key in keys)
    assert private.state_key_of(Keyed(), a=1) in keys


def test_names_that_wrappers_put_into_those_of_parameters():
    wrapped = checkpoint_wrapper(nn.Linear(1, 1))
    assert (
        next(n for n, _ in nn.Module.named_parameters(wrapped)) == f"{private.CHECKPOINTED}.weight"
    )
    assert importlib.import_module("torch.distributed.fsdp._common_utils").FSDP_WRAPPED_MODULE == (
        private.SHARDED
    )


def test_the_key_of_extra_state():
    class Counted(nn.Module):
        def get_extra_state(self):
            return 3

    assert nn.Sequential(Counted()).state_dict() == {f"0.{private.EXTRA_STATE}": 3}


def test_combined_loaders_of_loops(fitted):
    trainer, _ = fitted
    assert len(private.combined_loader(trainer.fit_loop).flattened) == 1
    assert len(private.combined_loader(trainer.fit_loop.epoch_loop.val_loop).flattened) == 2
    assert private.combined_loader(trainer.test_loop) is None


def test_loaders_go_in_turns_in_validation_and_not_in_training(fitted):
    trainer, _ = fitted
    assert private.is_in_turns(private.combined_loader(trainer.fit_loop.epoch_loop.val_loop))
    assert not private.is_in_turns(private.combined_loader(trainer.fit_loop))


def test_loader_source_gives_the_loaders_of_the_module(fitted):
    trainer, _ = fitted
    ask = private.loader_source(trainer.fit_loop.epoch_loop.val_loop)
    assert [type(loader) for loader in ask()] == [DataLoader, DataLoader]
    without = Namespace(_data_source=_DataLoaderSource(LightningModule(), "val_dataloader"))
    assert private.loader_source(without) is None


def test_a_module_and_its_data_are_attached_without_a_fit():
    trainer, module = trainer_without_logs(), LightningModule()
    private.attach_data(trainer, module, [1, 2])
    assert trainer.lightning_module is module
    assert module.trainer is trainer
    assert private.has_loaders(trainer.fit_loop)
    private.hold_training_loaders(trainer, lambda given: (given, "combined"))
    assert private.combined_loader(trainer.fit_loop) == ([1, 2], "combined")
    private.attach_data(trainer, module)
    assert not private.has_loaders(trainer.fit_loop)
    assert private.combined_loader(trainer.fit_loop) is None


@pytest.mark.parametrize("automatic", [True, False])
def test_a_trainer_is_put_at_a_point_of_training(automatic):
    trainer, module = trainer_without_logs(), LightningModule()
    module.automatic_optimization = automatic
    private.attach_data(trainer, module)
    private.at_point_of_training(trainer, 30, 2)
    assert (trainer.global_step, trainer.current_epoch) == (30, 2)
    assert (module.global_step, module.current_epoch) == (30, 2)


def test_the_place_of_a_module():
    module, inner = LightningModule(), LightningModule()
    module.inner = inner
    private.set_place(module, "a trainer", torch.device("meta"))
    assert (private.trainer_of(module), module.device.type) == ("a trainer", "meta")
    assert private.trainer_of(inner) is None
    private.set_place(module, None, torch.device("cpu"))
    assert private.trainer_of(module) is None


def trainer_without_logs():
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )


def test_loggers_count_the_batches_that_stepped(fitted):
    trainer, _ = fitted
    assert trainer.global_step == 2
    state = trainer.fit_loop.epoch_loop.on_save_checkpoint()
    assert list(state.values()) == [22]  # what a logger has for its axis


def test_last_steps_are_done_after_min_steps(fitted):
    _, net = fitted
    assert net.seen["done"] == [False, True]


@pytest.mark.parametrize("given", [True, False])
def test_early_stopping_checks_after_epochs_if_told(given):
    stopping = EarlyStopping("x", check_on_train_epoch_end=given)
    assert private.checks_after_epochs(stopping) is given
    assert private.checks_after_epochs(EarlyStopping("x")) is None


def test_checkpoints_every_n_steps():
    assert private.saves_every_n_steps(ModelCheckpoint(every_n_train_steps=5)) == 5
    assert private.saves_every_n_steps(ModelCheckpoint(every_n_epochs=2)) == 0


@pytest.mark.parametrize("weights_only", [True, False])
def test_a_dumped_checkpoint_is_what_the_trainer_saves(weights_only, fitted, tmp_path):
    trainer, _ = fitted
    trainer.save_checkpoint(tmp_path / "saved.ckpt", weights_only=weights_only)
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    found = private.dumped_checkpoint(trainer, weights_only)
    assert found.keys() == saved.keys()
    assert ("optimizer_states" in found) is not weights_only
    assert all(torch.equal(found["state_dict"][k], v) for k, v in saved["state_dict"].items())


@pytest.mark.parametrize("given", [True, False])
def test_checkpoints_after_epochs_if_told(given, fitted):
    checkpoint = ModelCheckpoint(save_on_train_epoch_end=given)
    assert private.saves_after_epochs(checkpoint, fitted[0]) is given


class Data(LightningDataModule):
    pass


class Configured(BoringModel):
    def __init__(self, size: int = 1) -> None:
        super().__init__()
        given = private.configured_hyperparameters()
        self.given = None if given is None else dict(given)
        self.save_hyperparameters()

    @private.of_the_class_alone
    def made(cls):
        return cls()


class CLI(LightningCLI):
    pass


private.keep_configuration(CLI)


def run_cli(*words, kind=CLI):
    return kind(
        Configured,
        Data,
        subclass_mode_model=True,
        args=["validate", *words, f"--model={__name__}.Configured"],
        trainer_defaults={"fast_dev_run": True, "accelerator": "cpu", "logger": False},
        save_config_callback=None,
    )


@pytest.fixture
def cli(monkeypatch):
    monkeypatch.setattr(LightningCLI, "_run_subcommand", lambda self, name: None)
    return run_cli("--model.size=3", "--seed_everything=4")


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_a_module_that_the_command_line_builds_is_given_its_configuration(cli):
    assert cli.model.given["size"] == 3
    assert Configured().given is None
    assert cli.model.given[private.INSTANTIATOR] == "lightning.pytorch.cli.instantiate_module"
    assert cli.model.hparams[private.CLASS_PATH] == f"{__name__}.Configured"


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_the_configuration_is_kept_where_a_checkpoint_is_a_file(cli, tmp_path):
    path = tmp_path / "x.ckpt"
    saved = {"size": 7, private.CLASS_PATH: f"{__name__}.Configured"}
    torch.save({"hyper_parameters": saved}, path)
    words = (f"--ckpt_path={path}", "--model.size=3")
    assert run_cli(*words).model.hparams.size == 3
    assert run_cli(*words, kind=LightningCLI).model.hparams.size == 7  # the reason


def test_the_file_of_a_closed_writer_is_opened_again(tmp_path):
    writer = SummaryWriter(str(tmp_path))
    assert private.file_writer(writer) is writer.file_writer
    writer.close()
    assert writer.file_writer is None
    assert private.file_writer(writer) is writer.file_writer is not None
    writer.close()


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_a_command_line_takes_the_parser_of_another(cli):
    class Taking(CLI):
        def setup_parser(self, *args, **kwargs):
            vars(self).update(private.parser_parts(cli))

    taking = run_cli("--model.size=5", kind=Taking)
    assert taking.parser is cli.parser
    assert taking.model.hparams.size == 5
    parser = private.parser_of_command(taking, "validate")
    assert "size: 5" in parser.dump(taking.config.validate, skip_validation=True)


@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
def test_the_command_line_seeds_again(cli):
    before = torch.rand(1)
    cli.config.validate.seed_everything = 5
    private.seed_again(cli)
    other = torch.rand(1)
    cli.config.validate.seed_everything = 4
    private.seed_again(cli)
    torch.manual_seed(5)
    assert torch.equal(other, torch.rand(1))
    assert not torch.equal(other, before)


def test_a_method_of_the_class_alone_is_refused_on_an_instance():
    assert isinstance(Configured.made(), Configured)
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        Configured().made()


def test_a_file_is_loaded_without_running_code(tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "good")
    torch.save({"x": Namespace()}, tmp_path / "bad")
    assert private.load_file(tmp_path / "good", "meta", True)["x"].device.type == "meta"
    with pytest.raises(Exception, match="Weights only load failed"):
        private.load_file(tmp_path / "bad", "cpu", True)
    assert isinstance(private.load_file(tmp_path / "bad", "cpu", False)["x"], Namespace)


# Others


def test_the_event_file_is_the_one_that_grows(tmp_path):
    writer = SummaryWriter(tmp_path)
    writer.add_scalar("x", 1.0)
    path = private.event_file(writer)
    writer.close()
    assert [Path(path)] == list(tmp_path.iterdir())


def test_hugging_face_says_how_it_computes_attention():
    config = GPT2Config(attn_implementation="eager")
    assert private.attention_implementation(config) == "eager"
    assert private.attention_implementation(None) == ""


# jsonargparse


class Shape:
    def __init__(self, size: int = 1) -> None:
        self.size = size


class Square(Shape):
    def __init__(self, size: int = 2, color: str = "red") -> None:
        super().__init__(size)


def parser_of(*hints, **options):
    parser = ArgumentParser(exit_on_error=False, **options)
    for number, hint in enumerate(hints):
        parser.add_argument(f"--a{number}", type=hint)
    return parser


SQUARE, SHAPE = f"{__name__}.Square", f"{__name__}.Shape"


@pytest.fixture
def steps():
    """The calls of each parsing step; jsonargparse is as before afterwards."""
    typehints = importlib.import_module("jsonargparse._typehints")
    kept = dict(vars(typehints))
    defaults = typehints.ActionTypeHint.__dict__["add_sub_defaults"]
    calls = {}

    def note(step):
        def around(original):
            def noted(*args, **kwargs):
                about = private.parser_at_work(), private.fills_defaults_in()
                copies = [arg.clone() if hasattr(arg, "clone") else arg for arg in args]
                calls.setdefault(step, []).append((tuple(copies), about))
                return original(*args, **kwargs)

            return noted

        private.replace_parsing_step(step, around)

    for step in ("find", "replace", "read", "make", "untyped", "import", "defaults"):
        note(step)
    yield calls
    vars(typehints).update(kept)
    typehints.ActionTypeHint.add_sub_defaults = defaults


def test_a_bare_name_is_found_and_a_value_read(steps):
    parser = parser_of(Shape)
    parser.parse_args([f"--a0={SQUARE}"])
    assert (Shape, SQUARE) in [args for args, _ in steps["find"]]
    assert any(args[0] == SQUARE and args[1] is Shape for args, _ in steps["read"])
    assert (SQUARE,) in [args for args, _ in steps["import"]]
    assert any(at_work is parser for _, (at_work, _) in steps["read"])
    assert private.parser_at_work() is None


def test_another_class_replaces_the_first(steps):
    parser_of(Shape).parse_args([f"--a0={SQUARE}", "--a0.color=blue", f"--a0={SHAPE}"])
    changes = [(a[1]["class_path"], a[2]["class_path"]) for a, _ in steps["replace"] if a[1]]
    assert (SQUARE, SHAPE) in changes


def test_defaults_are_filled_in_as_one_step(steps):
    parser = parser_of(Shape)
    found = parser.parse_args([f"--a0={SQUARE}"])
    assert found.a0.init_args.color == "red"
    assert steps["defaults"][0][0][0] is parser
    assert not private.fills_defaults_in()
    assert any(filling for _, (_, filling) in steps["read"])


def test_without_the_step_there_are_no_defaults(steps):
    private.replace_parsing_step("defaults", lambda original: lambda parser, config: None)
    parser = parser_of(Shape)
    parser.set_defaults(a0={"class_path": SQUARE})
    assert "init_args" not in parser.get_defaults().a0


def test_a_maker_and_a_value_without_a_type_are_steps(steps):
    from typing import Any

    parser = parser_of(Callable[[int], Shape], Any)
    words = [f"--a0={SQUARE}", f'--a1={{"class_path": "{SQUARE}"}}']
    parser.parse_args(words)
    assert any(args[1]["class_path"] == SQUARE for args, _ in steps["make"])
    assert any(args[0]["class_path"] == SQUARE for args, _ in steps["untyped"] if args[0])


class Holder:
    def __init__(self, shape: Shape) -> None:
        self.shape = shape


def test_a_nested_word_parses_to_the_value_that_it_stands_for(steps):
    parser, found = parser_of(Holder), {}

    def around(original):
        def check(spec, *args, **kwargs):
            given = spec.get("init_args")
            word = private.with_nested_word(spec).get("init_args")
            if hasattr(given, "val"):
                found[str(given.val)] = word.val
            return original(spec, *args, **kwargs)

        return check

    private.replace_parsing_step("class", around)
    words = [f"--a0={__name__}.Holder", f"--a0.shape={SQUARE}"]
    for word in ("--a0.shape.color=blue", "--a0.shape.size=null", "--a0.shape.size=[1, null]"):
        with suppress(ArgumentError):  # neither is a size
            parser.parse_args([*words, word])
    assert found == {"blue": "blue", "None": "null", "[1, None]": "[1, null]"}


def test_class_paths():
    assert private.class_path_of(Shape, "Square") == SQUARE
    assert private.imported_by_jsonargparse(SQUARE) is Square
    assert private.import_path_of(Square) == SQUARE
    with pytest.raises(ImportError):
        private.imported_by_jsonargparse("no_such_module.Square")


def test_class_parser_has_the_arguments_of_a_class(steps):
    inner = []
    private.replace_parsing_step(
        "find", lambda original: lambda *a: inner.append(private.class_parser(SQUARE)) or SQUARE
    )
    parser_of(Shape).parse_args(["--a0=Square"])
    assert vars(inner[0].get_defaults()) == {"size": 2, "color": "red"}


def test_class_specs():
    assert private.is_class_spec({"class_path": SQUARE})
    assert not private.is_class_spec({"class_path": SQUARE, "size": 2})
    assert not private.is_class_spec({"size": 2})
    given = {"class_path": SQUARE, "init_args": {"size": 3}}
    assert private.class_spec(SQUARE).class_path == SQUARE
    assert private.class_spec(given).init_args.size == 3


def test_hints_of_callables():
    assert private.is_hint_of_callable(Callable)
    assert private.is_hint_of_callable(Callable[[int], Shape])
    assert not private.is_hint_of_callable(Shape)
    assert private.result_of_callable(Callable[[int], Shape]) is Shape
    assert private.result_of_callable(Shape) is None


# All of them, and nobody else


def test_each_name_has_a_test():
    tested = {
        node.attr if isinstance(node, ast.Attribute) else node.value
        for node in ast.walk(ast.parse(Path(__file__).read_text()))
        if isinstance(node, ast.Attribute)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }
    assert set(private.__all__) - {"ParsingStep"} <= tested


OF_PYTHON = {
    "_asdict": "of NamedTuple, documented",
    "_fields": "of NamedTuple, documented",
    "_replace": "of NamedTuple, documented",
    "_exit": "os._exit, documented",
    "_getframe": "sys._getframe, documented",
    "_thread": "a module of the standard library, documented",
    "_abc_": "the cache that abc writes into classes; no name of a package",
}
ENDS = {
    "_sd": "of the name of a spread",
    "_train": "of a tag",
    "_last": "of a column",
    "_min": "of a tag",
    "_max": "of a tag",
}
FILES = [
    path
    for path in sorted(Path("lit_credit").rglob("*.py"))
    if path != Path(private.__file__).relative_to(Path.cwd())
]


def is_private(name):
    return re.fullmatch(r"_[A-Za-z]\w*", name) is not None


@cache
def tree_of(path):
    return ast.parse(path.read_text())


def names_defined_in(tree):
    """Names that a file gives to functions, classes, variables and attributes of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and getattr(node.value, "id", "") in ("self", "cls")
        ):
            yield node.attr


@cache
def names_of_lit_credit():
    return frozenset(name for path in FILES for name in names_defined_in(tree_of(path)))


def foreign_private_names(tree):
    """Private names in a file that are not its own, with the line.

    An attribute of ``self`` or ``super()`` is ours if any file of lit_credit defines it; one of
    another object, if the same file does. A text counts as a name if it looks like one. It is ours
    if the file defines a name that begins so; parts of f-strings, and what words are asked to end
    in, are no names.
    """
    own = set(names_defined_in(tree))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
            *("endswith", "removesuffix"),
        ):
            skipped |= {id(argument) for argument in node.args}
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of_self = getattr(node.value, "id", "") in ("self", "cls") or (
                isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
            )
            known = names_of_lit_credit() if of_self else own
            found = [] if node.attr in known else [node.attr]
        elif isinstance(node, ast.ImportFrom) and not str(node.module).startswith("lit_credit"):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            found = [name for name in names if is_private(name)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
            found = [name for name in names if is_private(name)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.split(".")
            if id(node) not in skipped and re.fullmatch(r"[\w.]+", node.value):
                found = [
                    part
                    for part in parts
                    if (is_private(part) and not any(name.startswith(part) for name in own))
                    or (part == "_" and len(parts) > 1)
                ]
        yield from ((node.lineno, name) for name in found if name not in {**OF_PYTHON, **ENDS})


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_other_file_uses_a_private_name(path):
    found = list(foreign_private_names(tree_of(path)))
    assert not found, f"{path}: give it a name of its own in lit_credit.utils.private_names"


@pytest.mark.parametrize(
    "text",
    [
        "from torch.nn.modules.conv import _ConvNd",
        "import torch._inductor",
        "from torch.utils import _pytree",
        "trainer._x",
        "torch._C.f()",
        "self._forward_hooks",
        "super()._apply(f)",
        "getattr(module, '_x')",
        "vars(module)['_parameters'] = {}",
        "setattr(torch, '_a.b', 3)",
        "import_module('jsonargparse._typehints')",
        "name.startswith('torch._')",
    ],
)
def test_the_search_finds(text):
    assert list(foreign_private_names(ast.parse(text)))


def private_names_in(kind):
    """The private names that the source of a class defines or uses on itself."""
    with suppress(OSError, TypeError, IndentationError, SyntaxError):
        source = inspect.getsource(kind)
        tree = ast.parse(inspect.cleandoc(source) if source[0].isspace() else source)
        names = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        names |= {
            n.attr
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") in ("self", "cls")
        }
        return {name for name in names if is_private(name)}
    return set()


def test_no_class_of_ours_takes_a_private_name_of_its_foreign_base():
    """Which would be an override, wanted or not."""
    theirs = cache(private_names_in)
    taken = {}
    for path in FILES:
        module = importlib.import_module(".".join(path.with_suffix("").parts))
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                foreign = [b for b in kind.__mro__ if b.__module__.split(".")[0] != "lit_credit"]
                names = private_names_in(kind) & {n for base in foreign for n in theirs(base)}
                if names:
                    taken[f"{kind.__module__}.{kind.__qualname__}"] = names
    assert taken == {}


def test_the_error_of_too_many_compilations():
    from torch._dynamo import exc

    assert issubclass(getattr(exc, private.RECOMPILED_TOO_OFTEN), Exception)
