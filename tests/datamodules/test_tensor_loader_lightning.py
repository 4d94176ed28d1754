"""TensorLoader under a real Trainer."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_credit.datamodules import TensorLoader

# Lightning 2.6 with torch 2.14.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

EPOCHS, N, BATCH = 3, 23, 4


class Recorder(LightningModule):
    """Learns nothing, and remembers the epoch and the rows of every training batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch[0].tolist(), batch[1].tolist()))
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAt(Callback):
    """Save a checkpoint whenever one hook is called."""

    def __init__(self, hook, folder):
        self.folder, self.saved = folder, []
        setattr(self, hook, self._save)

    def _save(self, trainer, module, *_):
        if not trainer.sanity_checking:
            path = self.folder / f"{len(self.saved)}.ckpt"
            trainer.save_checkpoint(path)
            self.saved.append((path, len(module.seen)))


def transform(batch, generator):
    return *batch, torch.rand(len(batch[0]), generator=generator)


def fit(callbacks=(), ckpt_path=None, limit=1.0, **arguments):
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        limit_train_batches=limit,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    train = TensorLoader([torch.arange(N)], BATCH, seed=3, transform=transform)
    val = TensorLoader([torch.arange(4)], 2, shuffle=False)
    trainer.fit(module, train, val, ckpt_path=ckpt_path)
    return module.seen


def expected(batches):
    loader = TensorLoader([torch.arange(N)], BATCH, seed=3, transform=transform)
    return [
        (epoch, i, x.tolist(), noise.tolist())
        for epoch in range(EPOCHS)
        for i, (x, noise) in enumerate(loader)
        if i < batches
    ]


@pytest.mark.parametrize(("limit", "batches"), [(1.0, 6), (3, 3)])
def test_the_trainer_sees_what_a_plain_loop_sees(limit, batches):
    assert fit(limit=limit) == expected(batches)


@pytest.mark.parametrize(("limit", "batches"), [(1.0, 6), (3, 3)])
@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("on_train_batch_end", {}),
        ("on_train_epoch_end", {}),
        ("on_validation_end", {}),
        ("on_validation_end", {"val_check_interval": 2}),
    ],
)
def test_a_run_resumed_anywhere_sees_the_rest(tmp_path, hook, arguments, limit, batches):
    whole = expected(batches)
    save = SaveAt(hook, tmp_path)
    assert fit([save], limit=limit, **arguments) == whole
    assert save.saved
    for path, position in save.saved:
        assert fit(ckpt_path=path, limit=limit, **arguments) == whole[position:]


def test_new_loaders_each_epoch_change_nothing(tmp_path):
    assert fit(reload_dataloaders_every_n_epochs=1) == expected(6)
