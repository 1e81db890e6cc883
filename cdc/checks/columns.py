"""Checks of the tables' columns, and of the identifier type that the settings name."""

from cdc.checks.server import Server
from cdc.column_lists import read_columns
from cdc.schema import undecodable_columns
from openmrs.national_id import IdentifierType
from openmrs.tables import OBS
from passport.check import Check


def obs(server: Server) -> Check:
    """Check that obs has the columns and the key of OpenMRS, in types that can be decoded."""
    database = server.hospital.mysql.database
    columns = read_columns(server.connection, database)
    names = {column.name for column in columns.get(OBS.name, [])}
    missing = [name for name in OBS.columns if name not in names and name not in OBS.optional]
    undecodable = undecodable_columns(columns)
    key_rows = server.rows_if_readable(f"SHOW KEYS FROM {OBS.name} WHERE Key_name = 'PRIMARY'")
    key = [row[4] for row in key_rows]
    if not missing and not undecodable and key == [OBS.key]:
        return Check("obs", True, f"{len(names)} columns, primary key {OBS.key}")
    return Check(
        "obs",
        False,
        f"columns lacking: {missing}, not decodable: {undecodable}, primary key: {key}",
        "give them OpenMRS's types again, or check"
        f" hospitals.{server.hospital_id}.mysql.database: is it an OpenMRS?",
    )


def identifier_type(server: Server) -> Check:
    """Check that the hospital has the identifier type that carries its national ids."""
    uuid = server.hospital.national_id_type
    types: dict[str, str] = dict(
        server.rows_if_readable(
            "SELECT uuid, name FROM patient_identifier_type WHERE retired = 0 ORDER BY name"
        )
    )
    if uuid in types:
        return Check("national_id_type", True, f"{uuid} is {types[uuid]!r}")
    listed = "; ".join(f"{name} = {uuid}" for uuid, name in types.items())
    choice = "\n".join(f"{uuid}  # {name}" for uuid, name in types.items())
    return Check(
        "national_id_type",
        False,
        f"no live identifier type has the uuid {uuid}; there are: {listed}",
        f"set hospitals.{server.hospital_id}.national_id_type to one of:\n{choice}",
    )


def identifier_format(server: Server) -> Check:
    """Check that OpenMRS itself refuses what can't be a national id, in words known here."""
    name = "national_id_format"
    uuid = server.hospital.national_id_type
    rows = server.rows_if_readable(
        "SELECT uuid, name, format, validator FROM patient_identifier_type WHERE retired = 0"
    )
    types = {
        type_uuid: (type_name, IdentifierType(0, java_format or "", validator or ""))
        for type_uuid, type_name, java_format, validator in rows
    }
    if uuid not in types:
        return Check(name, None, "there is no such identifier type")

    type_name, type_ = types[uuid]
    hint = (
        "set it in OpenMRS, under Administration, Manage Identifier Types: for sixteen digits"
        r" the format is \d{16}"
    )
    unknown = type_.not_understood()
    if unknown == "format":
        detail = f"the format of {type_name!r} isn't understood and not asked for: {type_.format}"
        return Check(name, None, detail, hint)
    if unknown == "validator":
        detail = (
            f"the validator of {type_name!r} isn't understood and not asked for: {type_.validator}"
        )
        return Check(name, None, detail)
    if not type_.format.strip():
        detail = f"{type_name!r} has no format: any 10 to 16 digits pass, a telephone number too"
        return Check(name, None, detail, hint)
    return Check(name, True, f"{type_name!r} has the format {type_.format}")
