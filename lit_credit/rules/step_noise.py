"""Noise of a training step that a resumed run draws again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_credit.rules.checkpoints.checkpointed import CheckpointedRule
from lit_credit.utils.private_names import trainer_of
from lit_credit.utils.random_state import generator_of

__all__ = ["StepNoise"]


class StepNoise(CheckpointedRule):
    """A rule whose noise depends on a seed and on the step alone.

    Checkpoints hold the seed, so that a resumed run draws the noise of the run that it goes on
    with. All processes draw the same numbers.

    Attributes:
        noise_seed: the seed; set in ``__init__``.
    """

    noise_seed: int
    _passes = 0  # counts steps without a Trainer

    def step_generator(self, stream: int) -> torch.Generator:
        """The generator of the current step's noise.

        Args:
            stream: tells a rule's noises from each other.
        """
        trainer = trainer_of(self)
        self._passes += 1
        step = self._passes if trainer is None else trainer.global_step
        return generator_of(self.noise_seed, step, stream)

    def noise_like(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """N(0, 1) in the shape of a tensor (N, ...): this process's rows of the global batch."""

        def draw(rows: int) -> Tensor:
            # The same numbers in every precision: Lightning's 64-true changes the default type.
            size = (rows, *value.shape[1:])
            return torch.randn(size, generator=generator, dtype=torch.float32)

        return self.own_rows(draw, len(value)).to(value)

    def own_rows(self, draw: Callable[[int], Tensor], rows: int) -> Tensor:
        """This process's rows of what is drawn for the global batch.

        Args:
            draw: called with the rows of the batches of all processes together.
            rows: rows of this process.
        """
        trainer = trainer_of(self)
        world, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        return draw(world * rows)[rank * rows : (rank + 1) * rows]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also save the seed of the noise."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["noise_seed"] = self.noise_seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the noise of the run that is resumed."""
        super().on_load_checkpoint(checkpoint)
        self.noise_seed = checkpoint.get("noise_seed", self.noise_seed)
