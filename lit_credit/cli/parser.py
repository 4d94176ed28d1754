"""The parser of configurations, which reports a mistake in one line."""

import sys
from inspect import signature
from typing import Any

import yaml
from jsonargparse import Namespace, get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

from lit_credit.cli.class_hooks import install, without_class_defaults
from lit_credit.cli.class_rules import OwnClassRules, replaced_classes
from lit_credit.cli.older_configs import of_today
from lit_credit.cli.reasons import ShortErrors, short_reason
from lit_credit.runs.yaml_files import checked_loader

__all__ = ["ShortErrorParser", "print_line", "short_reason"]

_CHECKED_YAML = "checked yaml"
_LOAD = checked_loader(get_loader("yaml"))


def _load(text: str, path: Any = "") -> Any:
    return of_today(_LOAD(text, path))


set_loader(_CHECKED_YAML, _load, (yaml.YAMLError,))
install(OwnClassRules())


def print_line(line: str) -> None:
    """Print what a replaced class keeps and drops."""
    print(f"lit-credit: {line}", file=sys.stderr)


class ShortErrorParser(ShortErrors, LightningArgumentParser):
    """Lightning's parser with errors in one line.

    A named class starts from the defaults of its own signature, not from those of another class.
    YAML with a repeated key, or with aliases that expand to a huge text, is refused.
    """

    own_class_rules = True

    def __init__(self, *args: Any, parser_mode: str = _CHECKED_YAML, **kwargs: Any) -> None:
        super().__init__(*args, parser_mode=parser_mode, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse, and print which arguments of a replaced class are kept or dropped."""
        with replaced_classes(print_line):
            cfg: Namespace = super().parse_args(*args, **kwargs)
        return cfg

    def get_defaults(self, *args: Any, **kwargs: Any) -> Namespace:
        """The defaults, without the arguments of default classes, which may still be replaced."""
        get = super().get_defaults
        return without_class_defaults(lambda: get(*args, **kwargs))

    def add_class_arguments(self, theclass: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the arguments; a logger that requires ``save_dir`` defaults to the run's folder."""
        added = super().add_class_arguments(theclass, *args, **kwargs)
        if isinstance(theclass, type) and issubclass(theclass, Logger):
            own = signature(theclass).parameters.get("save_dir")
            if own is not None and own.default is own.empty:
                self.set_defaults({"save_dir": ""})
        return added
