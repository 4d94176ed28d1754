"""The base class of diagnostics that pass over the probe several times."""

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.probe import ProbeDiagnostic

__all__ = ["WholeProbeDiagnostic"]


class WholeProbeDiagnostic(ProbeDiagnostic):
    """A diagnostic that keeps the chunks, for passes over all of them in ``compute``.

    See :class:`lit_credit.callbacks.ProbeDiagnostic` for the arguments.
    """

    def reset(self) -> None:
        """Forget the chunks."""
        super().reset()
        self.kept: list[Chunk] = []

    def update(self, chunk: Chunk) -> None:
        """Keep the chunk; ``compute`` runs it."""
        self.kept.append(chunk)
