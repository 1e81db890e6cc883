"""mysql-replication as it comes.

``python -m benchmarks.capture.library PORT ROWS FILE POS LIMIT`` reads a workload. The library
gives dictionaries, which are cheaper than JSON. It asks the server for a table's columns at each
transaction, so that LIMIT rows are enough to know its speed.
"""

import sys

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import UpdateRowsEvent, WriteRowsEvent

from benchmarks.capture.counted import END, Counter


def main(port: int, rows: int, file: str, pos: int, limit: int) -> None:
    """Read from the position on, to the row that ends the workload or to `limit` rows."""
    counter = Counter(min(rows, limit))
    stream = BinLogStreamReader(
        connection_settings={
            "host": "127.0.0.1",
            "port": port,
            "user": "root",
            "passwd": "",
            "ssl_disabled": True,
        },
        server_id=5403,
        log_file=file,
        log_pos=pos,
        resume_stream=True,
        blocking=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent],
        only_schemas=["openmrs"],
        only_tables=["obs"],
    )
    for event in stream:
        for row in event.rows:
            counter.add(_comment(row).encode() if counter.count >= counter.rows else b"")
        if counter.whole is not None or counter.count >= limit:
            break
    counter.whole = counter.whole or (limit < rows and counter.count >= limit)
    counter.tell()


def _comment(row: dict[str, dict[str, object]]) -> str:
    return END if END in row.get("values", {}).values() else ""


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
