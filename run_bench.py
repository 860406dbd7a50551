"""Entry point: python run_bench.py --help"""

import os

from bench.cli import main

if __name__ == "__main__":
    os.umask(0o077)  # whatever a library or a worker writes is the user's alone
    raise SystemExit(main())
