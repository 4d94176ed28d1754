"""Optimizers that torch does not have as one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

__all__ = ["MuonAdamW"]


class MuonAdamW(Optimizer):
    """Muon for weight matrices and AdamW for all other parameters, as one optimizer.

    Muon replaces the momentum of a matrix by a nearby matrix whose singular values are about equal,
    so that an update uses all directions. It is defined for matrices alone, and the last layer is
    usually left to AdamW. A rule of lit_credit has one optimizer, so this class holds both.

    Muon takes the parameters with two dimensions in all groups that ``adamw_groups`` does not name.
    Its updates are scaled to the root mean square of AdamW's (``match_rms_adamw`` of
    ``torch.optim.Muon``), so both share the learning rate and the weight decay. Each parameter
    group becomes one group per algorithm, with the algorithm under the key ``algorithm``.

    Args:
        params: parameters, or parameter groups.
        lr: learning rate of both.
        weight_decay: decoupled weight decay of both.
        momentum: of Muon.
        betas: of AdamW.
        eps: of AdamW.
        adamw_groups: names of parameter groups that AdamW trains whole. A rule's groups are
            ``units``, ``readout`` and ``other``.

    Raises:
        ImportError: if this torch has no ``torch.optim.Muon`` (before 2.9).
        ValueError: if a number is out of its range.

    Example:
        >>> net = torch.nn.Linear(3, 2)
        >>> [group["algorithm"] for group in MuonAdamW(net.parameters()).param_groups]
        ['muon', 'adamw']

    Reference:
        K. Jordan and others, Muon: An optimizer for hidden layers in neural networks, 2024;
        J. Liu and others, Muon is Scalable for LLM Training, 2025, arXiv 2502.16982, eq. 4.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        adamw_groups: tuple[str, ...] = ("readout",),
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ImportError(
                f"`MuonAdamW` needs `torch.optim.Muon`, which torch {torch.__version__} does not "
                "have. Install torch 2.9 or later."
            )
        self._adamw_groups = frozenset(adamw_groups)  # before the base adds the groups
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**defaults, "betas": tuple(betas), "eps": eps})
        self._join()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add one group for each algorithm that has parameters in it.

        Args:
            param_group: as any optimizer of torch takes it.
        """
        given = param_group["params"]
        parameters = [given] if isinstance(given, Tensor) else list(given)
        whole = param_group.get("name") in self._adamw_groups
        muon = [p for p in parameters if p.ndim == 2 and not whole]
        taken = {id(p) for p in muon}
        adamw = [p for p in parameters if id(p) not in taken]
        for algorithm, chosen in (("muon", muon), ("adamw", adamw)):
            if chosen:
                super().add_param_group({**param_group, "params": chosen, "algorithm": algorithm})
        if hasattr(self, "_parts"):
            self._join()

    def _join(self) -> None:
        """Make an optimizer per algorithm that shares groups and state with this one."""
        of = {
            name: [group for group in self.param_groups if group["algorithm"] == name]
            for name in ("muon", "adamw")
        }
        self._parts: list[Optimizer] = []
        if of["muon"]:
            muon = torch.optim.Muon(of["muon"], adjust_lr_fn="match_rms_adamw")
            self._parts.append(muon)
        if of["adamw"]:
            self._parts.append(AdamW(of["adamw"]))
        for part in self._parts:
            part.state = self.state

    def __getstate__(self) -> dict[str, Any]:
        """State for copies."""
        return {**super().__getstate__(), "_adamw_groups": self._adamw_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take groups and state, also those of a checkpoint."""
        super().__setstate__(state)
        self._join()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step of both.

        Args:
            closure: computes the loss and its gradients again.

        Returns:
            What ``closure`` returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss
