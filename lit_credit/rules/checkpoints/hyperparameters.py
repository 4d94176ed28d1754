"""Saving the arguments from which a checkpoint's module is built again."""

import inspect
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.parsing import collect_init_args

from lit_credit.utils.private_names import configured_hyperparameters

__all__ = ["save_plain_hyperparameters"]

_PLAIN = (bool, int, float, str, type(None))


def save_plain_hyperparameters(module: LightningModule) -> None:
    """Save the arguments that are plain data, so that ``weights_only`` loads the checkpoint.

    Call it in ``__init__``. ``LightningCLI`` gives a module its whole configuration as plain data,
    so ``load_from_checkpoint(path)`` builds the module again. In Python, arguments such as the net
    are objects. They are left out, and must be given to
    ``load_from_checkpoint(path, net=..., task=...)``.

    Args:
        module: the module under construction.
    """
    if configured_hyperparameters() is not None:
        module.save_hyperparameters(logger=False)
        return
    frame = inspect.currentframe()
    arguments: dict[str, Any] = {}
    if frame is not None and frame.f_back is not None:
        for local in collect_init_args(frame.f_back, [], classes=(LightningModule,)):
            arguments.update(local)
    plain = {name: value for name, value in arguments.items() if _is_plain(value)}
    module.save_hyperparameters(plain, logger=False)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)
