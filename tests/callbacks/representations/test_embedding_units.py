"""Units that begin with an embedding, whose input is symbols."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lit_credit.callbacks import CreditAlignment, GradientNorms, ReferenceValidity, ResidualNorms
from lit_credit.datamodules import TensorLoader
from lit_credit.rules import BP, DFA, BlockFA
from lit_credit.tasks import Classification
from tests.support import quiet_trainer, seeded


class Embedding(nn.Module):
    """Symbols and positions, as Hugging Face's nets begin."""

    def __init__(self):
        super().__init__()
        self.symbols, self.norm = nn.Embedding(20, 8), nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.symbols(x)).mean(1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = Embedding()
        self.block1 = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.block2 = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        h = self.embed(x)
        h = h + self.block1(h)
        return self.head(h + self.block2(h))


class Foreign(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Net()

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


NAMES = {"units": ["embed", "block*"], "readout": ["head"]}
MODULES = {
    "foreign": Foreign,
    "BP": lambda: BP(Net(), Classification(5)),
    "DFA": lambda: DFA(Net(), Classification(5), **NAMES),
    "BlockFA": lambda: BlockFA(Net(), Classification(5), **NAMES),
}


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(20, (64, 6), generator=generator)
    return TensorLoader([x, x.sum(1) % 5], batch_size=16)


@pytest.mark.few(4)
@pytest.mark.parametrize("kind", list(MODULES))
@pytest.mark.parametrize("diagnostic", [ResidualNorms, GradientNorms, ReferenceValidity])
def test_the_stream_begins_behind_the_embedding(kind, diagnostic, tmp_path):
    module = seeded(MODULES[kind])
    measured = diagnostic(units=["embed", "block*"])
    trainer = quiet_trainer(max_epochs=1, callbacks=[measured], default_root_dir=tmp_path)
    trainer.fit(module, data(), data())
    layers = {tag[-3:] for tag in measured.history.rows[-1]["values"] if "/L" in tag}
    assert layers == {"L00", "L01", "L02"}
    if diagnostic is ResidualNorms:
        net = getattr(module, "net", None) or module.model
        x = torch.cat([batch[0] for batch in data()])
        norm = net.embed(x).norm(dim=-1).median().item()
        found = measured.history.rows[-1]["values"]["residual/norm/L00"]
        assert found == pytest.approx(norm, rel=1e-5)


def test_an_embedding_receives_credit(tmp_path):
    module = seeded(MODULES["BlockFA"])
    measured = CreditAlignment()
    trainer = quiet_trainer(max_epochs=1, callbacks=[measured], default_root_dir=tmp_path)
    trainer.fit(module, data(), data())
    values = measured.history.rows[-1]["values"]
    assert {"credit/cosine/L00", "credit/cosine/L01", "credit/cosine/L02"} <= set(values)
    assert "credit/cosine_input/L00" not in values
