"""Entry point: python run_bench.py --help"""

import os
import sys

try:
    from bench.cli import main
except ModuleNotFoundError as missing:
    print(
        f"error: {sys.executable} has no `{missing.name}`; use .venv/bin/python, which `make demo` sets up, "
        "or install Bedside into this Python with pip install -e .",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    os.umask(0o077)  # whatever a library or a worker writes is the user's alone
    raise SystemExit(main())
