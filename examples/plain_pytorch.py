"""A plain PyTorch loop trains one net by BP, by FA and by DFA, and asks how they align with BP.

No Lightning: ``lit_credit.feedback`` gives the net its fixed random matrices, and
``lit_credit.functional`` measures::

    python examples/plain_pytorch.py
"""

import json
from argparse import ArgumentParser
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lit_credit.feedback import (
    Broadcast,
    DirectFeedback,
    add_feedback,
    exact_backward,
    feedback_layers,
    local_units,
)
from lit_credit.functional import gradient_cosine, weight_angle

UNITS = ["hidden1", "hidden2"]  # what receives credit; the readout gets the true gradient
Loss = Callable[[Tensor, Tensor], Tensor]


class Net(nn.Sequential):
    """Two hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Sequential(nn.Linear(64, 128), nn.Tanh())
        self.hidden2 = nn.Sequential(nn.Linear(128, 128), nn.Tanh())
        self.readout = nn.Linear(128, 10)


def trained_by(rule: str, net: nn.Module) -> Loss:
    """The loss whose gradient is the rule's update; FA changes the net's backward, in place."""

    def true_loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(net(x), y)

    direct = Broadcast(DirectFeedback(UNITS, distribution="kaiming"))

    def direct_loss(x: Tensor, y: Tensor) -> Tensor:
        with local_units(net, UNITS) as graphs:  # no gradient passes from unit to unit
            logits = direct(net(x), graphs)  # the error at the logits goes to all of them
        return F.cross_entropy(logits, y)

    if rule == "FA":
        add_feedback(net, distribution="kaiming")
    return direct_loss if rule == "DFA" else true_loss


def alignment(net: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> dict[str, float]:
    """Cosine of each weight's update with the true gradient, and degrees between W and B."""
    weights = {name: p for name, p in net.named_parameters() if p.ndim == 2}
    own = torch.autograd.grad(loss(x, y), weights.values())
    with exact_backward(net):
        true = torch.autograd.grad(F.cross_entropy(net(x), y), weights.values())
    found = {
        f"cosine/{name}": gradient_cosine(a.reshape(1, -1), g.reshape(1, -1)).item()
        for name, a, g in zip(weights, own, true, strict=True)
    }
    for name, (b, w) in feedback_layers(net).items():
        found[f"angle/{name}"] = weight_angle(w, b).item()
    return found


def train(rule: str, start: nn.Module, out: Path, epochs: int) -> list[dict[str, float]]:
    """Train a copy of a net, and measure it before every epoch and at the end."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    order = torch.randperm(len(x))
    training, held_out = order[:1400], order[1400:]
    net = deepcopy(start)
    loss = trained_by(rule, net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    history = []
    with SummaryWriter(str(out / rule)) as board, (out / f"{rule}.jsonl").open("w") as file:
        for epoch in range(epochs + 1):
            row = alignment(net, loss, x[held_out], y[held_out])
            row["accuracy"] = (net(x[held_out]).argmax(1) == y[held_out]).float().mean().item()
            history.append(row)
            file.write(json.dumps({"epoch": epoch, **row}) + "\n")
            for tag, value in row.items():
                board.add_scalar(tag, value, epoch)
            if epoch == epochs:
                break
            for batch in training[torch.randperm(len(training))].split(50):
                optimizer.zero_grad()
                loss(x[batch], y[batch]).backward()
                optimizer.step()
    return history


def drawn(histories: dict[str, list[dict[str, float]]], tag: str) -> Figure:
    """A quantity over epochs, one curve a rule."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for rule, history in histories.items():
        ax.plot([row[tag] for row in history], label=rule)
    ax.set(xlabel="epoch", ylabel=tag, title="Update of the first layer against the true gradient")
    ax.legend()
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Train by all three rules, and say what was seen."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max_epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/examples/plain_pytorch"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    start = Net()
    histories = {r: train(r, start, options.out, options.max_epochs) for r in ("BP", "FA", "DFA")}
    first = "cosine/hidden1.0.weight"
    for rule, history in histories.items():
        before, after = history[0], history[-1]
        print(f"{rule:3}: accuracy {after['accuracy']:.1%}, ", end="")
        print(f"cosine of the first layer's update {before[first]:.2f} to {after[first]:.2f}")
    before, after = (histories["FA"][i]["angle/hidden2.0"] for i in (0, -1))
    print(f"FA's second weight and its feedback: {before:.1f} to {after:.1f} degrees")
    drawn(histories, first).savefig(options.out / "alignment.png", dpi=150)
    print(f"figure and histories: {options.out}\ntensorboard --logdir {options.out}")


if __name__ == "__main__":
    main()
