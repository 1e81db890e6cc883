"""Run seeds again: ``python -m tests.simulation [mariadb|mysql|writers] FIRST [COUNT]``."""

import sys
import time
from collections import Counter

from meaning.rules import load
from tests.simulation.history import History
from tests.simulation.writers import random_history


def main() -> None:
    flavours = [word for word in sys.argv[1:] if word.isalpha()] or ["mariadb", "mysql"]
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    first = numbers[0] if numbers else 1
    count = numbers[1] if len(numbers) > 1 else 1
    began = time.monotonic()
    happened = Counter[str]()
    for seed in range(first, first + count):
        for flavour in flavours:
            try:
                if flavour == "writers":
                    happened.update(random_history(load(None), seed).world.happened)
                else:
                    happened.update(History(seed, flavour, gtids=seed % 5 > 0).run())
            except AssertionError as error:
                print(f"seed {seed} {flavour}: {error}")
    print(f"{count * len(flavours)} histories in {time.monotonic() - began:.1f} s")
    for name, number in sorted(happened.items()):
        print(f"{number:8d} {name}")


if __name__ == "__main__":
    main()
