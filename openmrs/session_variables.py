"""The session variables that every connection to a hospital sets itself.

A session begins with the server's global values, which the hospital has chosen for its own
programs. Some of them change what a SELECT answers, and no error says so. Others end a session that
has to last. So a session takes none of these from the server.

Optimizer switches and sizes of buffers are the server's own business: they change how long an
answer takes. What concerns only who writes (sql_if_exists, foreign_key_checks) can't matter in a
session that is read-only.
"""

# Every server has these.
EVERYWHERE = {
    # An answer must be whole. A limit cuts it off, or refuses it, as too much work.
    "sql_select_limit": "18446744073709551615",
    "sql_big_selects": "1",  # max_join_size is then of no effect
    "group_concat_max_len": "1048576",
    # A value must be the same whatever the server prefers: PAD_CHAR_TO_FULL_LENGTH pads uuids with
    # blanks, ANSI_QUOTES makes names of texts.
    "sql_mode": "''",
    "time_zone": "'+00:00'",
    "lc_time_names": "'en_US'",
    "default_week_format": "0",
    "div_precision_increment": "4",
    # Texts are ordered and compared by so many bytes.
    "max_sort_length": "1024",
    "sql_auto_is_null": "0",
    "sql_safe_updates": "0",
    # A SELECT outside of a transaction must see what is there now. The client's own option leaves a
    # MySQL whose global is 0 as it is.
    "autocommit": "1",
    # A transaction must end when it is ended: CHAIN would begin the next one, with its snapshot,
    # and RELEASE would close the session.
    "completion_type": "'NO_CHAIN'",
    # A session must last, in seconds: between two reads, and while the other end is slow.
    "wait_timeout": "28800",
    "net_read_timeout": "60",
    "net_write_timeout": "60",
    # Who reads behind an ALTER gives up while somebody still listens, and tries again later.
    "lock_wait_timeout": "10",
}

# Only some servers have these, so a session first asks which of them are there.
WHERE_KNOWN = {
    # No statement is ended because it takes long: the client has a limit of its own, which says so.
    "max_execution_time": "0",  # MySQL, in ms
    "max_statement_time": "0",  # MariaDB, in s
    # Nor is a transaction ended because it rests meanwhile, within its load budget (MariaDB).
    "idle_transaction_timeout": "0",
    "idle_readonly_transaction_timeout": "0",
    # Rows must be those of now: not of the past (MariaDB), not of a node that has lost its cluster
    # (Galera), not of a second engine's copy (MySQL HeatWave).
    "system_versioning_asof": "DEFAULT",
    "wsrep_dirty_reads": "0",
    "use_secondary_engine": "'OFF'",
    # The columns that are listed must be those that are in the binlog, and typed as they are.
    "show_gipk_in_create_table_and_information_schema": "1",  # MySQL 8.0.30 and later
    "show_old_temporals": "0",  # MySQL 5.7 and 8.0
}

COLLATION = "utf8mb4_general_ci"
TRANSACTION = "ISOLATION LEVEL REPEATABLE READ, READ ONLY"
