"""``python -m ftfl``: the same as the command ``ftfl``."""

import sys

from ftfl.cli import main

if __name__ == "__main__":
    sys.exit(main())
