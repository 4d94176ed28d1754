"""The test at the end of ``lit-credit fit``."""

import os
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_credit.callbacks.base import Diagnostic
from lit_credit.cli.boundary import reason
from lit_credit.protocols import DataModuleProtocol, asked
from lit_credit.trainer.trainer import callbacks_of

__all__ = ["has_test_data", "test_trained"]


def has_test_data(data: LightningDataModule) -> bool:
    """Whether a datamodule has data for testing that it does not validate on."""
    validated = asked(data, DataModuleProtocol.validates_on_test_data, False)
    own = is_overridden("test_dataloader", data) and not validated
    return asked(data, DataModuleProtocol.has_test_data, own)


def test_trained(trainer: Trainer, module: LightningModule, data: LightningDataModule) -> None:
    """Test the weights at the end of a fit, if the fit has ended by itself and there are test data.

    Diagnostics do not measure: they did so at the end of the fit. A test that fails does not make
    the fit fail: one warning says why. The metrics of the fit stay in ``trainer.callback_metrics``.

    Args:
        trainer: the Trainer after its fit.
        module: the module that it has trained.
        data: the data.
    """
    if trainer.interrupted or not has_test_data(data):
        return
    of_fit, callbacks = dict(trainer.callback_metrics), list(callbacks_of(trainer))
    trainer.callbacks = [c for c in callbacks if not isinstance(c, Diagnostic)]  # type: ignore[attr-defined]
    try:
        trainer.test(module, datamodule=data)
    except Exception as error:
        # Of several processes, the others may wait for this one.
        if trainer.world_size > 1 or os.environ.get("LIT_CREDIT_TRACEBACK"):
            raise
        rank_zero_warn(_failed(error))
    finally:
        trainer.callbacks = callbacks  # type: ignore[attr-defined]
    metrics: dict[str, Any] = trainer.callback_metrics
    tested = dict(metrics)
    metrics.clear()
    metrics.update(of_fit | tested)


def _failed(error: Exception) -> str:
    return (
        f"the test at the end of fit failed: {reason(error)}. The training is complete. "
        "`--test_after_fit false` leaves the test out; LIT_CREDIT_TRACEBACK=1 shows where it "
        "fails."
    )
