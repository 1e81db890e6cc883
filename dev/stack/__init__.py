"""Real servers without Docker: MariaDB, MySQL, Kafka, MongoDB and a FHIR server, each in a folder
of its own.
"""

from dev.stack.fhir import Fhir
from dev.stack.kafka import Kafka
from dev.stack.mariadb import MariaDB
from dev.stack.mongo import Mongo
from dev.stack.mysql import MySQL

__all__ = ["Fhir", "Kafka", "MariaDB", "Mongo", "MySQL"]
