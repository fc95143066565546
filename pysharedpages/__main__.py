"""`python -m pysharedpages` is the command line."""

import sys

from pysharedpages.cli import main

if __name__ == "__main__":
    sys.exit(main())
