"""``python -m lit_credit`` is ``lit-credit``."""

import sys

from lit_credit.cli import main

if __name__ == "__main__":
    sys.exit(main())
