"""The study's own diagnostic: how a small net adds."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_credit.callbacks.base.chunk import Chunk
from lit_credit.callbacks.base.diagnostic import Diagnostic
from lit_credit.callbacks.base.failures import missing
from lit_credit.headlines import Headline, Panel
from lit_credit.protocols import NetProtocol, offers
from lit_credit.runs.checkpoints import rows_beside
from lit_credit.runs.foreign_weights import part_of
from lit_credit.runs.history import Row
from lit_credit.runs.table import TableRow
from lit_credit.runs.weight_files import read_saved
from lit_credit.studies.addition.findings import (
    AdderFindings,
    SumProbe,
    adder_findings,
    adder_tables,
    draw_probe,
)
from lit_credit.studies.addition.functions import best_ratio
from lit_credit.studies.addition.sheet import adder_sheet
from lit_credit.utils.names import check_units, matched_units, submodule_names
from lit_credit.utils.ranges import check_range, check_sizes

__all__ = ["AdderAnatomy"]


_RATIOS = (0.0, 0.02, 0.05, 0.07, 0.08, 0.09, 0.095, 0.1, 0.105, 0.11, 0.12, 0.13, 0.15, 0.2)


class AdderAnatomy(Diagnostic):
    r"""How a one-layer net adds, and which sums it gets wrong: a sheet of six panels, and tables.

    The row that predicts digit i of Z attends to X_i and Y_i and, at a ratio :math:`\rho` of about
    a tenth, to X_(i-1), Y_(i-1) and Z_(i-1): x + y + c_in - z = 10 c_out, so that the column below
    says whether it passed a carry on. Logs, of sums drawn once, always the same:

    - ``adder/exact``, ``adder/token_accuracy``: shares of right sums, and of right answers, "EOS"
      among them, of the uniform sums;
    - ``adder/error/Z00`` ..: share of wrong digits in a column of uniform sums;
    - ``adder/off_by_one``: of the wrong digits, the share that is one too high or too low modulo
      10; ``adder/carry_errors``: those of them that are one too low where a carry comes in, or one
      too high where none does: the carry was missed, or made up;
    - ``adder/run/R00`` ..: share of right sums by their longest run of carries, of all sums;
    - ``adder/ratio/Z01`` .., ``adder/ratio/mean``: :math:`\rho` of every column that has one;
    - ``adder/forced/best``: the ratio which, forced on all those columns, gets most sums right;
    - ``adder/without/X`` ..: share of right sums if that source of the column below is not read;
    - ``adder/linearity``: R^2 of what attention reads of a digit with the digit.

    At the end of fit, ``validate`` and ``test`` it writes the sheet, and all numbers as tables
    ``adder_anatomy_<name>.csv``: ``columns`` (errors and ratios), ``runs``, ``sources`` of each
    answer, ``forced`` ratios, ``differences`` (wrong digits by how much they are off), ``digits``
    (embedding, and what attention reads of it), ``positions`` (queries and keys), ``features``
    (what attention reads and writes, gains of the norms). The panel over training needs the run's
    own history, in the checkpoint that is tested or in ``adder_anatomy.jsonl`` or ``metrics.jsonl``
    of its folder.

    Costs 18 forward passes on ``n_samples`` sums, of answer rows only: half a second for 10,000;
    the sheet takes three seconds, at the end only.

    See :class:`lit_credit.callbacks.Diagnostic` for the other arguments.

    Args:
        n_samples: uniform sums of all digits.
        n_chains: sums with a forced run of carries, of each length.
        ratios: those to force.
        reference: checkpoint of another run, whose gains of the norms are shown beside.
        units: names the net; None takes the first submodule that has ``layout``, ``parts()`` (see
            :class:`lit_credit.studies.addition.AdderParts`) and ``logits_with(tokens, attention)``.

    Raises:
        ValueError: if an argument is out of range, or, in ``setup``, if ``reference`` is not a
            checkpoint of such a net.
        MisconfigurationException: if the module has no such net, or an ensemble of them.

    Example::

        trainer = Trainer(callbacks=[AdderAnatomy(every_n_epochs=5)])
    """

    name = "adder_anatomy"
    section = "adder"
    headline = (
        Headline(
            "exact",
            form=".4f",
            better="up",
            panel=Panel("Sums that are right", "share of sums", reach=(0, 1)),
        ),
    )
    charts = ("error", "run", "ratio")
    reads_training = True
    options = ("n_samples", "units", "n_chains", "ratios", "reference")

    def __init__(
        self,
        *,
        n_samples: int = 10_000,
        n_chains: int = 100,
        ratios: list[float] | None = None,
        reference: str | None = None,
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
        check_range(1, n_samples=n_samples)
        check_sizes(n_chains=n_chains)
        if ratios is not None and not ratios:
            raise ValueError(f"`ratios` is {ratios}, expected one or more numbers, or None.")
        check_range(0, ratios=ratios)
        self.n_samples = n_samples
        self.units = units
        self.n_chains = n_chains
        self.ratios = list(_RATIOS if ratios is None else ratios)
        self.reference = reference
        self.findings: AdderFindings | None = None
        self._net = ""
        self._sums: SumProbe | None = None
        self._gains: dict[str, Tensor] = {}

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the net, and read the reference."""
        self._net = self._named(module)
        self.findings = self._sums = None
        if self.reference is not None:
            gains = cast(NetProtocol, module.get_submodule(self._net)).parts().gains
            self._gains = _reference_gains(self.reference, gains)

    def update(self, chunk: Chunk) -> None:
        """Run the net on the sums."""
        net: Any = chunk.module.get_submodule(self._net)
        if self._sums is None:
            self._sums = draw_probe(net.layout, self.n_samples, self.n_chains)
        self.findings = adder_findings(net, self._sums, self.ratios, self._gains)

    def compute(self) -> dict[str, float]:
        """All numbers, by tag."""
        if (found := self.findings) is None:
            return {}
        wrong = found.differences[:, 1:]
        return {
            "exact": found.exact,
            "token_accuracy": found.token_accuracy,
            **{f"error/Z{i:02d}": float(e) for i, e in enumerate(found.errors[:, 0])},
            "off_by_one": float(wrong[:, [0, -1]].sum() / wrong.sum()),
            "carry_errors": float((wrong[0, 0] + wrong[1, -1]) / wrong.sum()),
            **{f"run/R{i:02d}": float(e) for i, e in enumerate(found.runs)},
            **{f"ratio/Z{i:02d}": float(r) for i, r in enumerate(found.ratio, 1)},
            "ratio/mean": float(found.ratio.mean()),
            "forced/best": float(best_ratio(found.ratios, found.forced)),
            **{f"without/{name}": exact for name, exact in found.without.items()},
            "linearity": float(found.readout.linearity),
        }

    def draw(self, rows: Sequence[Row], section: str) -> Figure | None:
        """The sheet of the last measurement."""
        return None if self.findings is None else adder_sheet(self.findings, rows, section=section)

    def table(self, rows: Sequence[Row], section: str) -> Mapping[str, list[TableRow]]:
        """All numbers of the last measurement."""
        return {} if self.findings is None else adder_tables(self.findings)

    def earlier_rows(self, checkpoint: str, section: str) -> list[Row]:
        """The diagnostic's own rows, or what the validation has measured."""
        return super().earlier_rows(checkpoint, section) or _validation_rows(checkpoint, section)

    def _named(self, module: LightningModule) -> str:
        if any(offers(child, NetProtocol.member_state) for child in module.modules()):
            what = "one net"
            remedy = "Test the checkpoint of a member of the ensemble: see MemberCheckpoints."
            raise missing(self, module, what, remedy)
        names = submodule_names(module)
        if self.units is not None:
            names = matched_units(self.units, names)
        wanted = (NetProtocol.layout, NetProtocol.parts, NetProtocol.logits_with)
        for name in names:
            if offers(module.get_submodule(name), *wanted):
                return name
        what = "a submodule with `layout`, `parts()` and `logits_with(tokens, attention)`"
        raise missing(self, module, what, "Use MicroAdder, or give your net these.")


def _reference_gains(path: str, gains: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gains of a checkpoint's norms."""
    saved = read_saved(path, argument="reference")
    weights = {f"{name}.weight": gain for name, gain in gains.items()}
    same = part_of(saved, weights, f"`reference`: {path}")
    found = {name: same[key] for name in gains if (key := f"{name}.weight") in same}
    if not found:
        raise ValueError(
            f"`reference` is {path!r}, which has no weights of {', '.join(gains)} that fit. Give a "
            "checkpoint of a net of the same kind."
        )
    return found


def _validation_rows(checkpoint: str, section: str) -> list[Row]:
    """The metrics of a run's validation, under the tags of the diagnostic.

    A checkpoint ``M07_seed49.ckpt`` belongs to a member, whose metrics end in ``/M07``.
    """
    member = checkpoint.rpartition("/")[2].split("_")[0]
    rows = []
    for row in rows_beside(checkpoint, "metrics"):
        values = {}
        for tag in ("exact", "token_accuracy"):
            for key in (f"val/{tag}", f"val/{tag}/{member}"):
                if key in row["values"]:
                    values[f"{section}/{tag}"] = row["values"][key]
        rows.append({**row, "values": values})
    return rows
