"""Checking that a diagnostic does not change training by a single bit."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from lit_credit.datamodules import TensorLoader
from lit_credit.protocols import DiagnosticProtocol, offers
from lit_credit.testing.modules import KINDS, RecordingLogger, given_loss
from lit_credit.testing.seen_state import random_states, seen_state
from lit_credit.testing.stateful import STATES, StatefulNet
from lit_credit.utils.random_state import preserved_rng

__all__ = ["SmallNet", "check_diagnostic"]

_FEATURES, _CLASSES, _WIDTH = 12, 4, 8
_MOST_NAMED = 5


class SmallNet(nn.Module):
    """Two units, a dropout and a batch norm between features (N, 12) and 4 classes."""

    credit_units = ("first", "second")
    readout = ("last",)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(_FEATURES, _WIDTH), nn.BatchNorm1d(_WIDTH), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Dropout(0.2), nn.Tanh())
        self.last = nn.Linear(_WIDTH, _CLASSES)

    def forward(self, x: Tensor) -> Any:
        """Logits (N, 4)."""
        return self.last(self.second(self.first(x)))


class Features(LightningDataModule):
    """24 rows for training and 12 for validation."""

    def _loader(self, rows: int, seed: int, shuffle: bool) -> Any:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(rows, _FEATURES, generator=generator)
        y = torch.randint(_CLASSES, (rows,), generator=generator)
        return TensorLoader((x, y), batch_size=8, shuffle=shuffle, seed=seed)

    def train_dataloader(self) -> Any:
        return self._loader(24, 0, True)

    def val_dataloader(self) -> Any:
        return self._loader(12, 1, False)


class _Setting(NamedTuple):
    """The arguments of a training; hashable, so that each runs once without the diagnostic."""

    kind: str
    net: Callable[[], nn.Module]
    data: Callable[[], LightningDataModule]
    states: tuple[str, ...]
    classes: int
    epochs: int


def check_diagnostic(
    make_diagnostic: Callable[..., Callback],
    *,
    net: Callable[[], nn.Module] = SmallNet,
    data: Callable[[], LightningDataModule] = Features,
    kinds: Iterable[str] = tuple(KINDS),
    states: Iterable[str] = tuple(STATES),
    classes: int = _CLASSES,
    epochs: int = 1,
    together: bool = True,
) -> int:
    """Train and validate with and without a diagnostic, and compare the results bit by bit.

    There are several kinds of modules: foreign modules with automatic or manual optimization, with
    their own ``batch_loss``, or with a ``loss`` that the diagnostic is given; and every rule. Their
    nets keep state in buffers, attributes, containers, parameters that the forward pass writes to,
    generators of torch, numpy and python, objects and hooks. Foreign modules also move a momentum
    encoder in each step, change the learning rate, and write to their loggers in every way.
    The check compares weights, buffers, all other visible state, the random states of the process,
    and the points that the module has logged.

    Args:
        make_diagnostic: makes a new callback. If the diagnostic has a ``loss``, it must accept one:
            for some kinds of modules it is called with ``loss``, a function. Let it measure often:
            ``partial(MyDiagnostic, every_n_steps=1)``.
        net: makes the net, with ``credit_units`` and ``readout`` if rules train it.
        data: makes the datamodule: batches (x, y) that fit the net's input and classes.
        kinds: kinds of modules, from :data:`lit_credit.testing.KINDS`.
        states: places where nets keep state, from :data:`lit_credit.testing.STATES`.
        classes: number of classes in the data.
        epochs: number of epochs to train.
        together: train one net with all states for each kind of module. False trains one net for
            each state: slower in proportion, but no state can hide another.

    Returns:
        Number of compared combinations of a kind of module and a state.

    Raises:
        AssertionError: if anything differs; names the diagnostic, the kind of module and the
            difference.

    Example:
        >>> from functools import partial
        >>> from lit_credit.callbacks import ResidualNorms
        >>> make = partial(ResidualNorms, every_n_steps=1, n_samples=4, figure=False)
        >>> check_diagnostic(make, kinds=["automatic", "DFA"], states=["buffer", "torch_generator"])
        4
    """
    states = tuple(states)
    compared = 0
    for kind in kinds:
        for group in [states] if together else [(state,) for state in states]:
            setting = _Setting(kind, net, data, group, classes, epochs)
            diagnostic = _made(make_diagnostic, kind)
            _compare(type(diagnostic).__name__, setting, _bare(setting), _fit(setting, diagnostic))
            compared += len(group)
    return compared


def _made(make: Callable[..., Callback], kind: str) -> Callback:
    """Make the diagnostic, with a loss if the kind of module needs one and it accepts one."""
    made = make()
    takes_loss = offers(made, DiagnosticProtocol.loss)
    if kind == "given_loss" or (kind == "manual" and takes_loss):
        return make(loss=given_loss) if takes_loss else made
    return made


@lru_cache(maxsize=64)
def _bare(setting: _Setting) -> dict[str, str]:
    return _fit(setting)


def _fit(setting: _Setting, *callbacks: Callback) -> dict[str, str]:
    """Train and validate, and return all visible state afterwards."""
    logger = RecordingLogger()
    with preserved_rng(), TemporaryDirectory() as folder:
        module = _module(setting)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=setting.epochs,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            logger=logger,
            callbacks=list(callbacks),
        )
        trainer.fit(module, datamodule=setting.data())
        has_validation = trainer.val_dataloaders is not None
        found = has_validation and trainer.validate(
            module, datamodule=setting.data(), verbose=False
        )
        points = [point for point in logger.points if point[0].startswith(("user/", "val/"))]
        seen = {f"the process's {name}": text for name, text in random_states().items()}
    seen |= seen_state(module) | {f"trainer.optimizers[0].{_LR}": _rates(trainer)}
    seen["what validate returned"] = repr(found)
    return seen | {"the points that were logged": repr(points)}


_LR = "param_groups[0]['lr']"


def _rates(trainer: Trainer) -> str:
    return repr([group["lr"] for group in trainer.optimizers[0].param_groups])


def _module(setting: _Setting) -> LightningModule:
    torch.manual_seed(1)
    net = StatefulNet(setting.net(), setting.states)
    return KINDS[setting.kind](net, setting.classes)


def _compare(who: str, setting: _Setting, bare: dict[str, str], seen: dict[str, str]) -> None:
    names = list(dict.fromkeys([*bare, *seen]))
    different = [name for name in names if bare.get(name) != seen.get(name)]
    if not different:
        return
    shown = [_difference(name, bare.get(name), seen.get(name)) for name in different[:_MOST_NAMED]]
    more = len(different) - len(shown)
    raise AssertionError(
        f"{who} changes the training of a module of kind {setting.kind!r} with state in "
        f"{', '.join(setting.states) or 'nothing'}. Different from a training without it:\n  "
        + "\n  ".join(shown + ([f"and {more} more"] if more else []))
    )


def _difference(name: str, bare: str | None, seen: str | None) -> str:
    if bare is None or seen is None:
        return f"{name} is there only {'with' if bare is None else 'without'} the diagnostic"
    return f"{name}: {_short(bare)} without, {_short(seen)} with"


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
