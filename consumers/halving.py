"""Finds the item that no code was made for, and goes on with the others.

What comes from Kafka is checked when it is parsed, so that such an item is a mistake of ours. But
it must not stop a hospital, let alone all of them, at every start.
"""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from passport.errors import Fatal, Origin, Reject

# What Python raises for a value that is not as the code expects it. Errors of a network or a disk,
# and those that this project raises on purpose, are none of these. Nor is RuntimeError, which says
# that the system refuses a thread: whoever lacks memory must not take the rows for wrong.
UNEXPECTED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
# If so many items fail, and not one of them works, then the items are not what is wrong.
ALL_FAIL = 20

Item = TypeVar("Item")
Result = TypeVar("Result")

log = structlog.get_logger()


def in_halves(
    hospital_id: str,
    items: Sequence[Item],
    apply: Callable[[Sequence[Item]], Result],
    reject: Callable[[Item, Reject], None],
) -> list[Result]:
    """Apply items together. Where that fails unexpectedly, apply each half, and so on.

    Return the results in order. `reject` is called with each item that fails alone. Raises what
    `apply` raises on purpose, and Fatal if nothing works.
    """
    results: list[Result] = []
    rejected: list[tuple[Item, Reject]] = []
    waiting = [items] if items else []
    while waiting:
        part = waiting.pop()
        try:
            results.append(apply(part))
        except UNEXPECTED as error:
            if len(part) == 1:
                rejected.append((part[0], rejection(hospital_id, error)))
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
    if len(rejected) >= ALL_FAIL and not results:
        raise Fatal(
            f"hospital {hospital_id}: each of {len(rejected)} rows fails"
            f" ({rejected[-1][1].reason}), so that the rows are not what is wrong",
            hint="the log says where it fails; go back to the release before, then:"
            " passport consume",
            origin=Origin.hospital(hospital_id),
        )
    for item, reason in rejected:
        reject(item, reason)
    return results


def rejection(hospital_id: str, error: BaseException) -> Reject:
    """Return why an item is parked, and log where it failed.

    The error's text is left out: it may quote a value.
    """
    *_, last = traceback.extract_tb(error.__traceback__)
    reason = f"unexpected {type(error).__name__}"
    log.error(
        "a mistake of ours",
        hospital=hospital_id,
        reason=reason,
        at=f"{Path(last.filename).name}:{last.lineno}",
        hint=f"passport dead-letters list --hospital {hospital_id}",
    )
    return Reject(reason)
