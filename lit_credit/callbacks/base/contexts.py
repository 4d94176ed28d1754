"""The base class of diagnostics that run the module on all contexts of a known distribution."""

from collections.abc import Iterator
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.inspect.contexts import (
    NO_CONTEXTS,
    Contexts,
    has_contexts,
    live_contexts,
    read_contexts,
    split_contexts,
)
from lit_credit.utils.names import check_units

__all__ = ["ContextDiagnostic"]


class ContextDiagnostic(Diagnostic):
    """A diagnostic that runs the module on all contexts from the datamodule's ``contexts()``.

    See :class:`Contexts`. Contexts that never occur, with a prior of 0, are left out. The others
    pass in chunks of some thousands.

    See :class:`lit_credit.callbacks.Diagnostic` for the other arguments.

    Args:
        units: names or glob patterns of submodules; None takes those that the diagnostic is about.

    Raises:
        ValueError: if ``units`` is empty or not a list.
        MisconfigurationException: in ``setup``, if the datamodule has no contexts.
    """

    needs_contexts: ClassVar[bool] = True
    """Whether the datamodule must have contexts."""

    def __init__(
        self,
        *,
        units: list[str] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        check_units(units)
        self.units = units
        self.contexts = NO_CONTEXTS

    @property
    def arguments(self) -> dict[str, Any]:
        """All arguments that affect the rows, by name."""
        return super().arguments | {"units": self.units}

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Check that there are contexts."""
        if self.needs_contexts:
            self.check(module, read_contexts(trainer))

    def check(self, module: LightningModule, contexts: Contexts) -> None:
        """Refuse contexts that this module cannot be measured on."""

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Read the contexts here: a resumed run sets the data's seed only after ``setup``."""
        asked = self.needs_contexts or has_contexts(trainer)
        self.contexts = live_contexts(read_contexts(trainer)) if asked else NO_CONTEXTS

    def chunks(self, module: LightningModule) -> Iterator[Chunk]:
        """The contexts, some thousands at a time."""
        total = len(self.contexts.prior)
        for part in split_contexts(self.contexts):
            rows = len(part.prior)
            yield Chunk(module, rows=rows, share=rows / max(total, 1), contexts=part)
