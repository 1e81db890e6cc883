"""Opens a server's binlog for a moment, beside the reader that may be reading it.

A server ends the older of two dumps of one replica id. So a probe never has the reader's id, nor
that of another probe.
"""

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager

from cdc.binlog.stream import FILE_START, BinlogStream
from openmrs import connection as mysql
from passport.settings import MySQL
from passport.version import Position

# Ids that people give are lower, and those of readers are too few to be met by chance.
FIRST_ID = 2**31
LAST_ID = 2**32 - 1
ANSWER_S = 10.0


@contextmanager
def opened(
    hospital_id: str, settings: MySQL, *, start: Position | None, gtid_set: str
) -> Iterator[BinlogStream]:
    """Open the binlog at `start`, or where `gtid_set` ends, and read until its file is known.

    No change is decoded. Raises Retry if the server says nothing, and what `BinlogStream` raises.
    """
    connection = mysql.connect(hospital_id, settings)
    flavour = mysql.flavour(connection)
    stream = BinlogStream(
        lambda: connection,
        flavour=flavour,
        server_id=random.randint(FIRST_ID, LAST_ID),  # no secret
        start=start,
        gtid_set=gtid_set,
        database=settings.database,
        columns={},
        row_columns={},
        key_columns={},
        heartbeat_s=1,
        read_timeout_s=ANSWER_S,
    )
    with closing(stream):
        while not stream.began_ts:
            stream.poll(ANSWER_S)
        yield stream


def made_at(hospital_id: str, settings: MySQL, file: str) -> int:
    """Return when the server made a binlog file, by its own clock, in Unix seconds.

    Raises Gap if it has no such file, and what `opened` raises.
    """
    with opened(hospital_id, settings, start=Position(file, FILE_START), gtid_set="") as stream:
        return stream.began_ts
