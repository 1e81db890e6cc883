"""Real servers without Docker: MariaDB, MySQL, Kafka and MongoDB, each in a folder of its own."""

from dev.stack.kafka import Kafka
from dev.stack.mariadb import MariaDB
from dev.stack.mongo import Mongo
from dev.stack.mysql import MySQL

__all__ = ["Kafka", "MariaDB", "Mongo", "MySQL"]
