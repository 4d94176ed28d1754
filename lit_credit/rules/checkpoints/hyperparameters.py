"""What a checkpoint needs to build its module again."""

import inspect
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.parsing import collect_init_args

from lit_credit.utils.private_names import configured_hyperparameters

__all__ = ["save_plain_hyperparameters"]

_PLAIN = (bool, int, float, str, type(None))


def save_plain_hyperparameters(module: LightningModule) -> None:
    """Save what can be written as plain data, so that ``weights_only`` loads the checkpoint.

    To be called in ``__init__``. Built by ``LightningCLI``, a module is given its whole
    configuration as plain data, and ``load_from_checkpoint(path)`` builds it again. Built in
    Python, arguments such as the net are objects: they are left out, and
    ``load_from_checkpoint(path, net=..., task=...)`` takes them.

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
