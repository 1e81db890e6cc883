"""The binlog of one MySQL or MariaDB server: its wire protocol, its events and its field types."""
