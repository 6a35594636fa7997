"""`python -m kingpost.gateway`."""

import sys

from kingpost.gateway.server import main

if __name__ == "__main__":
    sys.exit(main())
