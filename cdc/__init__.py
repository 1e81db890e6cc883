"""Reads a hospital's MySQL or MariaDB binlog and publishes every committed change to Kafka."""
