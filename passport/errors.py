"""Errors, named by what to do about them."""

from collections.abc import Iterable


class PassportError(Exception):
    """Anything that this project raises on purpose."""


class Retry(PassportError):  # noqa: N818  # named by its remedy
    """Try the same thing again after `after` seconds; the work is kept."""

    def __init__(self, message: str, *, after: float = 1.0) -> None:
        super().__init__(message)
        self.after = after


class Reject(PassportError):  # noqa: N818
    """This one record can't be carried: park it with `reason` (one of few words) and go on."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Fatal(PassportError):  # noqa: N818
    """Can't go on without a person: `message` names hospital or setting and cause, `hint` what to type next."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}"


class Gap(Fatal):
    """What was asked for is gone from the source's binlog (purged, reset, another server): only a new epoch helps."""


class Altered(Retry):
    """obs has other columns by now than the connection that reads it has listed."""


class NotReady(Retry):
    """A server isn't there (yet). A loop tries again; a command ends with exit code 3."""

    def __init__(self, message: str, *, hint: str, after: float = 2.0) -> None:
        super().__init__(message, after=after)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}"


def reduced(error: BaseException) -> str:
    """A client's error without its text, which may quote values: ``OperationalError 1045``."""
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    if code is None and error.args and isinstance(error.args[0], int):
        code = error.args[0]
    name = type(error).__name__
    return f"{name} {code}" if isinstance(code, int) else name


def listed(problems: Iterable[str]) -> str:
    """All problems of one kind in one message, a line each."""
    return "\n".join(f"  - {problem}" for problem in problems)
