"""The loss of a module, outside of its training."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule

from lit_credit.inspect.batch_loss import batch_loss, check_batch_loss
from lit_credit.inspect.capture import Point, capture


class Noisy(LightningModule):
    """Random, counting and logging."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.count = 0

    def training_step(self, batch, batch_idx):
        self.count += 1
        loss = (self.layer(batch["x"]) * torch.randn(())).mean()
        self.log("loss", loss)
        self.log_dict({"again": loss}, on_epoch=True)
        return {"loss": loss, "other": 1}


class WithOwn(Noisy):
    def batch_loss(self, batch):
        return self.layer(batch["x"]).sum() + torch.rand(())


@pytest.mark.parametrize("kind", [Noisy, WithOwn])
def test_two_losses_of_one_batch_see_the_same_random_numbers(kind):
    module, batch = kind(), {"x": torch.ones(3, 2)}
    before = torch.get_rng_state()
    one, other = batch_loss(module, batch), batch_loss(module, batch)
    assert one.requires_grad
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert module.count == 0
    assert not {"log", "log_dict"} & set(vars(module))


def test_hooks_see_the_step_and_are_removed():
    module = Noisy()
    with capture(module, [Point("layer", "output")]) as tensors:
        batch_loss(module, {"x": torch.ones(3, 2)})
        assert len(tensors) == 1
    assert not module.layer._forward_hooks


class OwnLog(Noisy):
    def __init__(self):
        super().__init__()
        self.logged = []
        self.log = self.logged.append


def test_a_log_of_the_instance_comes_back_after_an_exception():
    module = OwnLog()
    own = module.log
    with pytest.raises(KeyError):
        batch_loss(module, {})
    assert vars(module)["log"] is own
    assert "log_dict" not in vars(module)
    assert module.logged == []


@pytest.mark.parametrize("returned", [None, 1.0, torch.ones(3), {"other": 1}], ids=str)
def test_what_is_no_scalar_loss_is_an_error(returned):
    class Odd(Noisy):
        def training_step(self, batch, batch_idx):
            return returned

    with pytest.raises(MisconfigurationException, match=r"Odd\.training_step returns .*batch_loss"):
        batch_loss(Odd(), {})


def test_steps_that_train_or_fetch_are_refused():
    class Manual(Noisy):
        automatic_optimization = False

    class Fetching(Noisy):
        def training_step(self, dataloader_iter):
            return None

    with pytest.raises(MisconfigurationException, match="would train on the probe"):
        check_batch_loss(Manual())
    with pytest.raises(MisconfigurationException, match="dataloader_iter"):
        check_batch_loss(Fetching())
    check_batch_loss(WithOwn())


class Gathering(Noisy):
    def training_step(self, batch, batch_idx):
        return self.all_gather(self.layer(batch["x"])).mean()


def test_a_loss_that_would_wait_for_other_processes_is_refused(monkeypatch):
    module, batch = Gathering(), {"x": torch.ones(3, 2)}
    monkeypatch.setattr(module, "all_gather", lambda x: x, raising=False)
    assert batch_loss(module, batch).requires_grad  # in one process it is harmless
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(MisconfigurationException, match=r"`all_gather`.*callback a `loss`"):
        batch_loss(module, batch)
    assert module.all_gather(1) == 1


def test_a_metric_called_batch_loss_is_no_loss():
    module = Noisy()
    module.batch_loss = torch.nn.Identity()
    assert batch_loss(module, {"x": torch.ones(3, 2)}).shape == ()
