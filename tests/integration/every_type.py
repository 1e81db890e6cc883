"""A table of every column type and rows of extremes, on which a SELECT and the binlog agree."""

# ruff: noqa: PIE800  # several columns a line

import random
import struct
from collections.abc import Iterator
from typing import Any

from openmrs.server_version import ServerVersion

TABLE = "every_type"

_COLUMNS = r"""
id INT PRIMARY KEY, y YEAR, ti TINYINT, tu TINYINT UNSIGNED, si SMALLINT, su SMALLINT UNSIGNED,
mi MEDIUMINT, mu MEDIUMINT UNSIGNED, ii INT, iu INT UNSIGNED, bi BIGINT, bu BIGINT UNSIGNED,
iz INT(8) ZEROFILL,
f FLOAT, fd FLOAT(7,3), d DOUBLE, dd DOUBLE(10,2),
n1 DECIMAL(10,2), n2 DECIMAL(65,30), n3 DECIMAL(5,5), n4 DECIMAL(9,0), nz DECIMAL(8,3) ZEROFILL,
b1 BIT(1), b9 BIT(9), b64 BIT(64),
e ENUM('a','b''c','d\\e','é,"'), el ENUM('ä','ö') CHARACTER SET latin1, s SET('x','y z','é'),
da DATE, t0 TIME, t1 TIME(1), t3 TIME(3), t6 TIME(6), dt DATETIME, dt2 DATETIME(2), dt3 DATETIME(3),
dt6 DATETIME(6),
ts TIMESTAMP NULL, ts1 TIMESTAMP(1) NULL, ts5 TIMESTAMP(5) NULL, ts6 TIMESTAMP(6) NULL,
c CHAR(10) CHARACTER SET utf8mb4, cl CHAR(255) CHARACTER SET utf8mb4, g GEOMETRY,
v3 VARCHAR(40) CHARACTER SET utf8mb3, v4 VARCHAR(300) CHARACTER SET utf8mb4,
vl VARCHAR(300) CHARACTER SET latin1,
va VARCHAR(20) CHARACTER SET ascii, vu VARCHAR(20) CHARACTER SET ucs2,
v16 VARCHAR(20) CHARACTER SET utf16,
v32 VARCHAR(20) CHARACTER SET utf32,
bn BINARY(4), vb VARBINARY(300), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB,
tt TINYTEXT, tx TEXT CHARACTER SET latin1, mt MEDIUMTEXT, lt LONGTEXT, j JSON,
gv INT GENERATED ALWAYS AS (id + 1) VIRTUAL, gs INT GENERATED ALWAYS AS (id + 2) STORED,
inv INT INVISIBLE DEFAULT 7, `odd '{"\\` INT
"""
# Types that are no part of a row's JSON lie between those that are, and must be stepped over.
_SKIPPED = {
    "mariadb": "vc VARCHAR(900) COMPRESSED, bc TEXT COMPRESSED CHARACTER SET latin1,"
    " bbc MEDIUMBLOB COMPRESSED, u UUID, i6 INET6, i4 INET4,"
    " gbk VARCHAR(9) CHARACTER SET gbk, behind VARCHAR(5) CHARACTER SET latin1",
    "mysql": "vec VECTOR(3), p POINT,"
    " gbk VARCHAR(9) CHARACTER SET gbk, behind VARCHAR(5) CHARACTER SET latin1",
}
_NOT_IN_JSON = frozenset({"u", "i6", "i4", "vec", "p", "gbk"})
_GENERATED = frozenset({"gv", "gs"})

_LOW = {
    **{
        "y": 1901,
        "ti": -128,
        "tu": 0,
        "si": -32768,
        "su": 0,
        "mi": -(2**23),
        "mu": 0,
        "ii": -(2**31),
        "iu": 0,
    },
    **{
        "bi": -(2**63),
        "bu": 0,
        "iz": 0,
        "f": -3.402823466e38,
        "fd": -1234.567,
        "d": -1.7976931348623157e308,
    },
    **{
        "dd": -12345678.91,
        "n1": "-99999999.99",
        "n2": "-" + "9" * 35 + "." + "9" * 30,
        "n3": "-0.99999",
    },
    **{
        "n4": -999999999,
        "nz": "0.5",
        "b1": 0,
        "b9": b"\0\1",
        "b64": 0,
        "e": "a",
        "el": "ä",
        "s": "x",
    },
    **{
        "da": "0000-00-00",
        "t0": "-838:59:59",
        "t1": "-838:59:58.9",
        "t3": "-00:00:00.001",
        "t6": "-01:00:00.000001",
    },
    **{
        "dt": "0000-00-00 00:00:00",
        "dt2": "1000-01-01 00:00:00.01",
        "dt3": "2015-00-00 00:00:00.001",
    },
    **{
        "dt6": "1000-01-01 00:00:00.000001",
        "ts": "0000-00-00 00:00:00",
        "ts1": "1970-01-01 00:00:01.5",
    },
    **{"ts5": "0000-00-00 00:00:00", "ts6": "1970-01-01 00:00:01.000001"},
    **dict.fromkeys(
        ("c", "cl", "v3", "v4", "vl", "va", "vu", "v16", "v32", "tt", "tx", "mt", "lt", "behind"),
        "",
    ),
    **dict.fromkeys(("bn", "vb", "tb", "bl", "mb", "lb"), b""),
    **{"j": "{}", "odd '{\"\\\\": 1},
}
_HIGH = {
    **{
        "y": 2155,
        "ti": 127,
        "tu": 255,
        "si": 32767,
        "su": 65535,
        "mi": 2**23 - 1,
        "mu": 2**24 - 1,
        "ii": 2**31 - 1,
    },
    **{
        "iu": 2**32 - 1,
        "bi": 2**63 - 1,
        "bu": 2**64 - 1,
        "iz": 42,
        "f": 3.402823466e38,
        "fd": 1234.567,
    },
    **{
        "d": 2.2250738585072014e-308,
        "dd": 99999999.99,
        "n1": "99999999.99",
        "n2": "9" * 35 + "." + "9" * 30,
    },
    **{
        "n3": "0.00001",
        "n4": 999999999,
        "nz": "12345.678",
        "b1": 1,
        "b9": b"\1\xff",
        "b64": 2**64 - 1,
    },
    **{
        "e": "b'c",
        "el": "ö",
        "s": "x,y z,é",
        "da": "9999-12-31",
        "t0": "838:59:59",
        "t1": "838:59:58.9",
    },
    **{
        "t3": "23:59:59.999",
        "t6": "12:34:56.654321",
        "dt": "9999-12-31 23:59:59",
        "dt2": "9999-12-31 23:59:59.99",
    },
    **{
        "dt3": "2024-02-29 12:00:00.120",
        "dt6": "9999-12-31 23:59:59.999999",
        "ts": "2038-01-19 03:14:07",
    },
    **{
        "ts1": "2038-01-19 03:14:07.9",
        "ts5": "2024-02-29 01:02:03.12345",
        "ts6": "2024-02-29 01:02:03.123456",
    },
    **{
        "c": "ab  ",
        "cl": "ü" * 250,
        "v3": 'é€\t\n"\\/\x01\x7f\u2028',
        "v4": "😀" * 70,
        "vl": "äöü€\x81\x9d",
    },
    **{
        "va": "abc~",
        "vu": "é€",
        "v16": "é€😀",
        "v32": "é😀",
        "bn": b"\xff\0\0",
        "vb": b"\0" * 300,
        "tb": b"\xff" * 255,
    },
    **{
        "bl": bytes(range(256)) * 200,
        "mb": b"\x80" * 70_000,
        "lb": b"x" * 70_001,
        "tt": "é" * 100,
        "tx": "é\x80",
    },
    **{"mt": "m" * 70_000, "lt": "😀" * 20_000, "behind": "é"},
    "j": '{"b": 1, "aa": [1, -5, 70000, 3000000000, 18446744073709551615, 1.5, 1e100, true,'
    ' null, "é\\"😀", {"k": {}}],'
    f' "": "{"z" * 70_000}"}}',
}
# MySQL 5.7 shows a double without a fraction as an integer, though it keeps it as a double.
_WHOLE_DOUBLE = "1.0"
_WHOLE_DOUBLES = "[1.0, 0.1, 1e-5, 123456789.123456789, 12345678901234567890123, -0.0]"
_ODD = [
    {
        "e": "no label",
        "s": "",
        "f": 0.1,
        "d": 0.1,
        "bn": b"\xff\0\0 ",
        "n1": "0.5",
        "n2": "-0.5",
        "n4": "0",
    },
    {"da": "2015-02-30", "t0": "00:00:01", "y": 0, "e": 'é,"', "el": 1, "s": 2},
    {"f": 1.17549435e-38, "d": 5e-324, "e": "d\\e", "n1": "-0.01", "n3": "0"},
    {"f": 16777216, "d": 1e22, "fd": -0.001, "dd": 0.01},
    {"f": 1e-45, "d": 0.30000000000000004, "j": "[]"},
    {"j": '"text"', "b9": b"\1\0", "b64": 2**63},
    {"j": _WHOLE_DOUBLE},
    {"j": _WHOLE_DOUBLES},
    {"j": "[" + ",".join(f'{{"k{n}": "{"v" * 50}"}}' for n in range(3000)) + "]"},
    {"j": '{"a":' * 30 + "1" + "}" * 30},
    {
        "d": 1.7976931348623157e308,
        "f": -1.17549435e-38,
        "dd": -0.01,
        "t0": "-00:00:01",
        "ts": "1970-01-01 00:00:01",
    },
]
_STATEMENTS = {
    "mariadb": [
        "INSERT INTO every_type (id, f, d) VALUES (9001, -0.0, -0e0)",
        (
            "INSERT INTO every_type (id, u, i6, i4, gbk, behind)"
            " VALUES (9003, UUID(), '::1', '127.0.0.1', '中文', 'é')"
        ),
        """INSERT INTO every_type (id, vc, bc, bbc, behind) VALUES
        (9004, REPEAT('é€', 300), REPEAT('é', 500), REPEAT(x'00ff', 40000), 'é'),
        (9005, '', '', '', ''),
        (9006, 'é', '€', x'00', 'é'), (9007, REPEAT('ab', 300), NULL, x'', NULL)""",
        "SET column_compression_zlib_wrap = ON",
        "INSERT INTO every_type (id, vc, bc) VALUES (9008, REPEAT('é', 400), REPEAT('x', 65535))",
        # Lone surrogates pass for utf8 here: poison for whoever decodes strictly.
        "INSERT INTO every_type (id, v4, tx, v3) VALUES (9009, x'61eda08062', 'ok', x'edbfbf')",
    ],
    "mysql": [
        "INSERT INTO every_type (id, f, d) VALUES (9001, -0.0, -0e0)",
        "INSERT INTO every_type (id, p, behind) VALUES (9003, POINT(1, 2), 'é')",
        "INSERT INTO every_type (id, gbk, behind) VALUES (9006, '中文', 'é')",
        "INSERT INTO every_type (id, vec, behind) VALUES (9004, STRING_TO_VECTOR('[1,2,3]'), 'é')",
        """INSERT INTO every_type (id, j) VALUES (9005, JSON_OBJECT(
           'n', CAST('1.10' AS DECIMAL(10,2)),
           'm', CAST('-123456789012345.678901' AS DECIMAL(30,6)),
           't', CAST('-12:34:56.5' AS TIME(1)),
           'dt', CAST('2015-01-15 23:24:25.12' AS DATETIME(2)), 'da', CAST('2015-01-15' AS DATE),
           'b', CAST('abc' AS BINARY(3)), 'f', 1e0/3, 'ts', TIMESTAMP('2020-01-01 00:00:00'),
           'bit', b'101',
           'y', CAST(2020 AS YEAR), 'neg', -1e-7, 'big', 1e20))""",
    ],
}


def skipped(version: ServerVersion) -> frozenset[str]:
    """Return the columns that are not compared."""
    if version.is_mariadb(11, 8):  # it leaves these out of the images of updates and deletes
        return _NOT_IN_JSON | _GENERATED
    return _NOT_IN_JSON


def definition(version: ServerVersion) -> str:
    """CREATE TABLE, without what the version doesn't know."""
    columns = f"{_SKIPPED[version.flavour]}, {_COLUMNS}"
    if version.flavour == "mysql" and not version.is_mysql(9):
        columns = columns.replace("vec VECTOR(3), ", "")
    if version.flavour == "mysql" and not version.is_mysql(8, 0, 23):
        columns = columns.replace(" INVISIBLE", "")
    return f"CREATE TABLE {TABLE} ({columns})"


def statements(version: ServerVersion) -> list[str]:
    """Rows that only SQL can write."""
    known = []
    for statement in _STATEMENTS[version.flavour]:
        if "VECTOR" in statement and not version.is_mysql(9):
            continue
        if not version.is_mysql(8, 0, 22):
            statement = statement.replace("'y', CAST(2020 AS YEAR), ", "")  # noqa: PLW2901
        known.append(statement)
    return [f"INSERT INTO {TABLE} (id, g) VALUES (9002, ST_GeomFromText('POINT(1 2)'))", *known]


def rows(version: ServerVersion, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Columns by name: nothing but NULLs, lowest, highest, oddities, then random numbers."""
    knows_whole_doubles = version.flavour == "mariadb" or version.is_mysql(8)
    for number, row in enumerate([{"inv": None}, _LOW, _HIGH, *_ODD], 1):
        if knows_whole_doubles or row.get("j") not in (_WHOLE_DOUBLE, _WHOLE_DOUBLES):
            yield {"id": number, **row}
    chance = random.Random(seed)
    for number in range(100, 200):
        single = struct.unpack(
            "f", struct.pack("f", chance.uniform(-1, 1) * 10 ** chance.randint(-30, 30))
        )[0]
        yield {
            "id": number,
            "f": single,
            "d": chance.uniform(-1, 1) * 10.0 ** chance.randint(-300, 300),
            "n1": f"{chance.randint(-(10**7), 10**7)}.{chance.randint(0, 99):02d}",
            "n2": f"{chance.randint(-(10**20), 10**20)}.{chance.randint(0, 10**9)}",
        }


def large_rows() -> Iterator[dict[str, Any]]:
    """Events around and past the 16 MiB of one packet."""
    yield {"id": 5000, "lt": "é" * (9 << 20)}
    yield {"id": 5001, "lb": b"\0\1" * 0xFFFFFF, "y": 2020}
    yield from ({"id": 5100 + less, "lb": b"q" * (0xFFFFFF - less)} for less in range(54, 68))
