"""One preflight check: what was looked at, whether it holds, and the statement or command that
repairs it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """`ok` None is a warning: carried, but worth a look. `remedy` is what to type or run, "" for
    none.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""
