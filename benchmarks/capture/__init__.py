"""This project's reader beside mysql-replication and Debezium's engine, on the same binlogs."""
