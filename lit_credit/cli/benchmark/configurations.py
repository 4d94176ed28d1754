"""How the runs of a benchmark are configured: trials of a search, and runs that are reported."""

from collections.abc import Mapping
from typing import Any

__all__ = ["final_config", "search_config"]

_DIAGNOSTICS = ("ResidualNorms", "CreditAlignment", "CreditFunction", "SignalRank")


def search_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a trial: validated before and after, with nothing that costs time."""
    trainer = dict(config.get("trainer", {}))
    trainer |= {
        "check_val_every_n_epoch": trainer.get("max_epochs", 1),
        "callbacks": [{"class_path": "lit_credit.callbacks.MetricHistory"}],
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    return {**_with_optimizer(config), "trainer": trainer, "test_after_fit": False}


def final_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run that is reported: logged, diagnosed, and tested at its end."""
    trainer = dict(config.get("trainer", {}))
    arguments = {"every_n_epochs": trainer.get("max_epochs", 1), "figure": False}
    diagnostics = [{"class_path": name, "init_args": arguments} for name in _DIAGNOSTICS]
    trainer["callbacks+"] = [*trainer.get("callbacks+", []), *diagnostics]
    trainer["enable_model_summary"] = False
    return {**_with_optimizer(config), "trainer": trainer}


def _with_optimizer(config: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dict(config["model"]["init_args"])
    arguments["optimizer"] = {"class_path": "torch.optim.AdamW", "init_args": {"fused": True}}
    return {**config, "model": {"class_path": "BP", "init_args": arguments}}
