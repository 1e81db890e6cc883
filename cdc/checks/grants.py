"""The smallest set of privileges that reading one hospital needs, as the SQL that its DBA runs."""

from openmrs.tables import FACT_TABLES, OPTIONAL_TABLES, REFERENCE_TABLES
from passport.settings import Hospital

# MariaDB calls the second one BINLOG MONITOR since 10.5, and still knows the old name. So the same
# statement fits all servers.
REPLICATION = ("REPLICATION SLAVE", "REPLICATION CLIENT")
# Tables that are not carried yet, only counted where the version of OpenMRS has them, by their key.
COUNTED = {
    "encounter_diagnosis": "diagnosis_id",
    "conditions": "condition_id",
    "allergy": "allergy_id",
}


def grants(hospital_id: str, hospital: Hospital) -> str:
    """Return the statements that make the account, one a line, ready for `mysql` to run as root.

    They fit MySQL and MariaDB of every version. The account may come from any host; narrowing that
    is left to the DBA.
    """
    account = account_name(hospital)
    database = quoted(hospital.mysql.database)
    statements = table_grants(hospital, account)
    required = [sql for table, sql in statements.items() if table not in OPTIONAL_TABLES]
    lines = [
        (
            f"-- Hospital {hospital_id}: read only, no password or secret."
            " Narrow '%' to the reader's host."
        ),
        (
            "-- REPLICATION SLAVE shows the whole binlog: run the reader beside the server, or over"
            " verified TLS."
        ),
        f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY 'choose-a-password';",
        f"GRANT {', '.join(REPLICATION)} ON *.* TO {account};",
        *required,
        (
            "-- Only counted, so that `passport check` can say what is not carried; leave out what"
            " is not there:"
        ),
    ]
    for table, key in COUNTED.items():
        lines.append(f"-- GRANT SELECT ({key}) ON {database}.{quoted(table)} TO {account};")
    # The last statements, so that one that fails leaves nothing out.
    lines.append("-- OpenMRS 2.7 and newer; where there is no such table this fails, and may:")
    lines += [statements[table] for table in sorted(OPTIONAL_TABLES)]
    return "\n".join(lines) + "\n"


def table_grants(hospital: Hospital, account: str) -> dict[str, str]:
    """Return the GRANT statement of each table that is read, by the table's name."""
    database = quoted(hospital.mysql.database)
    with_secrets = [table.name for table in REFERENCE_TABLES.values() if table.has_secrets]
    statements = {}
    for table in sorted({*FACT_TABLES, *REFERENCE_TABLES} - {*with_secrets}):
        statements[table] = f"GRANT SELECT ON {database}.{quoted(table)} TO {account};"
    for table in with_secrets:
        columns = ", ".join(REFERENCE_TABLES[table].columns)
        # REFERENCES shows the names of the other columns, and no value. A binlog without column
        # names needs them all.
        statements[table] = (
            f"GRANT SELECT ({columns}), REFERENCES ON {database}.{quoted(table)} TO {account};"
        )
    return statements


def account_name(hospital: Hospital, host: str = "%") -> str:
    """Return the account as a GRANT statement names it: ``'user'@'host'``."""
    return f"{_literal(hospital.mysql.user)}@{_literal(host)}"


def quoted(name: str) -> str:
    """Return the name of a table or database as an identifier in SQL."""
    return "`" + name.replace("`", "``") + "`"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
