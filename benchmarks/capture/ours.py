"""This project's reader, to the bytes that it publishes.

``python -m benchmarks.capture.ours PORT ROWS FILE POS`` reads a workload. The stream, the
transaction and the envelopes are the product's; only the publisher counts instead of sending.
"""

import gc
import sys
from typing import Any

import pymysql

from benchmarks.capture.counted import Counter
from cdc.binlog.stream import BinlogStream, Commit, KeyChange, RowChange
from cdc.column_lists import read_columns
from cdc.envelopes import Envelopes
from cdc.transaction import Transaction
from openmrs.tables import KEY_COLUMNS, ROW_COLUMNS
from passport.settings import Hospital, MySQL
from passport.version import Position


class Counting:
    """A publisher that counts, in place of Kafka."""

    def __init__(self, counter: Counter) -> None:
        self._add = counter.add
        self.sent = 0

    def send(self, kind: str, value: bytes) -> int:
        self.sent += 1
        if kind == "row":
            self._add(value)
        return self.sent


def main(port: int, rows: int, file: str, pos: int) -> None:
    """Read from the position on, to the row that ends the workload."""
    gc.freeze()
    gc.set_threshold(50_000)  # as `passport cdc run` has it
    counter = Counter(rows)
    start = Position(file, pos)

    def connect() -> "pymysql.Connection[Any]":
        return pymysql.connect(host="127.0.0.1", port=port, user="root", ssl_disabled=True)

    with connect() as connection:
        columns = read_columns(connection, "openmrs")
    stream = BinlogStream(
        connect,
        flavour="mariadb",
        server_id=5402,
        start=start,
        gtid_set=None,
        database="openmrs",
        columns=columns,
        row_columns=ROW_COLUMNS,
        key_columns=KEY_COLUMNS,
    )
    mysql = MySQL(host="127.0.0.1", port=port, user="root", database="openmrs")
    hospital = Hospital(
        name="Kigali", partition=0, timezone="Africa/Kigali", national_id_type="NID", mysql=mysql
    )
    envelopes = Envelopes("kigali", hospital, server="uuid", epoch=1)
    publisher: Any = Counting(counter)
    transaction = Transaction("kigali", publisher, envelopes, start)
    while counter.whole is None:
        for item in stream.poll(1):
            match item:
                case RowChange():
                    transaction.row(item)
                case KeyChange():
                    transaction.key_change(item)
                case Commit():
                    transaction.commit(item.at)
    counter.tell()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
