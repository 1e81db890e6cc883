"""Real servers without Docker, each in a folder of its own.

They are MariaDB, MySQL, Kafka, MongoDB and a FHIR server.
"""

from dev.stack.fhir import Fhir
from dev.stack.kafka import Kafka
from dev.stack.mariadb import MariaDB, MariaDB118
from dev.stack.mongo import Mongo
from dev.stack.mysql import MySQL, MySQL57, MySQL80

__all__ = ["Fhir", "Kafka", "MariaDB", "MariaDB118", "Mongo", "MySQL", "MySQL57", "MySQL80"]
