"""A client's session whose server can't fill the memory with one answer.

The client gathers all rows of an answer. A server that sends rows for ever, or a row without an
end, would end this process, and with it the work for other hospitals.
"""

from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CR

if TYPE_CHECKING:
    from pymysql.cursors import Cursor

    Base = Connection[Cursor]
else:
    Base = Connection

ANSWER_MIB = 128
"""The most that one answer may have. The largest that is asked for is all obs of one person."""
ANSWER_ROWS = 1_000_000
"""The most rows that one answer may have: each costs more memory than its bytes."""

_READS_OF_A_ROW = 2  # its packet's head and body


class AnswerTooLargeError(pymysql.err.OperationalError):
    """A server's answer has more bytes or rows than any that is asked for."""


class BoundedConnection(Base):
    """A session of PyMySQL. An answer beyond the limits raises AnswerTooLargeError, and ends it."""

    _bytes = 0
    _reads = 0

    def _execute_command(self, command: int, sql: Any) -> None:
        self._bytes = 0
        self._reads = 0
        super()._execute_command(command, sql)  # type: ignore[misc]

    def _read_bytes(self, num_bytes: int) -> bytes:
        self._bytes += num_bytes
        self._reads += 1
        if self._bytes > ANSWER_MIB << 20 or self._reads > ANSWER_ROWS * _READS_OF_A_ROW:
            self._force_close()  # type: ignore[attr-defined]
            raise AnswerTooLargeError(CR.CR_NET_PACKET_TOO_LARGE)
        data: bytes = super()._read_bytes(num_bytes)  # type: ignore[misc]
        return data
