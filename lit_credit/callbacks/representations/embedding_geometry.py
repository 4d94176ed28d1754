"""The diagnostic ``EmbeddingGeometry``: how embeddings share the dimensions of the stream."""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.contexts import ContextDiagnostic
from lit_credit.callbacks.base.failures import missing
from lit_credit.callbacks.representations.geometry_figure import (
    Geometry,
    chained,
    geometry_figure,
)
from lit_credit.functional import (
    cosine_matrix,
    feature_dimensionality,
    mean_squared_cosine,
    welch_bound,
)
from lit_credit.inspect.attention.head_weights import find_embedding
from lit_credit.inspect.capture import Point
from lit_credit.inspect.matrices import find_unembedding, read_matrices
from lit_credit.runs.history import Row

__all__ = ["EmbeddingGeometry"]

_MOST_SHOWN = 128


class EmbeddingGeometry(ContextDiagnostic):
    r"""How do more vectors than dimensions share the stream? Superposition, weight by weight.

    Logs for every matrix, whose rows are the vectors (an embedding (V, d), an unembedding (V, d)):

    - ``geometry/cos2/<name>``: mean squared cosine over all pairs, and ``geometry/welch/<name>``,
      the smallest value that is possible for as many vectors;
    - ``geometry/dimensionality/<name>``: the share of a dimension that a vector has to itself, mean
      over vectors, and ``dimensionality_min/..``, ``dimensionality_max/..``;
    - ``geometry/norm/<name>``: mean length of a vector.

    Vectors of length zero are left out; all values are NaN if a vector is not finite. If the
    datamodule offers ``contexts()`` (see :class:`lit_credit.inspect.contexts.Contexts`), it logs
    the same for the vectors that the unembedding reads after each context, under the name
    ``contexts``, and

    - ``geometry/target_cosine``: their cosine with the unembedding vector of the likeliest symbol,
      mean over contexts by their prior;
    - ``geometry/target_nearest``: how often no other unembedding vector has a larger cosine.

    At the end of fit it draws cos^2 of the last measurement against its bounds, and the cosines of
    at most 128 vectors with each other: vectors of a weight each beside the nearest that is left,
    contexts sorted by their likeliest symbol.

    Costs O(V d^2) per matrix, and one forward on all contexts.

    See :class:`lit_credit.callbacks.ContextDiagnostic` for the other arguments.

    Args:
        unembedding: name of the ``nn.Linear`` that makes the logits; None takes the module's last.
        units: names or patterns of matrices; None takes the token embedding and the unembedding.

    Raises:
        ValueError: if a name matches nothing.
        MisconfigurationException: if there is neither an embedding nor an ``nn.Linear``, or the
            module does not run on the datamodule's contexts.

    Example::

        trainer = Trainer(callbacks=[EmbeddingGeometry(units=["embed.token", "head"])])

    Reference:
        Elhage et al., Toy Models of Superposition, 2022, arXiv 2209.10652.
    """

    name = "embedding_geometry"
    section = "geometry"
    charts = ("cos2", "welch", "dimensionality", "norm")
    options = ("unembedding",)
    needs_contexts = False

    def __init__(
        self,
        *,
        unembedding: str | None = None,
        units: list[str] | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        figure: bool = True,
    ) -> None:
        super().__init__(
            units=units,
            every_n_epochs=every_n_epochs,
            every_n_steps=every_n_steps,
            figure=figure,
        )
        self.unembedding = unembedding
        self._names: list[str] = []
        self._point: Point | None = None
        self._shown: dict[str, Geometry] = {}

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the matrices."""
        out = find_unembedding(module, self.unembedding)
        self._names = self.units or [n for n in (find_embedding(module), out) if n is not None]
        if not self._names:
            raise missing(self, module, "an nn.Embedding or an nn.Linear", "Set `units`.")
        read_matrices(module, self._names)
        self._point = None if out is None else Point(out, "input")

    def reset(self) -> None:
        """Forget vectors and matrices."""
        super().reset()
        self._matrices: dict[str, Tensor] = {}
        self._weight = torch.empty(0)

    def update(self, chunk: Chunk) -> None:
        """Read the matrices, and add the vectors of some contexts."""
        self._matrices = read_matrices(chunk.module, self._names)
        if self._point is None or not len(chunk.contexts.x):
            return
        _, vectors = chunk.logits(self._point)
        weight = chunk.module.get_submodule(self._point.module).weight
        if vectors is not None and isinstance(weight, Tensor):
            self._weight = weight.detach()
            self.gathered.add("vectors", vectors)

    def compute(self) -> dict[str, float]:
        """``<quantity>/<name>`` and ``target_..``."""
        self._shown = {}
        values: dict[str, float] = {}
        for name, vectors in self._matrices.items():
            values |= self._of_vectors(name, vectors, "vector")
        if "vectors" in self.gathered:
            values |= self._of_contexts(self.gathered["vectors"], self._weight)
        return values

    def _of_vectors(self, name: str, vectors: Tensor, what: str) -> dict[str, float]:
        w = vectors.to(torch.complex128 if vectors.is_complex() else torch.float64)
        w = w[w.norm(dim=1) != 0]  # vectors that are not finite stay: they make all values NaN
        count, width = w.shape
        own = feature_dimensionality(w)
        found = {
            "cos2": mean_squared_cosine(w).item(),
            "welch": welch_bound(count, width) if count > 1 else math.nan,
            "norm": w.norm(dim=1).mean().item() if count else math.nan,
        }
        for tag, reduce in (("", Tensor.mean), ("_min", Tensor.min), ("_max", Tensor.max)):
            found[f"dimensionality{tag}"] = reduce(own).item() if count else math.nan
        some = w[torch.linspace(0, count - 1, min(count, _MOST_SHOWN), device=w.device).long()]
        cosines = cosine_matrix(some).real.cpu()
        order = "contexts, by likeliest symbol"
        if what == "vector":
            order = "vectors, each beside its nearest"
            chain = chained(cosines)
            cosines = cosines[chain][:, chain]
        self._shown[name] = Geometry(found["cos2"], found["welch"], width, cosines, order)
        return {f"{quantity}/{name}": value for quantity, value in found.items()}

    def _of_contexts(self, vectors: Tensor, weight: Tensor) -> dict[str, float]:
        target = self.contexts.rows.argmax(1).to(vectors.device)
        prior = self.contexts.prior.to(vectors.device).double()
        cosines = F.normalize(vectors.double(), eps=0) @ F.normalize(weight.double(), eps=0).mT
        own = cosines.gather(1, target[:, None])[:, 0]
        values = self._of_vectors("contexts", vectors[target.argsort(stable=True)], "context")
        values["target_cosine"] = (prior * own).sum().item()
        # Another symbol without a direction is never the nearest. If the target itself has no
        # direction, the value is NaN.
        nearest = (own >= cosines.nan_to_num(-1.0).amax(1)).double()
        nearest = nearest.masked_fill(own.isnan(), math.nan)
        values["target_nearest"] = (prior * nearest).sum().item()
        return values

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """cos² against its bounds, and the cosines of all pairs, at the last measurement."""
        if not self._shown:  # a resumed run that had ended: nothing was measured
            return None
        return geometry_figure(self._shown, title=f"Geometry of vectors, step {rows[-1]['step']}")
