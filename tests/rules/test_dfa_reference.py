"""DFA from YAML against the study's algorithm as a loop written by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from lit_credit.cli import main
from lit_credit.datamodules import Digits
from lit_credit.feedback import derive_seed, draw_feedback
from lit_credit.models import ResidualMLP
from tests.support import seeded


def study_loop(net, epochs, matrices):
    """Two forwards, and one loss, one optimizer and one scheduler for each part of the net."""
    parts = [net.embed, *net.blocks, nn.ModuleList([net.out_ln, net.out_head])]
    optimizers = [
        torch.optim.AdamW(part.parameters(), lr=1e-3, weight_decay=0.01) for part in parts
    ]
    schedulers = [torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=100) for o in optimizers]
    for batches in epochs:
        for x, y in batches:
            losses = study_losses(net, x.flatten(1), y, matrices)
            for loss, part, optimizer in zip(losses, parts, optimizers, strict=True):
                optimizer.zero_grad()
                loss.backward()
                if part in net.blocks:
                    nn.utils.clip_grad_norm_(part.parameters(), 1.0)
                optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def study_losses(net, x, y, matrices):
    with torch.no_grad():
        hidden = [net.embed(x)]
        for block in net.blocks:
            hidden.append(hidden[-1] + block(hidden[-1]))
        error = net.out_head(net.out_ln(hidden[-1])).softmax(-1)
        error[torch.arange(len(y)), y] -= 1
        credits = [error @ matrix.T for matrix in matrices]
        credits = [a / (a.pow(2).mean(-1, keepdim=True).sqrt() + 1e-6) for a in credits]
    local = [
        (block(h) * a).sum(-1).mean()
        for block, h, a in zip(net.blocks, hidden, credits, strict=False)
    ]
    embed = (net.embed(x) * credits[0]).sum(-1).mean()
    return [embed, *local, F.cross_entropy(net.out_head(net.out_ln(hidden[-1])), y)]


def test_dfa_from_yaml_equals_the_loop_after_20_steps(tmp_path):
    args = ["fit", "--config", "configs/residual_explosion/dfa.yaml"]
    args += ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"]
    args += ["--trainer.enable_progress_bar", "false", "--trainer.max_steps", "20"]
    assert main(args) == 0
    saved = tmp_path / "DFA" / "seed_42" / "checkpoints" / "last.ckpt"
    trained = torch.load(saved, weights_only=True)["state_dict"]

    net = seeded(lambda: ResidualMLP(64))
    start = {name: value.clone() for name, value in net.state_dict().items()}
    loader = Digits(seed=42, val_split=0).train_dataloader()
    epochs = [list(loader), list(loader)[:8]]
    assert len(epochs[0]) == 12
    matrices = [
        draw_feedback(
            (256, 10),
            fan_in=10,
            fan_out=256,
            distribution="normal",
            scale=1.0,
            seed=derive_seed(42, f"blocks.{index}"),
        )
        for index in range(4)
    ]
    study_loop(net, epochs, matrices)
    for name, value in net.state_dict().items():
        assert not torch.equal(value, start[name])
        torch.testing.assert_close(trained[f"net.{name}"], value, atol=1e-5, rtol=0)
