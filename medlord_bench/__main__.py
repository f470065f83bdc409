"""``python -m medlord_bench``: the same as the ``medlord-bench`` command."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the working directory: a `random.py` in it is not imported

from medlord_bench.cli import main

main()
