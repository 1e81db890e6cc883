"""The numbers of binlog events. Most have their names from pymysqlreplication's constants."""

from pymysqlreplication.constants import BINLOG as BINLOG

HEADER_SIZE = 19
"""Bytes of the header that each event begins with, in the only version that servers still write."""

NAMES = {
    number: name
    for name, number in vars(BINLOG).items()
    if "_EVENT" in name and name[:6] != "INTVAR"
}
FORMAT = BINLOG.FORMAT_DESCRIPTION_EVENT
ROTATE = BINLOG.ROTATE_EVENT

# The library doesn't know MySQL's newer events, nor MariaDB's compressed ones.
PAYLOAD = 40
HEARTBEAT_V2 = 41
TAGGED_GTID = 42
COMPRESSED_QUERY = 165
COMPRESSED_ROWS_V1 = 166  # inserts; 167 is for updates, 168 for deletes
COMPRESSED_ROWS_V2 = 169  # as above, up to 171

ABOUT_FILES = frozenset({FORMAT, ROTATE})
HEARTBEATS = frozenset({BINLOG.HEARTBEAT_LOG_EVENT, HEARTBEAT_V2})

ROWS = frozenset({*range(23, 26), *range(30, 33), 39, *range(166, 172)})
"""All events of rows: of both versions, with partial JSON (39), and compressed."""

# INTVAR, APPEND_BLOCK, DELETE_FILE, RAND, USER_VAR, BEGIN_LOAD_QUERY, IGNORABLE, ROWS_QUERY,
# TRANSACTION_CONTEXT, VIEW_CHANGE, Annotate_rows, Binlog_checkpoint, Start_encryption: they carry
# no rows, and end no transaction.
WITHOUT_MEANING = (5, 9, 11, 13, 14, 17, 28, 29, 36, 37, 160, 161, 164)
