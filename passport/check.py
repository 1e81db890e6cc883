"""One check of `passport check`, as hospitals, Kafka and destinations report it."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, whether it is as it must be, and what repairs it.

    `ok` is None for a warning: data is carried, but somebody should have a look. `detail` says what
    was found, also when all is well. `hint` is what to type or to set; it is empty when there is
    nothing to repair.
    """

    name: str
    ok: bool | None
    detail: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the check as ``check --json`` prints it.

        `remedy` is the former name of `hint`. It is kept for one release.
        """
        return {**asdict(self), "remedy": self.hint}
