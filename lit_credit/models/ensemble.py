"""An ensemble of nets of one architecture, trained together."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lit_credit.protocols import NetProtocol, asked
from lit_credit.utils.private_names import own_parameters
from lit_credit.utils.random_state import run_seed
from lit_credit.utils.ranges import check_parts, check_range

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """E nets of one architecture and different seeds, run at once on the same batch.

    Parameters are stacked, (E, ...), and the forward pass is mapped over them: E small nets take
    little longer than one. All members share the batches. If an optimizer works entry by entry, as
    Adam does, and minimises the sum of the members' losses, each member learns as it would alone.
    See :class:`lit_credit.tasks.EachMember` for the loss.

    Args:
        net: makes a member; in YAML, the class of the net and its arguments.
        members: number E of nets.
        first_seed: member i is initialised as after ``seed_everything(first_seed + i)``; None takes
            the seed of the run.
        compile: compile the forward pass of all members with ``torch.compile``.

    Raises:
        ValueError: if there is no member, or a buffer differs between members.

    Example:
        >>> net = Ensemble(lambda: nn.Linear(3, 2), members=8)
        >>> net(torch.zeros(5, 3)).shape
        torch.Size([8, 5, 2])
        >>> net.member(7)
        Linear(in_features=3, out_features=2, bias=True)
    """

    seeds: Tensor

    def __init__(
        self,
        net: Callable[[], nn.Module],
        members: int = 8,
        first_seed: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        check_parts(members=members)
        check_range(first_seed=first_seed)
        first = run_seed() if first_seed is None else first_seed
        # A part of the state, so that a loaded ensemble knows the seeds of its members.
        self.register_buffer("seeds", torch.arange(first, first + members))
        self.make_net = net
        nets = [self._drawn(seed) for seed in self.seeds.tolist()]
        # The first net holds the stacked parameters under their names, and the shared buffers.
        _check_buffers(nets)
        self.stacked = nets[0]
        for name, parameter in list(self.stacked.named_parameters()):
            each = torch.stack([one.get_parameter(name).detach() for one in nets])
            _replace(self.stacked, parameter, nn.Parameter(each, parameter.requires_grad))
        self.layout = asked(self.stacked, NetProtocol.layout, None)
        self._run = torch.compile(self._mapped) if compile else self._mapped

    def forward(self, *inputs: Any) -> Tensor:
        """The members' outputs, (E, ...), on the same inputs."""
        outputs: Tensor = self._run(self._parameters_by_place(), *inputs)
        return outputs

    def member(self, index: int) -> nn.Module:
        """A copy of one member as an ordinary net, with the ensemble's device and precision."""
        own = next(self.stacked.parameters(), torch.empty(0, device=self.seeds.device))
        net = self._drawn(int(self.seeds[index])).to(own)
        net.load_state_dict(self.member_state(index))
        return net

    def member_state(self, index: int) -> dict[str, Tensor]:
        """The ``state_dict`` of one member."""
        parameters = dict(self.stacked.named_parameters(remove_duplicate=False))
        return {
            name: (value[index] if name in parameters else value).clone()
            for name, value in self.stacked.state_dict().items()
        }

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Clip each member's gradients to a norm of ``max_norm``; returns the norms before (E,)."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norms = (
            torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients]).sum(0).sqrt()
        )
        scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)  # as in torch's `clip_grad_norm_`
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
        return norms

    def _mapped(self, parameters: dict[str, Tensor], *inputs: Any) -> Tensor:
        def run(one: dict[str, Tensor]) -> Tensor:
            output: Tensor = functional_call(self.stacked, one, inputs, tie_weights=False)
            return output

        outputs: Tensor = torch.vmap(run)(parameters)
        return outputs

    def _parameters_by_place(self) -> dict[str, Tensor]:
        # A parameter shared by two modules has two entries; a module with two names has one. With
        # `tie_weights`, functional_call would restore the wrong tensor in such a module.
        return {
            f"{name}.{own}".lstrip("."): parameter
            for name, child in self.stacked.named_modules()
            for own, parameter in child.named_parameters(recurse=False)
        }

    def _drawn(self, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make_net()


def _check_buffers(nets: Sequence[nn.Module]) -> None:
    first = dict(nets[0].named_buffers())
    for net in nets[1:]:
        for name, value in net.named_buffers():
            if not torch.equal(value, first[name]):
                raise ValueError(
                    f"`net` makes nets whose buffer `{name}` depends on the seed, but an ensemble "
                    "stacks parameters alone. Make it a parameter that is not trained."
                )


def _replace(net: nn.Module, old: nn.Parameter, new: nn.Parameter) -> None:
    """Replace a parameter by another in all modules that have it."""
    for child in net.modules():
        for name, parameter in own_parameters(child).items():
            if parameter is old:
                setattr(child, name, new)
