"""Run the command line as ``python -m uniroute_fast.cli``."""

import sys

from uniroute_fast.cli import main

sys.exit(main())
