"""`python -m cowherd`, which the script ./cowherd runs."""

import sys

from cowherd.cli import main

sys.exit(main(sys.argv[1:]))
