"""Comparing what runs know: linear CKA between their layers, on one probe."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from lit_credit.comparison.groups import Group
from lit_credit.comparison.texts import Table
from lit_credit.functional.representations import cka_matrix
from lit_credit.plotting._style import INK, LARGE, NORMAL, verbatim
from lit_credit.plotting.cka_heatmap import draw_cka
from lit_credit.runs.representations import SavedGrams, read_grams
from lit_credit.runs.run_folder import Run
from lit_credit.utils.paths import local_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Likeness", "likenesses", "representation_similarity", "similarity_figure"]

FILE = "representations.npz"
"""What `Representations` writes into the folder of a run."""
_MOST_LAYERS = 12
"""Layers in the printed table."""
_MOST_PANELS = 12
_COLUMNS = 4


def representation_similarity(run: str | Path, other: str | Path) -> npt.NDArray[np.float64]:
    """Linear CKA of every layer of a run with every layer of another run, on one probe.

    Both runs must have the callback :class:`lit_credit.callbacks.Representations`, whose last
    measurement is compared.

    Args:
        run: folder of a run.
        other: folder of another run.

    Returns:
        (l, m), from -1 to 1; NaN where a layer has no CKA.

    Raises:
        ValueError: if a folder has no representations, or the runs measured different probes.

    Reference:
        Kornblith, Norouzi, Lee, Hinton, Similarity of Neural Network Representations Revisited,
        2019, arXiv 1905.00414.
    """
    folders = [Path(local_path(folder, "RUN")) for folder in (run, other)]
    one, two = (read_grams(folder / FILE) for folder in folders)
    _check_probes({folders[0]: one, folders[1]: two})
    return _cka(one, two)


@dataclass(frozen=True, eq=False)
class Likeness:
    """What the runs of a group share with those of the reference.

    Attributes:
        label: of the group.
        reference: label of the reference.
        matrix: (l, m) CKA, layers of the reference by layers of the group, mean over pairs of runs.
        rows: names of the reference's layers.
        columns: names of the group's layers.
        pairs: number of pairs of runs.
    """

    label: str
    reference: str
    matrix: npt.NDArray[np.float64]
    rows: Sequence[str]
    columns: Sequence[str]
    pairs: int

    @property
    def head(self) -> str:
        """What is compared with the reference."""
        return f"{self.label}, other seeds" if self.label == self.reference else self.label

    def diagonal(self) -> dict[str, float]:
        """The CKA of equal layers, by tag."""
        return {f"cka/L{i:02d}": float(x) for i, x in enumerate(self.matrix.diagonal())}


def likenesses(
    groups: Mapping[str, Group], reference: str | None = None
) -> tuple[list[Likeness], list[str]]:
    """Compare the runs of every group with those of a reference.

    Runs of equal seeds are paired; without any, the first ones. The reference itself is compared
    between its seeds, which shows how much of a difference is due to the seed.

    Args:
        groups: groups by label.
        reference: label of a group; None takes the first one with representations.

    Returns:
        What was found, and notes on runs without representations.

    Raises:
        ValueError: if fewer than two runs have representations, the reference has none, or the runs
            measured different probes.
    """
    files = {run.folder: run.folder / FILE for group in groups.values() for run in group.runs}
    saved = {folder: read_grams(path) for folder, path in files.items() if path.is_file()}
    lacking = [str(folder) for folder in files if folder not in saved]
    if len(saved) < 2:
        raise ValueError(
            f"--representations: {len(saved)} of {len(files)} runs have {FILE}, expected two or "
            "more. Train with the callback Representations, or measure checkpoints with "
            "`lit-credit diagnose`."
        )
    having = {n: [r for r in g.runs if r.folder in saved] for n, g in groups.items()}
    having = {label: runs for label, runs in having.items() if runs}
    if reference is not None and reference not in having:
        raise ValueError(
            f"--baseline: {reference!r} has no finished run with {FILE}. Choose one of: "
            f"{', '.join(map(repr, having)):.400}."
        )
    label = next(iter(having)) if reference is None else reference
    _check_probes({r.folder: saved[r.folder] for r in [*having[label], *_all(having)]})
    found = [
        likeness
        for other, runs in having.items()
        if (likeness := _likeness(label, having[label], other, runs, saved)) is not None
    ]
    notes = [f"without {FILE}: {', '.join(lacking):.400}"] if lacking else []
    return found, notes


def _all(groups: Mapping[str, Sequence[Run]]) -> Iterator[Run]:
    return (run for runs in groups.values() for run in runs)


def _likeness(
    reference: str,
    own: Sequence[Run],
    label: str,
    runs: Sequence[Run],
    saved: Mapping[Path, SavedGrams],
) -> Likeness | None:
    """The likeness of one group to the reference; None for a reference of a single run."""
    if label == reference:
        pairs = list(combinations(own, 2))
    else:
        pairs = [(a, b) for a in own for b in runs if a.seed == b.seed] or [(own[0], runs[0])]
    if not pairs:
        return None
    first, second = (saved[run.folder] for run in pairs[0])
    matrices = [_cka(saved[a.folder], saved[b.folder]) for a, b in pairs]
    alike = [matrix for matrix in matrices if matrix.shape == matrices[0].shape]
    mean = np.mean(alike, axis=0)
    return Likeness(label, reference, mean, first.names, second.names, len(alike))


def _cka(one: SavedGrams, other: SavedGrams) -> npt.NDArray[np.float64]:
    return cka_matrix(torch.from_numpy(one.grams), torch.from_numpy(other.grams)).numpy()


def _check_probes(saved: Mapping[Path, SavedGrams]) -> None:
    """Refuse runs that were measured on different probes, or with different arguments."""
    (first, one), *others = saved.items()
    for folder, other in others:
        if one.digest != other.digest or not one.digest:
            raise ValueError(
                f"--representations: {first} and {folder} measured different probes, or read "
                f"them differently: {_probe(one)} and {_probe(other)}. Representations are "
                "compared sample by sample. Train both on the same validation data and in the same "
                "precision, with the same `n_samples`, `read` and `max_features` of "
                "Representations, or leave one of them out."
            )


def _probe(saved: SavedGrams) -> str:
    return f"digest {saved.digest or 'unknown'} of {saved.rows} rows"


def similarity_table(found: Sequence[Likeness]) -> Table:
    """The CKA of equal layers: a row for each group."""
    layers = min(len(likeness.diagonal()) for likeness in found)
    shown = np.unique(np.linspace(0, layers - 1, min(layers, _MOST_LAYERS)).round()).astype(int)
    heads = [f"CKA with {found[0].reference}", "pairs", *(f"L{i:02d}" for i in shown)]
    rows = [[of.head, str(of.pairs), *(_text(of.matrix[i, i]) for i in shown)] for of in found]
    return Table(heads, rows)


def _text(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "n/a"


def similarity_figure(found: Sequence[Likeness], title: str = "") -> "Figure":
    """Draw the heat map of each group's layers against those of the reference.

    Args:
        found: what :func:`likenesses` found; the first 12 are drawn.
        title: net and data in words.
    """
    from matplotlib.figure import Figure

    shown = found[:_MOST_PANELS]
    across = min(len(shown), _COLUMNS)
    down = math.ceil(len(shown) / across)
    figure = Figure(figsize=(4.0 * across + 0.8, 4.1 * down + 0.4), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    head = f"Linear CKA with {verbatim(found[0].reference)}{title and f': {title}'}"
    figure.suptitle(head, fontsize=LARGE, fontweight="bold", color=INK)
    for index, (ax, of) in enumerate(zip(axes, shown, strict=False)):
        is_last = index % across == across - 1 or index == len(shown) - 1
        draw_cka(ax, of.matrix, of.columns, of.rows, bar=is_last)
        ax.set_title(verbatim(of.head), loc="left", fontsize=NORMAL, fontweight="bold", color=INK)
        ax.set_xlabel(f"units of {verbatim(of.label)}", fontsize=NORMAL, color=INK)
        if index % across == 0:
            ax.set_ylabel(f"units of {verbatim(of.reference)}", fontsize=NORMAL, color=INK)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    return figure
