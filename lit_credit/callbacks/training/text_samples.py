"""Logging text that a language model samples during training."""

import sys
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Generator, Tensor

from lit_credit.functional import sample_tokens
from lit_credit.inspect.state.guard import guarded
from lit_credit.protocols import DataModuleProtocol, member_name, offers
from lit_credit.trainer.curves_again import continue_curves
from lit_credit.trainer.logging import log_text
from lit_credit.trainer.rank_zero import waiting_for_rank_zero
from lit_credit.trainer.trainer import check_trainer
from lit_credit.utils.both_packages import Callback
from lit_credit.utils.ranges import check_range

__all__ = ["TextSamples"]


class TextSamples(Callback):
    """Logs sampled text to TensorBoard after every validation, and prints it when predicting.

    The tag is ``samples/text``. The datamodule converts text to symbols and back: it must have
    ``encode(text) -> Tensor`` and ``decode(symbols) -> str``. The module is called with symbols
    (1, T) and returns logits (1, T, V). Sampling runs in eval mode on rank zero, with its own
    generator: training is not changed by a single bit.

    Costs ``length`` forward passes of one sequence.

    Args:
        prompt: text that every sample continues, in characters of the data.
        length: number of symbols to sample.
        temperature: below 1 sharpens the distribution, above 1 flattens it; 0 takes the most likely
            symbol.
        context: largest number of symbols that the module is given; None takes the ``block_size``
            of the datamodule.
        seed: seed of the generator; every sample starts from it.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        prompt: str = "\n",
        length: int = 200,
        temperature: float = 0.8,
        context: int | None = None,
        seed: int = 0,
    ) -> None:
        if not prompt:
            raise ValueError("`prompt` is empty; give at least one character, such as a newline.")
        check_range(1, 10**6, length=length)
        check_range(1, context=context)
        check_range(0, temperature=temperature)
        check_range(seed=seed)
        self.prompt = prompt
        self.length = length
        self.temperature = temperature
        self.context = context
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the datamodule has an alphabet with the prompt's characters."""
        check_trainer(trainer, type(self).__name__)
        data = _datamodule(trainer)
        needed = (DataModuleProtocol.encode, DataModuleProtocol.decode)
        lacking = [member_name(member) for member in needed if not offers(data, member)]
        if lacking or (self.context is None and not offers(data, DataModuleProtocol.block_size)):
            raise MisconfigurationException(
                f"TextSamples needs a datamodule with {' and '.join(lacking) or 'block_size'}, "
                f"which {type(data).__name__} does not have. Use CharText, give your datamodule "
                "encode(text) and decode(symbols), and set `context` if it has no `block_size`."
            )
        data.encode(self.prompt)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a resumed run write each sample only once."""
        continue_curves(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a sample to TensorBoard."""
        if not trainer.loggers or trainer.sanity_checking:
            return
        with waiting_for_rank_zero(trainer, type(self).__name__):
            if trainer.is_global_zero:
                text = self.sample(trainer, pl_module)
                # Four spaces make a block of Markdown in which every character stays as it is.
                block = "".join(f"    {line}\n" for line in text.split("\n"))
                log_text(trainer, "samples/text", block, trainer.global_step)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a sample to stdout."""
        if trainer.is_global_zero:
            sys.stdout.write(self.sample(trainer, pl_module) + "\n")

    def sample(self, trainer: Trainer, module: LightningModule) -> str:
        """The prompt and its continuation, or n/a if the net's logits are undefined."""
        data = _datamodule(trainer)
        try:
            with guarded(module, trainer), torch.no_grad():
                symbols = sample_tokens(
                    lambda x: _defined(module(x)),
                    data.encode(self.prompt).to(module.device),
                    self.length,
                    self.context or data.block_size,
                    self.temperature,
                    Generator().manual_seed(self.seed),
                )
        except _UndefinedError:
            return f"{self.prompt} (n/a: the net's logits are not finite)"
        return self.prompt + str(data.decode(symbols))


class _UndefinedError(Exception):
    """Logits without a distribution."""


def _defined(logits: Tensor) -> Tensor:
    # -inf is allowed: it rules out a symbol.
    if bool((logits.isnan() | logits.isposinf()).any()):
        raise _UndefinedError
    return logits


def _datamodule(trainer: Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
