"""The order of everything: a fixed-width, sortable version for each row state of a hospital.

A version is the text ``EEEEEEEEEE-FFFFFFFFFF-PPPPPPPPPPPPPPPP-RRRRRRRR``: epoch, number of the
binlog file, END position of the outer binlog event, ordinal of the row in it (from 1). What is read
by SELECT at position S has the version (S, 0): later than all that S contains, earlier than all
that follows. Compare versions as text. Polling counts its snapshots instead: (epoch, number, 0, 0).
"""

from typing import NamedTuple

# An epoch is the Unix time at which it began, or one more than the epoch before. One that is so
# much later than the record that names it is a mistake.
FUTURE_S = 86_400

LOWEST = f"{0:010d}-{0:010d}-{0:016d}-{0:08d}"


class Position(NamedTuple):
    """A place in one server's binlog: the file's name as the server says it, and a byte offset.

    The offset may pass 4 GiB. Positions are ordered by `order`, never by file name alone, and only
    within one epoch.
    """

    file: str
    pos: int

    @property
    def number(self) -> int:
        """The number of the file: ``binlog.000012`` -> 12."""
        return file_number(self.file)

    @property
    def order(self) -> tuple[int, int]:
        return self.number, self.pos


class Version(NamedTuple):
    """The four parts of a version, as numbers."""

    epoch: int
    file: int
    pos: int
    row: int

    def __str__(self) -> str:
        return f"{self.epoch:010d}-{self.file:010d}-{self.pos:016d}-{self.row:08d}"


def file_number(name: str) -> int:
    """Return the number in a file's name: ``mysql-bin.000012`` or ``binlog-000012.ibb`` -> 12.

    The second is how MariaDB names a binlog that InnoDB keeps. Raises ValueError if the name has no
    number at its end.
    """
    return int(name.removesuffix(".ibb").rpartition(".")[2].rpartition("-")[2])


def prefix(epoch: int, file_number_: int, pos: int) -> str:
    """Return the first three parts with the trailing dash: append ``f"{row:08d}"``."""
    return f"{epoch:010d}-{file_number_:010d}-{pos:016d}-"


def row_version(epoch: int, at: Position, row: int) -> str:
    """Return the version of row number `row` (from 1) of the outer event that ends at `at`."""
    return f"{prefix(epoch, at.number, at.pos)}{row:08d}"


def read_version(epoch: int, at: Position) -> str:
    """Return the version of what a SELECT saw at `at`."""
    return row_version(epoch, at, 0)


def parse(text: str) -> Version:
    """Return the parts of a version. Raises ValueError when the text is not one."""
    parts = text.split("-")
    if [len(part) for part in parts] != [10, 10, 16, 8]:
        raise ValueError("not a version")
    return Version(*map(int, parts))


def is_of_the_future(epoch: int, named_at_s: float) -> bool:
    """Return whether an epoch can't have begun at the Unix time at which a record named it."""
    return epoch > named_at_s + FUTURE_S


def next_epoch(previous: int, birth_s: float) -> int:
    """Return an epoch that is higher than every one before, also when the positions topic was lost.

    `birth_s` is the Unix time at which it begins: that grows when nothing else is known any more.
    """
    return max(previous + 1, int(birth_s))
