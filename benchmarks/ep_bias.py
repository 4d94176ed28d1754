"""How far the update of equilibrium propagation is from the gradient, by the strength of the nudge.

    python benchmarks/ep_bias.py

Prints the relative error of the gradient of `layers.1.weight` against backpropagation through the
relaxation, median over seeds: EnergyMLP 20-16-12-5, tanh, linear readout, 200 steps, float64.
"""

import argparse
import statistics

import torch

from lit_credit.models import EnergyMLP
from lit_credit.rules import BP, CreditRule, EquilibriumPropagation
from lit_credit.tasks import Classification

STEPS = 200


def gradient(rule: CreditRule, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The update of the second layer's weight."""
    weight = rule.net.get_parameter("layers.1.weight")
    (found,) = torch.autograd.grad(rule.surrogate(batch)[1], [weight])
    return found


def error(nudging: str, beta: float, seed: int) -> float:
    """The relative error of one net on one batch."""
    torch.manual_seed(seed)
    net = EnergyMLP(20, [16, 12], 5, activation="tanh", steps=STEPS).double()
    batch = torch.randn(16, 20).double(), torch.randint(5, (16,))
    options = {"nudging": nudging, "beta": beta, "nudged_steps": STEPS}
    exact = gradient(BP(net, Classification(5)), batch)
    found = gradient(EquilibriumPropagation(net, Classification(5), **options), batch)
    return float((found - exact).norm() / exact.norm())


def main() -> None:
    """Print a line for each kind of nudging."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--betas", type=float, nargs="+", default=[0.8, 0.4, 0.2, 0.1, 0.001])
    options = parser.parse_args()
    print(f"{'nudging':12}" + "".join(f"{beta:>10}" for beta in options.betas))
    for nudging in ("one_sided", "symmetric"):
        errors = [
            statistics.median(error(nudging, beta, seed) for seed in options.seeds)
            for beta in options.betas
        ]
        print(f"{nudging:12}" + "".join(f"{value:10.2g}" for value in errors))


if __name__ == "__main__":
    main()
