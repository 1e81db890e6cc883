"""Numbers of binlog events that matter beyond the ones that pymysqlreplication names."""

from pymysqlreplication.constants import BINLOG as BINLOG

HEADER_SIZE = 19

NAMES = {
    number: name
    for name, number in vars(BINLOG).items()
    if "_EVENT" in name and name[:6] != "INTVAR"
}
FORMAT, ROTATE = BINLOG.FORMAT_DESCRIPTION_EVENT, BINLOG.ROTATE_EVENT
# What the library does not know: MySQL's newer events, MariaDB's compressed ones (rows: 166 to
# 171).
PAYLOAD, HEARTBEAT_V2, TAGGED_GTID, COMPRESSED_QUERY = 40, 41, 42, 165
ABOUT_FILES = frozenset({FORMAT, ROTATE})
HEARTBEATS = frozenset({BINLOG.HEARTBEAT_LOG_EVENT, HEARTBEAT_V2})
# INTVAR, APPEND_BLOCK, DELETE_FILE, RAND, USER_VAR, BEGIN_LOAD_QUERY, IGNORABLE, ROWS_QUERY,
# TRANSACTION_CONTEXT,
# VIEW_CHANGE, Annotate_rows, Binlog_checkpoint, Start_encryption: no rows, no transaction's end.
WITHOUT_MEANING = (5, 9, 11, 13, 14, 17, 28, 29, 36, 37, 160, 161, 164)
