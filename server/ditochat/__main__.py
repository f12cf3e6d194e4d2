"""``python -m ditochat`` is ``ditochat``."""

import sys

from ditochat.cli import main

if __name__ == "__main__":
    sys.exit(main())
