"""`python -m kquant` is the command `kquant`."""

import sys

from kquant.cli import main

if __name__ == "__main__":
    sys.exit(main())
