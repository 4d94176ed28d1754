"""The contract of a diagnostic, for its author: training is not changed by one bit."""

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
    """24 rows to train on and 12 to validate."""

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
    """A training without the diagnostic; hashable, so that it runs once."""

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
    """Train with and without a diagnostic, and compare to the bit.

    The modules are of every kind: foreign ones with automatic and manual optimization, with a
    ``batch_loss`` of their own, with a ``loss`` that the diagnostic is given, and every rule. Their
    nets keep state in a buffer, an attribute, containers, a parameter that the forward pass writes
    to, generators of torch, numpy and python, objects, hooks. Foreign modules also move a momentum
    encoder in each step, change the learning rate, and write to their loggers in every way.
    Compared are weights, buffers, all other state that can be seen, the random states of the
    process, and the points that the module has logged.

    Args:
        make_diagnostic: makes a new callback; called with ``loss``, a function, where the module's
            loss is to be given, so it must take one if the diagnostic has one. Let it measure
            often: ``partial(MyDiagnostic, every_n_steps=1)``.
        net: makes the net, with ``credit_units`` and ``readout`` where rules train it.
        data: makes the datamodule: batches (x, y) with the net's input and classes.
        kinds: of modules, of :data:`lit_credit.testing.KINDS`.
        states: where nets keep state, of :data:`lit_credit.testing.STATES`.
        classes: of the data.
        epochs: to train.
        together: one net with all states for each kind of module; False trains one net for each
            state, which takes that many times as long and shows a state that hides another.

    Returns:
        How many combinations of a kind of module and a state were compared.

    Raises:
        AssertionError: naming the diagnostic, the kind of module, and what differs.

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
    """With a loss, where the kind of module wants one and the diagnostic has one."""
    made = make()
    takes_loss = offers(made, DiagnosticProtocol.loss)
    if kind == "given_loss" or (kind == "manual" and takes_loss):
        return make(loss=given_loss) if takes_loss else made
    return made


@lru_cache(maxsize=64)
def _bare(setting: _Setting) -> dict[str, str]:
    return _fit(setting)


def _fit(setting: _Setting, *callbacks: Callback) -> dict[str, str]:
    """Everything that there is to see after a training."""
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
        points = [point for point in logger.points if point[0].startswith(("user/", "val/"))]
        seen = {f"the process's {name}": text for name, text in random_states().items()}
    seen |= seen_state(module) | {f"trainer.optimizers[0].{_LR}": _rates(trainer)}
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
