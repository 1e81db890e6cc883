"""The errors that this project raises on purpose, named by what to do about them.

Each error says three things. `reason` is one line: what is wrong, and with which hospital, server
or setting. `hint` is the next command to type or setting to change. `origin` is the party whose
failure it is: a hospital, a destination or Kafka. None of them quotes a patient's value.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple


class Origin(NamedTuple):
    """The party whose failure an error is; `name` is its id in the settings ("" for Kafka)."""

    kind: Literal["hospital", "destination", "kafka"]
    name: str = ""

    @classmethod
    def hospital(cls, hospital_id: str) -> "Origin":
        return cls("hospital", hospital_id)

    @classmethod
    def destination(cls, name: str) -> "Origin":
        return cls("destination", name)


KAFKA = Origin("kafka")


class PassportError(Exception):
    """Anything that this project raises on purpose.

    `details` are further lines that belong to the reason, such as each setting that is wrong.
    """

    def __init__(
        self,
        reason: str,
        *,
        details: Iterable[str] = (),
        hint: str = "",
        origin: Origin | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = tuple(details)
        self.hint = hint
        self.origin = origin

    def __str__(self) -> str:
        lines = [self.reason, *(f"  - {detail}" for detail in self.details)]
        if self.hint:
            lines.append(f"  -> {self.hint}")
        return "\n".join(lines)


class Retry(PassportError):  # noqa: N818  # named by its remedy
    """An attempt that may work after `after` seconds. The work is kept meanwhile."""

    def __init__(
        self, reason: str, *, hint: str = "", origin: Origin | None = None, after: float = 1.0
    ) -> None:
        super().__init__(reason, hint=hint, origin=origin)
        self.after = after


class Reject(PassportError):  # noqa: N818
    """This one record can't be carried: park it, and go on with the next.

    `reason` is one of few words, because a metric is labelled with it. `detail` says more, such as
    the name of a column. It never says a value.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class Fatal(PassportError):  # noqa: N818
    """Nothing goes on without a person, who does what `hint` says."""

    def __init__(
        self,
        reason: str,
        *,
        hint: str,
        details: Iterable[str] = (),
        origin: Origin | None = None,
    ) -> None:
        super().__init__(reason, details=details, hint=hint, origin=origin)


class BadSettings(Fatal):
    """The settings or the arguments of a command can't be used. A command ends with exit code 2."""


class Gap(Fatal):
    """The binlog no longer has what was asked for.

    It was purged or reset, or the server is another one. Only a new epoch helps. The reader begins
    one by itself.
    """


class RecordTooLarge(Fatal):
    """A record is larger than its topic takes."""


class Altered(Retry):
    """A table has other columns by now than the connection that reads it has listed."""


class TooSlow(Retry):
    """A query took longer than it may, and the server has ended it. A smaller one may do."""


class Overtaken(Retry):
    """Another writer has taken the hospital in the destination since this one did.

    Nothing was written. Take the hospital, and begin again with what is read after that.
    """

    def __init__(self, hospital_id: str) -> None:
        super().__init__(
            f"hospital {hospital_id}: another writer has taken it",
            hint="passport consume, replay, dead-letters retry and erase take turns",
            after=0.5,
        )


class NotReady(Retry):
    """A server isn't there (yet). A loop tries again; a command ends with exit code 3."""

    def __init__(
        self, reason: str, *, hint: str, origin: Origin | None = None, after: float = 2.0
    ) -> None:
        super().__init__(reason, hint=hint, origin=origin, after=after)


def unknown_hospital(hospital_id: str, hospital_ids: Iterable[str]) -> BadSettings:
    """Return the error for a hospital that is not one of the settings' `hospital_ids`."""
    names = ", ".join(sorted(hospital_ids)) or "none"
    return BadSettings(
        f"hospital {hospital_id!r} is not in the settings (set: {names})",
        hint="passport config show",
    )


def without_text(error: BaseException) -> str:
    """Return a client's error as its type and number, such as ``OperationalError 1045``.

    Its text is left out, because it may quote values.
    """
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    if code is None and error.args and isinstance(error.args[0], int):
        code = error.args[0]
    name = type(error).__name__
    return f"{name} {code}" if isinstance(code, int) else name
