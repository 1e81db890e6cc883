"""The smallest set of privileges that reading one hospital needs, as the SQL that its DBA runs."""

from collections.abc import Iterator

from openmrs.connection import Flavour
from openmrs.tables import NOTICE_KEYS
from passport.settings import Hospital

REPLICATION: dict[Flavour, str] = {
    "mariadb": "REPLICATION SLAVE, BINLOG MONITOR",
    "mysql": "REPLICATION SLAVE, REPLICATION CLIENT",
}
# Never password, salt, secret_question or secret_answer.
USERS = ("user_id", "person_id", "uuid", "retired")
# Not carried yet, only counted, where the version of OpenMRS has them.
COUNTED = {
    "encounter_diagnosis": "diagnosis_id",
    "conditions": "condition_id",
    "allergy": "allergy_id",
}
WHOLE = ("obs", *(table for table in NOTICE_KEYS if table != "users"))


def grants(hospital_id: str, hospital: Hospital, flavour: Flavour) -> str:
    """Statements for `mysql`, one a line, ready to run as root. The host part is left to the DBA to
    narrow.
    """
    return "\n".join(_lines(hospital_id, hospital, flavour)) + "\n"


def table_grants(hospital: Hospital, account: str) -> dict[str, str]:
    """The GRANT statement of each table."""
    database = quoted(hospital.mysql.database)
    statements = {
        table: f"GRANT SELECT ON {database}.{quoted(table)} TO {account};"
        for table in sorted(WHOLE)
    }
    columns = ", ".join(USERS)
    # REFERENCES shows the names of the other columns, and no value: a binlog without names needs
    # them all.
    statements["users"] = (
        f"GRANT SELECT ({columns}), REFERENCES ON {database}.`users` TO {account};"
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
