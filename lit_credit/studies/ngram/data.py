"""n-grams to predict the last symbol of, drawn or all at once."""

from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Generator, Tensor

from lit_credit.datamodules.tensor_datamodule import TensorDataModule
from lit_credit.datamodules.tensor_loader import Batch, TensorLoader, Transform
from lit_credit.inspect.contexts import Contexts
from lit_credit.protocols import NetProtocol, asked
from lit_credit.studies.ngram.distributions import NGramDistribution, live_contexts
from lit_credit.studies.ngram.functions import (
    conditional_entropy,
    max_accuracy,
    random_baseline,
)
from lit_credit.utils.random_state import generator_of
from lit_credit.utils.ranges import check_choice, check_range, check_sizes

__all__ = ["NGram"]


_TABLES = (0, 0, 0, 1)
"""Key of random numbers, after the seed. Keys of batches have at most three words."""


class NGram(TensorDataModule):
    """Contexts of n - 1 symbols, and the symbols that follow them.

    A batch is (x, y, rows, weight): contexts x, int64 (B, n - 1); the symbol y that followed; the
    distribution ``rows`` of the next symbol, (B, V); the weight of each sample in the loss, (B,),
    with a mean of one. Validation and test data are all contexts that occur, in one batch, weighted
    by their probability.

    Args:
        distribution: of the n-grams.
        mode: ``sampled`` draws contexts and symbols y, int64 (B,), anew for each batch; all weights
            are one. ``exact`` trains on all contexts at every update, with y the rows: no noise.
        batch_size: samples in a training batch, over all devices together; mode ``exact`` ignores
            it.
        steps_per_epoch: training batches in an epoch; the run validates after each.
        distribution_seed: seed of the distribution; None takes ``seed``.
        seed: seed of everything drawn; None takes the one given to ``seed_everything``, or 0 if
            there was none. A resumed run keeps the one it had.

    Raises:
        ValueError: if an argument is out of range, or, in ``setup``, if the net has not as many
            symbols or positions as the data.

    Example:
        >>> from lit_credit.studies.ngram import LastPosition
        >>> data = NGram(LastPosition(vocab_size=10), batch_size=4)
        >>> [tuple(part.shape) for part in next(iter(data.train_dataloader()))]
        [(4, 2), (4,), (4, 10), (4,)]
        >>> [tuple(part.shape) for part in next(iter(data.val_dataloader()))]
        [(100, 2), (100, 10), (100, 10), (100,)]

    Reference:
        Dana, Pydi, Chevaleyre, Memorization in Attention-only Transformers, 2024, arXiv 2411.10115.
    """

    has_test_data = False

    def __init__(
        self,
        distribution: NGramDistribution,
        mode: Literal["sampled", "exact"] = "sampled",
        batch_size: int = 1024,
        steps_per_epoch: int = 100,
        distribution_seed: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, batch_size, seed)
        check_choice(["sampled", "exact"], mode=mode)
        check_sizes(batch_size=batch_size)
        check_range(1, steps_per_epoch=steps_per_epoch)
        check_range(0, distribution_seed=distribution_seed)
        self.distribution = distribution
        self.mode = mode
        self.steps_per_epoch = steps_per_epoch
        self.distribution_seed = distribution_seed
        self._drawn: tuple[int, Contexts] | None = None

    def tables(self) -> list[Tensor]:
        """The conditionals pi, float64 (V,), (V, V), ..; see :class:`NGramDistribution`."""
        return self.distribution.tables(generator_of(self._tables_seed(), *_TABLES))

    def contexts(self) -> Contexts:
        """All contexts that occur: x (T, n - 1), their prior (T,) and rows (T, V), float64."""
        seed = self._tables_seed()
        if self._drawn is None or self._drawn[0] != seed:
            self._drawn = seed, live_contexts(self.tables())
        return self._drawn[1]

    def setup(self, stage: str | None = None) -> None:
        """Check that the net fits the data, and say how hard they are."""
        size, places = self.distribution.vocab_size, self.distribution.order - 1
        symbols = asked(self._net, NetProtocol.vocab_size, size)
        context = asked(self._net, NetProtocol.block_size, places)
        for argument, value, data, what in (
            ("vocab_size", symbols, size, "symbols"),
            ("block_size", context, places, "symbols of context"),
        ):
            if value != data:
                raise ValueError(
                    f"`{argument}` of the net is {value}, but the data have {data} {what}. Make "
                    "them equal."
                )
        if stage == "fit":
            _, prior, rows = self.contexts()
            rank_zero_info(
                f"NGram: {len(prior)} contexts, conditional entropy "
                f"{conditional_entropy(prior, rows):.4f} nats, kl of a uniform answer "
                f"{random_baseline(prior, rows):.4f}, largest accuracy "
                f"{max_accuracy(prior, rows):.4f}"
            )

    def train_dataloader(self) -> TensorLoader:
        """Samples drawn anew, or all contexts at every update."""
        everything, exact = self._everything(), self.mode == "exact"
        count = len(everything[0]) if exact else self.batch_size
        fill: Transform = (lambda *_: everything) if exact else _Sampler(self.contexts())
        # The transform makes the batch; the loader gives it a generator, and takes our share.
        return self.loader([torch.zeros(1)], count, fill, draws=self.steps_per_epoch)

    def val_dataloader(self) -> TensorLoader:
        """All contexts in a mixed order, so that the first rows are contexts of all kinds."""
        everything = self._everything()
        count = len(everything[0])
        order = torch.randperm(count, generator=Generator().manual_seed(0))
        return self.loader([part[order] for part in everything], count)

    def test_dataloader(self) -> TensorLoader:
        """All contexts."""
        return self.val_dataloader()

    def _tables_seed(self) -> int:
        return self._seed() if self.distribution_seed is None else self.distribution_seed

    def _everything(self) -> Batch:
        x, prior, rows = self.contexts()
        # Each process gets as many samples; what fills the last share up has no weight.
        filling = -len(x) % (self.trainer.world_size if self.trainer else 1)
        index = torch.arange(len(x) + filling).clamp(max=len(x) - 1)
        weight = torch.cat([prior, prior.new_zeros(filling)]) * len(index)
        rows = rows[index].float()
        return x[index], rows, rows, weight.float()


class _Sampler:
    """Draws contexts and what follows them, as a transform of a :class:`TensorLoader`."""

    def __init__(self, contexts: Contexts) -> None:
        self.x, prior, rows = contexts
        self.rows = rows.float()
        pairs = (prior[:, None] * rows).flatten()
        self.cdf = pairs.cumsum(0)
        self.last = int(pairs.nonzero()[-1])

    def __call__(self, batch: Batch, generator: Generator) -> Batch:
        """As many samples as the batch has rows."""
        count = len(batch[0])
        # The inverse of the distribution function of (context, symbol): one number a sample, where
        # torch.multinomial would go through every entry of every sample's row.
        u = torch.rand(count, generator=generator, dtype=torch.float64) * self.cdf[-1]
        pair = torch.searchsorted(self.cdf, u, right=True).clamp_(max=self.last)
        size = self.rows.shape[1]
        context = pair // size
        rows = self.rows.index_select(0, context)
        return self.x.index_select(0, context), pair % size, rows, torch.ones(count)
