"""Two packages of Lightning, in either order of imports, each in a fresh interpreter."""

import subprocess
import sys

from tests.support.processes import environment

OURS, THEIRS = "import lit_credit.callbacks as ours", "import pytorch_lightning as theirs"
CHECK = """
import pickle
from lightning.pytorch import Callback
assert issubclass(ours.ResidualNorms, theirs.Callback) and issubclass(ours.ResidualNorms, Callback)
again = pickle.loads(pickle.dumps(ours.FiniteGuard("skip")))
assert again.policy == "skip" and again.state_key == "FiniteGuard"
"""
LOGGER = "from lightning_utilities.core import rank_zero; print(rank_zero.log.name)"


def run(*lines):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(lines)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_callbacks_imported_first_leave_the_messages_alone():
    # `import pytorch_lightning` sends the messages of both packages to its own logger.
    assert run(OURS, LOGGER, THEIRS, CHECK) == "lightning.pytorch.utilities.rank_zero"


def test_callbacks_imported_second_leave_the_messages_alone():
    assert run(THEIRS, OURS, LOGGER, CHECK) == "pytorch_lightning.utilities.rank_zero"


def test_without_the_other_package_callbacks_are_of_one():
    block = "import sys; sys.modules['pytorch_lightning'] = None"
    check = """
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from lit_credit.utils.both_packages import is_a
assert issubclass(ours.ResidualNorms, Callback)
print(is_a(CSVLogger('.'), CSVLogger), is_a(1, CSVLogger))
"""
    assert run(block, OURS, check) == "True False"
