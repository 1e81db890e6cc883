"""Run seeds again: ``python -m tests.simulation [mariadb|mysql] FIRST [COUNT]``."""

import sys
import time
from collections import Counter

from tests.simulation.history import History


def main() -> None:
    flavours = [word for word in sys.argv[1:] if word.isalpha()] or ["mariadb", "mysql"]
    first, count = (*map(int, filter(str.isdigit, sys.argv[1:])), 1, 1)[:2]
    began, happened = time.monotonic(), Counter[str]()
    for seed in range(first, first + count):
        for flavour in flavours:
            try:
                happened.update(History(seed, flavour, gtids=seed % 5 > 0).run())
            except AssertionError as error:
                print(f"seed {seed} {flavour}: {error}")
    print(f"{count * len(flavours)} histories in {time.monotonic() - began:.1f} s")
    print("\n".join(f"{number:8d} {what}" for what, number in sorted(happened.items())))


if __name__ == "__main__":
    main()
