"""A module and data of another project, as a command line names them."""

from tests import support
from tests.support import ValidatedData


class Project(support.Validated):
    """The foreign module."""


class ProjectData(ValidatedData):
    """Its data."""

    def __init__(self) -> None:
        super().__init__(support.train_loader(), support.val_loader())
