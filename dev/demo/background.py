"""Work that goes on in a thread while the demo does something else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def background(work: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Run `work(*arguments, ended)` in a thread of its own until the block ends.

    `ended` is a threading.Event. `work` must return soon after it is set, since the end of the
    block waits for the thread.
    """
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(*arguments, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
