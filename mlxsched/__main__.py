"""``python -m mlxsched`` is the ``mlxsched`` command."""

from __future__ import annotations

import sys

from mlxsched.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
