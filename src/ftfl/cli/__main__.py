"""``python -m ftfl.cli``."""

import sys

from ftfl.cli import main

sys.exit(main())
