"""``python -m passport`` is the console script."""

from passport.cli import main

main()
