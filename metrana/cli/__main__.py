"""`python -m metrana.cli`: the command, where the script is not on the path."""

import sys

from metrana.cli.main import main

sys.exit(main())
