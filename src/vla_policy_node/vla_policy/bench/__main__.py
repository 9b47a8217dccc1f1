"""`python -m vla_policy.bench`: see `vla_policy.bench.command`."""

import sys

from vla_policy.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
