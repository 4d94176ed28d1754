"""Configurations with one class exchanged, and what the parser makes of them."""

from copy import deepcopy

import yaml
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from lit_credit.rules import CreditRule
from lit_credit.studies.ngram import NGramDistribution
from lit_credit.tasks import Task

GOOD = {
    "model": {"class_path": "BP", "init_args": {"task": "Classification", "net": "MLP"}},
    "data": "Digits",
    "trainer": {},
}
PLACES = {  # where a class of a kind is named
    CreditRule: "model",
    Optimizer: "model.init_args.optimizer",
    lr_scheduler.LRScheduler: "model.init_args.lr_scheduler",
    NGramDistribution: "data.init_args.distribution",
    LightningDataModule: "data",
    Callback: "trainer.callbacks",
    Logger: "trainer.logger",
    Task: "model.init_args.task",
    nn.Module: "model.init_args.net",
}


def place_of(cls):
    """The place of the first kind that the class is of, or None."""
    return next((place for kind, place in PLACES.items() if issubclass(cls, kind)), None)


def with_value(place, value, good=GOOD):
    """The good configuration with a value at a place."""
    config = deepcopy(good)
    if place.startswith("data."):
        config["data"] = {"class_path": "NGram"}
    *parts, last = place.split(".")
    at = config
    for part in parts:
        at = at.setdefault(part, {})
    at[last] = value
    return config


def words_of(*configs):
    """The command line of configurations that come one after the other."""
    return ["fit", *(f"--config={yaml.safe_dump(config)}" for config in configs)]


def found_at(place, cfg):
    found = cfg.fit[place]
    return found[0] if isinstance(found, list) else found
