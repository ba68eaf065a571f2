"""`python -m cupola.cli` is `cupola`."""

import sys

from cupola.cli import main

sys.exit(main())
