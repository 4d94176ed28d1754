"""Batches that are objects, graphs or packed sequences, read by tasks of one's own."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from lit_credit.inspect.updates import Updates
from lit_credit.rules import BP, DFA, FA, BlockFA
from lit_credit.tasks import Task
from tests.support import quiet_trainer, seeded

CLASSES, FEATURES, WIDTH = 3, 4, 8


class Data:
    """A batch of graphs as torch_geometric has them: an object with ``to``."""

    def __init__(self, x, edges, graph, y):
        self.x, self.edges, self.graph, self.y = x, edges, graph, y
        self.moved = False

    def to(self, device, non_blocking=False):
        found = Data(*(t.to(device) for t in (self.x, self.edges, self.graph, self.y)))
        found.moved = True
        return found


def items(n=20):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(2 + i % 5, FEATURES, generator=generator), i % CLASSES) for i in range(n)]


def graphs(samples):
    sizes = torch.tensor([len(x) for x, _ in samples])
    starts = sizes.cumsum(0) - sizes
    edges = torch.cat(
        [s + torch.combinations(torch.arange(n)).T for s, n in zip(starts, sizes, strict=True)], 1
    )
    x = torch.cat([x for x, _ in samples])
    graph = torch.arange(len(samples)).repeat_interleave(sizes)
    return Data(x, edges, graph, torch.tensor([y for _, y in samples]))


def packed(samples):
    sequences = pack_sequence([x for x, _ in samples], enforce_sorted=False)
    return sequences, torch.tensor([y for _, y in samples])


class GraphNet(nn.Module):
    """One round of messages."""

    def __init__(self, pooled=True):
        super().__init__()
        self.fc1, self.act = nn.Linear(FEATURES, WIDTH), nn.ReLU()
        self.fc2, self.act2 = nn.Linear(WIDTH, WIDTH), nn.ReLU()
        self.head = nn.Linear(WIDTH, CLASSES)
        self.pooled = pooled

    def forward(self, data):
        assert data.moved
        h = self.act(self.fc1(data.x))
        h = h.index_add(0, data.edges[0], h[data.edges[1]])
        h = self.act2(self.fc2(h))
        if self.pooled:
            h = h.new_zeros(len(data.y), WIDTH).index_add(0, data.graph, h)
        return self.head(h)


class SequenceNet(nn.Module):
    """The last output of an LSTM, its state, or all outputs."""

    def __init__(self, pooled=True):
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.rnn = nn.LSTM(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.pooled = pooled

    def forward(self, sequences):
        embedded = sequences._replace(data=self.embed(sequences.data).relu())
        states, (last, _) = self.rnn(embedded)
        if self.pooled == "state":
            return self.head(last[-1])
        if self.pooled:
            padded, lengths = pad_packed_sequence(states, batch_first=True)
            return self.head(padded[torch.arange(len(lengths)), lengths - 1])
        return self.head(states.data)


class GraphTask(Task):
    """The class of each graph."""

    def inputs(self, batch):
        return (batch,)

    def target(self, batch):
        return batch.y

    def loss(self, output, batch):
        return cross_entropy(output, self.target(batch))

    def metrics(self):
        return {"accuracy": MulticlassAccuracy(CLASSES, average="micro")}


class NodeTask(GraphTask):
    """The class of each node."""

    def target(self, batch):
        return batch.y[batch.graph]


class SequenceTask(GraphTask):
    """The class of each sequence."""

    def inputs(self, batch):
        return batch[:1]

    def target(self, batch):
        return batch[1]


class TokenTask(SequenceTask):
    """A class of each token."""

    def target(self, batch):
        return (batch[0].data[:, 0] > 0).long()


KINDS = {
    "graphs": (GraphNet, GraphTask, graphs, ["fc1+act", "fc2+act2"]),
    "nodes": (lambda: GraphNet(pooled=False), NodeTask, graphs, ["fc1+act", "fc2+act2"]),
    "sequences": (SequenceNet, SequenceTask, packed, ["embed->rnn", "rnn"]),
    "states": (lambda: SequenceNet("state"), SequenceTask, packed, ["embed->rnn", "rnn"]),
    "tokens": (lambda: SequenceNet(pooled=False), TokenTask, packed, ["embed->rnn", "rnn"]),
}


def made(kind, rule, **kwargs):
    net, task, _, units = KINDS[kind]
    if rule in (DFA, BlockFA):
        kwargs |= {"units": units, "readout": ["head"]}
    if rule is FA and "graph" not in kind and kind != "nodes":
        kwargs["leave_exact"] = ["rnn"]
    return seeded(lambda: rule(net(), task(), **kwargs))


def fit(kind, rule, collate=None, **kwargs):
    module = made(kind, rule, **kwargs)
    trainer = quiet_trainer(max_epochs=1, num_sanity_val_steps=0)
    loader = DataLoader(items(), batch_size=8, collate_fn=collate or KINDS[kind][2])
    trainer.fit(module, loader, loader)
    return trainer


@pytest.mark.parametrize("rule", [BP, FA, DFA, BlockFA])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_a_task_of_ones_own_reads_them(kind, rule):
    if rule is DFA and kind in ("graphs", "sequences"):
        with pytest.raises(ValueError, match=r"hands on \(29, 8\), .* the error, \(8, 3\)"):
            fit(kind, rule)
        return
    if rule in (DFA, BlockFA) and kind == "states":
        refused = r"the error, \(8, 3\)" if rule is DFA else "loss does not depend on unit 'rnn'"
        with pytest.raises(ValueError, match=refused):
            fit(kind, rule)
        return
    trainer = fit(kind, rule)
    assert trainer.global_step == 3
    # Each sample weighs the same, also those of the last, smaller batch.
    whole = KINDS[kind][2](items())
    whole = whole.to("cpu") if isinstance(whole, Data) else whole
    module = trainer.lightning_module
    output = module.net(*module.task.inputs(whole))
    expected = module.task.loss(output, whole)
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    right = (output.argmax(1) == module.task.target(whole)).float().mean()
    assert trainer.callback_metrics["val/accuracy"].item() == pytest.approx(right.item())


@pytest.mark.parametrize("kind", ["graphs", "sequences"])
@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_several_updates_of_a_step(kind):
    with pytest.raises(ValueError, match=r"`updates_per_step` is 2, but the rows .* hand out"):
        fit(kind, BP, updates_per_step=2)
    collate = KINDS[kind][2]

    def halves(samples):
        middle = len(samples) // 2
        return Updates([collate(samples[:middle]), collate(samples[middle:])])

    module = made(kind, BP, updates_per_step=2)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(module, DataLoader(items(), batch_size=8, collate_fn=halves))
    assert trainer.global_step == 6


def test_a_packed_sequence_stays_whole():
    sequences, _ = packed(items(4))
    credits = made("tokens", BlockFA).credit((sequences, None))
    assert isinstance(sequences, PackedSequence)
    assert {name: len(credit) for name, credit in credits.items()} == {
        "net.embed->net.rnn": len(sequences.data),
        "net.rnn": len(sequences.data),
    }
