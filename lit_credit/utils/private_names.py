"""All private names of torch, Lightning, jsonargparse and others that lit_credit uses.

Any release of a library may remove a name that begins with an underscore, or change its meaning.
Each such name appears here once, under a name that says what it means to us, and
``tests/utils/test_private_names.py`` checks that it still means this. Functions import Lightning
and jsonargparse when they need them: importing this file imports torch alone.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, dropout
from torch.utils import _python_dispatch

__all__ = [
    "BUFFERS",
    "CHECKPOINTED",
    "CHECKPOINT_GENERATORS",
    "CLASS_PATH",
    "COMPILED",
    "DISPATCHERS",
    "EXTRA_STATE",
    "FORWARD_METHODS",
    "INSTANTIATOR",
    "MODULE_TABLES",
    "PARAMETERS",
    "PLACES_OF_TRAINER",
    "PRIVATE_DRAWS",
    "PRIVATE_TORCH",
    "RECOMPILED_TOO_OFTEN",
    "SCHEDULER_ARGUMENTS",
    "SHARDED",
    "SUBMODULES",
    "TENSOR_HOOKS",
    "TO_DTYPE",
    "AnyConvolution",
    "AnyDropout",
    "NormWithStatistics",
    "NoticesLoading",
    "ParsingStep",
    "TorchDispatchMode",
    "add_batches_that_stepped",
    "at_point_of_training",
    "attach_data",
    "attention_implementation",
    "before_batch_transfer",
    "checks_after_epochs",
    "class_parser",
    "class_path_of",
    "class_spec",
    "combined_loader",
    "configured_hyperparameters",
    "dumped_checkpoint",
    "event_file",
    "file_writer",
    "fills_defaults_in",
    "forget_iterator",
    "function_of",
    "gradient_hooks",
    "has_hooks",
    "has_loaders",
    "hold_training_loaders",
    "import_path_of",
    "imported_by_jsonargparse",
    "in_backward",
    "is_class_spec",
    "is_compiled",
    "is_hint_of_callable",
    "is_in_turns",
    "keep_configuration",
    "last_steps_are_done",
    "load_file",
    "loader_source",
    "milestones",
    "multiply_each",
    "norms_of",
    "of_the_class_alone",
    "own_buffers",
    "own_parameters",
    "own_submodules",
    "parser_at_work",
    "parser_of_command",
    "parser_parts",
    "replace_own_parameters",
    "replace_parsing_step",
    "requires_grad_before_toggle",
    "result_of_callable",
    "saved_factors",
    "saves_after_epochs",
    "saves_every_n_steps",
    "schedulers_within",
    "schema_of",
    "seed_again",
    "set_place",
    "state_key_of",
    "trainer_of",
    "unscales_gradients_itself",
    "version_of",
    "with_nested_word",
    "without_view",
]

TorchDispatchMode = _python_dispatch.TorchDispatchMode
"""Sees every operation of torch while it is entered."""
AnyConvolution = conv._ConvNd
"""Base of torch's convolutions."""
AnyDropout = dropout._DropoutNd
"""Base of torch's dropouts."""
NormWithStatistics = batchnorm._NormBase
"""Base of torch's norms that keep running statistics."""

# Modules of torch

PARAMETERS = "_parameters"
"""Attribute of every module: the dict of its own parameters, by name."""
BUFFERS = "_buffers"
"""Attribute of every module: the dict of its own buffers, by name."""
SUBMODULES = "_modules"
"""Attribute of every module: the dict of its own submodules, by name."""
MODULE_TABLES = (PARAMETERS, BUFFERS, SUBMODULES)
"""All three."""
FORWARD_METHODS = ("forward", "_conv_forward")
"""Methods of torch's layers that compute the output; convolutions have the second."""
PRIVATE_TORCH = "torch._"
"""The import paths of torch's private modules begin with this."""
RECOMPILED_TOO_OFTEN = "FailOnRecompileLimitHit"
"""The class of torch's error where a graph that must be one would be compiled too often."""
COMPILED = "_orig_mod"
"""The attribute in which the wrapper ``torch.compile(module)`` holds the module."""
SHARDED = "_fsdp_wrapped_module"
"""The submodule in which torch's wrapper for sharding holds the module."""
CHECKPOINTED = "_checkpoint_wrapped_module"
"""The submodule in which torch's wrapper for activation checkpoints holds the module."""
EXTRA_STATE = "_extra_state"
"""The key, after a module's name, of what a module adds to its ``state_dict`` beside tensors."""
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
"""Attributes of a tensor: the dicts of its hooks, or None."""


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The dict of a module's own parameters; the value None marks a name without a parameter."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The dict of a module's own buffers; the value None marks a name without a buffer."""
    return module._buffers


def version_of(tensor: Tensor) -> int:
    """How often operations in place have written a tensor."""
    return int(tensor._version)


def own_submodules(module: nn.Module) -> dict[str, nn.Module | None]:
    """The dict of a module's own submodules; one that has two names appears twice."""
    return module._modules


def replace_own_parameters(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Replace some of a module's own parameters, in a new dict; the old dict is not changed."""
    vars(module)["_parameters"] = {**module._parameters, **parameters}


def has_hooks(module: nn.Module) -> bool:
    """Whether a module itself has a forward or backward hook."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def gradient_hooks(tensor: Tensor) -> dict[int, Any] | None:
    """The dict of ``tensor.register_hook``; None before the first hook."""
    hooks: dict[int, Any] | None = tensor._backward_hooks
    return hooks


class NoticesLoading(nn.Module):
    """A module with methods that are called before and after its own tensors are loaded."""

    def before_loading(self, saved: Mapping[str, Tensor]) -> None:
        """Called before a state is loaded.

        Args:
            saved: the module's own tensors in the state, by name.
        """

    def after_loading(self) -> None:
        """Called after the module's own tensors were loaded."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        saved = {
            name: value
            for key, value in state_dict.items()
            if key.startswith(prefix) and "." not in (name := key.removeprefix(prefix))
        }
        self.before_loading(saved)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.after_loading()


def is_compiled(module: nn.Module) -> bool:
    """Whether ``module.compile()`` was called, or Lightning has unpacked a compiled module."""
    in_place = getattr(module, "_compiled_call_impl", None) is not None
    by_lightning = getattr(module, "_compiler_ctx", None) is not None
    return in_place or by_lightning


# Autograd and operations of torch

PRIVATE_DRAWS = ("_standard_gamma", "_sample_dirichlet")
"""Operations that draw random numbers, beside those with public names."""
TO_DTYPE = "_to_copy"
"""The operation into which ``x.to(dtype)`` is turned."""
DISPATCHERS = ("torch.utils._python_dispatch", "torch._compile", "torch._dynamo.eval_frame")
"""Modules that stand on the stack between an operation and a :class:`TorchDispatchMode`."""
CHECKPOINT_GENERATORS = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)
"""Functions of ``torch.utils.checkpoint`` that checkpoint around their one ``yield``.

torch 2.14 has both; earlier ones have the first.
"""


def in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread."""
    return torch._C._current_graph_task_id() != -1


def function_of(node: Any) -> type | None:
    """The ``torch.autograd.Function`` that has made a node of the graph; None if none has."""
    return getattr(node, "_forward_cls", None)


def saved_factors(node: Any) -> tuple[Any, Any]:
    """The two factors that a node of a product has saved; None for one that it does not need."""
    return node._saved_self, node._saved_other


def schema_of(operation: Any) -> Any:
    """The schema of an operation: its arguments, and which it writes; None if it has none."""
    return getattr(operation, "_schema", None)


def without_view(tensor: Tensor) -> Tensor:
    """The tensor as an output that is not a view, so that others may change it in place."""
    result: Tensor = torch.ops.aten._unsafe_view(tensor, tensor.shape)
    return result


def norms_of(tensors: list[Tensor]) -> list[Tensor]:
    """The Euclidean norm of each tensor, in one call."""
    return list(torch._foreach_norm(tensors))


def multiply_each(tensors: list[Tensor], factors: list[Tensor]) -> None:
    """Multiply each tensor by a factor of its own, in place, in one call."""
    torch._foreach_mul_(tensors, factors)


# Optimizers, schedulers and loaders of torch

SCHEDULER_ARGUMENTS = {"_schedulers", "_milestones", "_schedule_phases", "_anneal_func_type"}
"""Attributes of torch's schedulers that are arguments, though they begin with an underscore."""


def unscales_gradients_itself(optimizer: Any) -> bool:
    """Whether a fused optimizer takes scaled gradients and unscales them itself."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def schedulers_within(scheduler: Any) -> list[Any]:
    """The schedulers that a ``SequentialLR`` or ``ChainedScheduler``, or its state, consists of."""
    if isinstance(scheduler, Mapping):
        return list(scheduler.get("_schedulers") or ())
    return list(getattr(scheduler, "_schedulers", ()))


def milestones(scheduler: Any) -> list[int]:
    """The steps at which a ``SequentialLR`` switches to its next scheduler."""
    return list(scheduler._milestones)


def forget_iterator(loader: Any) -> None:
    """Make a copy of a ``DataLoader`` or ``CombinedLoader`` create its own iterator."""
    loader._iterator = None


# Lightning

CLASS_PATH = "_class_path"
"""Entry of a checkpoint's hyperparameters that names the class of the module."""
INSTANTIATOR = "_instantiator"
"""Entry that names the function that builds the module; ``LightningCLI`` adds both."""
PLACES_OF_TRAINER = ("_trainer", "_fabric", "_device_mesh")
"""Attributes of a ``LightningModule`` that say where it runs."""
_PARSER_PARTS = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")


def trainer_of(module: Any) -> Any:
    """The Trainer that a module is attached to; None if there is none."""
    return getattr(module, "_trainer", None)


def set_place(module: Any, trainer: Any, device: torch.device) -> None:
    """Set the Trainer that a LightningModule is attached to, and where it takes its tensors to be.

    Unlike ``module.trainer = ...``, this takes None, and does not enter submodules.
    """
    module._trainer, module._device = trainer, device


def requires_grad_before_toggle(module: Any) -> Mapping[nn.Parameter, bool]:
    """``requires_grad`` by parameter, as before a ``toggle_optimizer`` that is not undone yet."""
    found: Mapping[nn.Parameter, bool] = vars(module).get("_param_requires_grad_state", {})
    return found


def before_batch_transfer(module: Any, batch: Any) -> Any:
    """A batch after the hook ``on_before_batch_transfer`` of the module or its datamodule."""
    return module._on_before_batch_transfer(batch, dataloader_idx=0)


def state_key_of(callback: Any, **arguments: Any) -> str:
    """The key of a callback's state in checkpoints: its class and these arguments."""
    return str(callback._generate_state_key(**arguments))


def combined_loader(loop: Any) -> Any:
    """The loaders that a loop of the Trainer runs over; None before it has asked for them."""
    return loop._combined_loader


def is_in_turns(combined: Any) -> bool:
    """Whether a ``CombinedLoader`` goes through its loaders one after the other."""
    return bool(combined._mode == "sequential")


def loader_source(loop: Any) -> Callable[[], Any] | None:
    """The function that gives the loaders of a loop of the Trainer; None if there are none."""
    source = loop._data_source
    make: Callable[[], Any] | None = source.dataloader if source.is_defined() else None
    return make


def attach_data(trainer: Any, module: Any, loaders: Any = None, datamodule: Any = None) -> None:
    """Attach a module and its data to a Trainer as ``fit`` does, without setting anything up.

    Args:
        trainer: the Trainer.
        module: the LightningModule, whose ``trainer`` becomes this one.
        loaders: for training and validation; None takes those of the datamodule or the module.
        datamodule: a LightningDataModule, or None.
    """
    trainer.strategy.connect(module)
    trainer._data_connector.attach_data(
        module, train_dataloaders=loaders, val_dataloaders=loaders, datamodule=datamodule
    )


def has_loaders(loop: Any) -> bool:
    """Whether a loop of the Trainer has loaders to ask for."""
    return bool(loop._data_source.is_defined())


def hold_training_loaders(trainer: Any, combine: Callable[[Any], Any]) -> None:
    """Ask for the training loaders as ``fit`` does, without an iterator over them.

    Args:
        trainer: a Trainer with attached data.
        combine: makes a ``CombinedLoader`` of them.
    """
    loop = trainer.fit_loop
    loop._combined_loader = combine(loop._data_source.dataloader())


def at_point_of_training(trainer: Any, step: int, epoch: int) -> None:
    """Make ``global_step`` and ``current_epoch`` of a Trainer that does not train these numbers."""
    loop = trainer.fit_loop.epoch_loop
    loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step
    loop.manual_optimization.optim_step_progress.total.completed = step
    loop._batches_that_stepped = step
    trainer.fit_loop.epoch_progress.current.completed = epoch
    trainer.fit_loop.epoch_progress.current.processed = epoch


def add_batches_that_stepped(trainer: Any, more: int) -> None:
    """Add to the training batches that loggers count as steps."""
    trainer.fit_loop.epoch_loop._batches_that_stepped += more


def last_steps_are_done(trainer: Any) -> bool:
    """Whether ``min_epochs`` and ``min_steps`` let a Trainer stop that should."""
    return bool(trainer.fit_loop._can_stop_early)


def checks_after_epochs(early_stopping: Any) -> bool | None:
    """Whether it looks after training epochs, not validation; None until its ``setup``."""
    given: bool | None = early_stopping._check_on_train_epoch_end
    return given


def saves_every_n_steps(checkpoint: Any) -> int:
    """The training steps between two files of a ``ModelCheckpoint``; 0 if it counts none."""
    return int(checkpoint._every_n_train_steps)


def saves_after_epochs(checkpoint: Any, trainer: Any) -> bool:
    """Whether a ``ModelCheckpoint`` saves after training epochs, not after validation."""
    return bool(checkpoint._should_save_on_train_epoch_end(trainer))


def dumped_checkpoint(trainer: Any, weights_only: bool) -> dict[str, Any]:
    """What ``trainer.save_checkpoint`` writes; every rank must call this."""
    checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only)
    return checkpoint


def configured_hyperparameters() -> Mapping[str, Any] | None:
    """The arguments of the module that a ``LightningCLI`` is building now; None if none is."""
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters

    given: Mapping[str, Any] | None = _given_hyperparameters.get()
    return given


if TYPE_CHECKING:
    of_the_class_alone = classmethod
else:

    def of_the_class_alone(function: Any) -> Any:
        """A ``classmethod`` that raises TypeError when it is called on an instance."""
        from lightning.pytorch.utilities.model_helpers import _restricted_classmethod

        return _restricted_classmethod(function)


def load_file(path: Any, map_location: Any, weights_only: bool) -> Any:
    """``torch.load`` of a path, a URL, or a file of any file system that fsspec knows."""
    from lightning.fabric.utilities.cloud_io import _load

    return _load(path, map_location=map_location, weights_only=weights_only)


def keep_configuration(cli: type[Any]) -> None:
    """Make a ``LightningCLI`` keep its configuration even if ``--ckpt_path`` is a file.

    Lightning 2.6 would overwrite it with the hyperparameters of the checkpoint.

    Args:
        cli: a subclass of ``LightningCLI``.
    """
    cli._parse_ckpt_path = lambda self: None


def parser_of_command(cli: Any, command: str) -> Any:
    """The parser of one command of a ``LightningCLI``."""
    return cli._parser(command)


def parser_parts(cli: Any) -> dict[str, Any]:
    """The attributes in which a ``LightningCLI`` holds its parser and those of its commands."""
    return {name: getattr(cli, name) for name in _PARSER_PARTS}


def seed_again(cli: Any) -> None:
    """Make a ``LightningCLI`` seed again from its configuration, which may have changed."""
    cli._set_seed()


# Others


def event_file(writer: Any) -> str:
    """The path of the file that a ``SummaryWriter`` of TensorBoard writes to."""
    return str(writer.file_writer.event_writer._file_name)


def file_writer(writer: Any) -> Any:
    """The writer of the event file of a ``SummaryWriter``, opened again if it was closed."""
    return writer._get_file_writer()


def prefixed(logger: Any, tag: str) -> str:
    """The tag under which a logger of Lightning writes a metric."""
    prefix = getattr(logger, "_prefix", "")
    return f"{prefix}{logger.LOGGER_JOIN_CHAR}{tag}" if prefix else tag


def attention_implementation(config: Any) -> str:
    """How a Hugging Face net computes attention, such as ``sdpa``, or ""."""
    return str(getattr(config, "_attn_implementation", ""))


# jsonargparse

ParsingStep = Literal["find", "replace", "read", "class", "make", "untyped", "import", "defaults"]
"""A step in which jsonargparse parses a class that a configuration names.

``find(bases, name)``: the import path of a bare name. ``replace(parser, old, new)``: drop those
arguments of an earlier class that the new class does not take. ``read(value, hint, ...)``: check a
value. ``class(spec, ...)``: check the arguments of a class. ``make(hint, spec)``: check a class
that an argument wants a callable to make. ``untyped(value, ...)``: look at a value of an argument
without a type. ``import(path)``: import an object. ``defaults(parser, config)``: fill in the
default arguments of the classes.
"""
_STEPS: dict[ParsingStep, str] = {
    "find": "resolve_class_path_by_name",
    "replace": "discard_init_args_on_class_path_change",
    "read": "adapt_typehints",
    "class": "adapt_class_type",
    "make": "adapt_partial_callable_class",
    "untyped": "adapt_classes_any",
    "import": "import_object",
}


def replace_parsing_step(
    step: ParsingStep, around: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Replace the function that all parsers of the process use for a step.

    Args:
        step: the step.
        around: maps the current function to the function that replaces it.
    """
    typehints = _typehints()
    if step == "defaults":
        action = typehints.ActionTypeHint
        action.add_sub_defaults = staticmethod(around(action.add_sub_defaults))
    else:
        setattr(typehints, _STEPS[step], around(getattr(typehints, _STEPS[step])))


def parser_at_work() -> Any:
    """The parser that is parsing now, or None."""
    return _typehints().parent_parser.get()


def fills_defaults_in() -> bool:
    """Whether a parser is filling in the default arguments of classes now."""
    return bool(_typehints().sub_defaults.get())


def class_path_of(base: Any, name: str) -> str:
    """The import path of a class that a configuration names, for an argument of type ``base``."""
    return str(_typehints().resolve_class_path_by_name(base, name))


def imported_by_jsonargparse(path: str) -> Any:
    """Import the object at an import path; errors of its module are raised."""
    return _typehints().import_object(path)


def import_path_of(found: Any) -> str:
    """The import path of a class or a function."""
    return str(_typehints().get_import_path(found))


def class_parser(path: str) -> Any:
    """A parser of the arguments of the class at an import path."""
    return _typehints().ActionTypeHint.get_class_parser(path)


def is_class_spec(value: Any) -> bool:
    """Whether a value names a class: a mapping of ``class_path``, and ``init_args`` if any."""
    return bool(_typehints().is_subclass_spec(value))


def class_spec(path_or_spec: Any) -> Any:
    """The ``Namespace`` of a class that is named by its path or by a mapping."""
    return _typehints().subclass_spec_as_namespace(path_or_spec)


def with_nested_word(spec: Any) -> Any:
    """A class whose nested argument is a word that parses to the argument's value.

    jsonargparse reads the value of ``--net.init_args.norm=null`` and writes it again, by ``str``,
    for the parser of the class. ``str`` makes a text of ``None``, also inside of a list or mapping.
    """
    given = None if isinstance(spec, str) else spec.get("init_args")
    if isinstance(given, _typehints().NestedArg) and isinstance(given.val, dict | list | None):
        with suppress(TypeError):  # it holds an object that JSON has not
            spec["init_args"] = given._replace(val=json.dumps(given.val))
    return spec


def is_hint_of_callable(hint: Any) -> bool:
    """Whether a type hint is ``Callable``, with or without its arguments."""
    typehints = _typehints()
    origin = typehints.get_typehint_origin(hint) or hint
    return origin in typehints.callable_origin_types


def result_of_callable(hint: Any) -> Any:
    """The return type in the type hint of a callable."""
    return _typehints().get_callable_return_type(hint)


@cache
def _typehints() -> Any:
    return import_module("jsonargparse._typehints")
