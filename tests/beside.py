"""Work that goes on in threads while a test does something else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def beside(*works: Callable[[Event], object]) -> Iterator[None]:
    """Run each of `works` in a thread until the block ends, and wait for all of them.

    The event that a work gets is set when the block ends. If one of them raised an error, it is
    raised again after the block.
    """
    done = Event()
    raised: list[BaseException] = []

    def guarded(work: Callable[[Event], object]) -> None:
        try:
            work(done)
        except BaseException as error:  # noqa: BLE001  # shown by the test
            raised.append(error)

    threads = [Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    if raised:
        raise raised[0]
