"""``python -m cli`` does what the console script ``passport`` does."""

from cli import main

main()
