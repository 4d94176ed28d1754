"""Two processes, one of which meets a loss that is not finite, with finite gradients."""

import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from lit_credit.callbacks import FiniteGuard
from tests.callbacks.training.finite_nets import MARK, Automatic, Marked
from tests.support import tensors, trainer


class OfOneProcess(Automatic):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        marked = batch_idx == 2 and self.global_rank == 1
        return loss + (MARK * torch.inf if marked else 0.0)


def train(policy: str, folder: Path) -> None:
    module, guard = OfOneProcess(Marked), FiniteGuard(policy)
    strategy = DDPStrategy(process_group_backend="gloo")
    data = torch.utils.data.TensorDataset(*tensors(64))
    run = trainer(
        folder,
        guard,
        devices=2,
        strategy=strategy,
        logger=False,
        max_epochs=1,
        use_distributed_sampler=True,
    )
    message = ""
    try:
        run.fit(module, torch.utils.data.DataLoader(data, batch_size=8))
    except ValueError as error:
        message = str(error)
    found = {"message": message, "skipped": guard.skipped, "events": guard.events}
    found["weights"] = torch.cat([p.detach().flatten() for p in module.parameters()])
    found["step"] = run.global_step
    torch.save(found, folder / f"{policy}_{module.global_rank}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for one in ("skip", "raise"):
        train(one, Path(sys.argv[1]))
