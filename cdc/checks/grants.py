"""The smallest set of privileges that reading one hospital needs, as the SQL that its DBA runs."""

from collections.abc import Iterator

from openmrs.connection import Flavour
from openmrs.tables import FACT_TABLES, REFERENCE_TABLES
from passport.settings import Hospital

REPLICATION: dict[Flavour, str] = {
    "mariadb": "REPLICATION SLAVE, BINLOG MONITOR",
    "mysql": "REPLICATION SLAVE, REPLICATION CLIENT",
}
# Not carried yet, only counted, where the version of OpenMRS has them.
COUNTED = {
    "encounter_diagnosis": "diagnosis_id",
    "conditions": "condition_id",
    "allergy": "allergy_id",
}


def grants(hospital_id: str, hospital: Hospital, flavour: Flavour) -> str:
    """Statements for `mysql`, one a line, ready to run as root. The host part is left to the DBA to
    narrow.
    """
    return "\n".join(_lines(hospital_id, hospital, flavour)) + "\n"


def table_grants(hospital: Hospital, account: str) -> dict[str, str]:
    """The GRANT statement of each table."""
    database = quoted(hospital.mysql.database)
    secret = [table.name for table in REFERENCE_TABLES.values() if table.has_secrets]
    open_tables = sorted({*FACT_TABLES, *REFERENCE_TABLES} - {*secret})
    statements = {
        table: f"GRANT SELECT ON {database}.{quoted(table)} TO {account};" for table in open_tables
    }
    for table in secret:
        columns = ", ".join(REFERENCE_TABLES[table].columns)
        # REFERENCES shows the names of the other columns, and no value. A binlog without column
        # names needs them all.
        statements[table] = (
            f"GRANT SELECT ({columns}), REFERENCES ON {database}.{quoted(table)} TO {account};"
        )
    return statements


def account(hospital: Hospital, host: str = "%") -> str:
    return f"{_text(hospital.mysql.user)}@{_text(host)}"


def quoted(name: str) -> str:
    """An identifier."""
    return "`" + name.replace("`", "``") + "`"


def _lines(hospital_id: str, hospital: Hospital, flavour: Flavour) -> Iterator[str]:
    who = account(hospital)
    database = quoted(hospital.mysql.database)
    yield f"-- {flavour}, hospital {hospital_id}: read only, no password or secret. Narrow '%' to the reader's host."
    yield "-- REPLICATION SLAVE shows the whole binlog: run the reader beside the server, or over verified TLS."
    yield f"CREATE USER IF NOT EXISTS {who} IDENTIFIED BY 'choose-a-password';"
    yield f"GRANT {REPLICATION[flavour]} ON *.* TO {who};"
    yield from table_grants(hospital, who).values()
    yield "-- Only counted, so that `passport check` can say what is not carried; leave out what is not there:"
    for table, key in COUNTED.items():
        yield f"-- GRANT SELECT ({key}) ON {database}.{quoted(table)} TO {who};"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
