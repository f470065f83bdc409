"""``python -m medlord_bench``: the same as the ``medlord-bench`` command."""

from medlord_bench.cli import main

main()
