"""``python -m passport`` is the console script."""

from cli import main

main()
