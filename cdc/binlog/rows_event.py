"""ROWS events -> JSON text of the carried columns. Pure: bytes in, texts out.

Each shape of row (which columns the row image carries, and which of them are NULL) gets its own
small function. It is generated and compiled when the shape is first seen: neighbouring fixed-size
columns are unpacked at once, and the other ones are stepped over.
"""

import struct
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring as quoted
from typing import Any, Literal

from cdc.binlog.field_types import DAYS, INTEGER_KEYS, TIMES, Column, Layout, layout
from passport.errors import Fatal

Decoder = Callable[[bytes, int], tuple[Any, int]]
"""Takes an event and where the row's values begin. Returns the row, and where its values end."""

Form = Literal["text", "keys"]
"""A row is JSON text, or a dictionary of the integers that are its keys."""

_MAX_SHAPES = 5_000  # so many NULL patterns of one table are kept compiled


class ImageDecoder:
    """Decodes row images that carry one set of columns."""

    def __init__(self, columns: Sequence[Column], carried: Sequence[str], form: Form) -> None:
        self._columns = columns
        self._form = form
        self.null_bytes = (len(columns) + 7) // 8
        names = [column.name for column in columns]
        self.carried = [name for name in carried if name in names]
        self._decoders: dict[bytes, Decoder] = {}

    def row(self, event: bytes, at: int) -> tuple[Any, int]:
        """Return the row whose NULL bitmap is at `at`, and where the row ends."""
        start = at + self.null_bytes
        nulls = event[at:start]
        decoder = self._decoders.get(nulls) or self._compile(nulls)
        return decoder(event, start)

    def pairs(
        self, op: str, event: bytes, at: int, second: "ImageDecoder"
    ) -> list[tuple[Any, Any]]:
        """Return the rows from `at` to the event's end, before and after the change.

        `second` decodes the images of updated rows after the change. Raises ValueError if a row is
        cut.
        """
        pairs: list[tuple[Any, Any]] = []
        decoders, end = self._decoders, len(event)
        while at < end:
            start = at + self.null_bytes
            nulls = event[at:start]
            # This is `self.row`, without its call for every row.
            row, at = (decoders.get(nulls) or self._compile(nulls))(event, start)
            if op == "c":
                pairs.append((None, row))
            elif op == "d":
                pairs.append((row, None))
            elif at < end:
                after, at = second.row(event, at)
                pairs.append((row, after))
            else:
                raise ValueError("an update without its second image")
        if at != end:
            raise ValueError("a row ends behind its event")
        return pairs

    def _compile(self, nulls: bytes) -> Decoder:
        if len(self._decoders) >= _MAX_SHAPES:
            self._decoders.clear()
        bits = int.from_bytes(nulls, "little")
        code = _Code(self._form)
        for index, column in enumerate(self._columns):
            code.add(
                column, is_null=bool(bits >> index & 1), is_carried=column.name in self.carried
            )
        decoder = self._decoders[nulls] = code.compiled(self.carried)
        return decoder


class _Code:
    """The source of one decoder.

    It holds column names only as quoted literals, and no values at all.
    """

    def __init__(self, form: Form) -> None:
        self._form = form
        self._lines: list[str] = []
        self._scope: dict[str, Any] = {"Q": quoted, "I": int.from_bytes, "D": DAYS, "T": TIMES}
        self._format = "<"
        self._names: list[str] = []
        self._values: dict[str, str] = {}

    def add(self, column: Column, *, is_null: bool, is_carried: bool) -> None:
        """Add the next column of the row image."""
        if is_null:
            self._values[column.name] = "null" if self._form == "text" else "None"
            return
        shape = layout(column)
        variable = f"v{len(self._scope)}_{len(self._values)}"
        if is_carried:
            self._values[column.name] = self._expression(column, shape, variable)
        if shape.prefixed:
            self._prefixed(shape, variable, is_carried)
        elif is_carried:
            self._format += shape.unpack
            self._names.append(variable)
        else:
            self._format += f"{struct.calcsize('<' + shape.unpack)}x"

    def _expression(self, column: Column, shape: Layout, variable: str) -> str:
        if self._form == "keys":
            if column.type not in INTEGER_KEYS:
                raise _undecodable(column, "it is a key and no integer")
            return (shape.text or "").format(variable)[1:-1]
        if shape.text is None:
            raise _undecodable(
                column, f"type {column.type}, {column.charset or 'unknown character set'}"
            )
        name = f"F{len(self._scope)}"
        self._scope[name] = shape.function
        return shape.text.replace("F(", f"{name}(").format(variable)

    def _prefixed(self, shape: Layout, variable: str, is_carried: bool) -> None:
        self._format += shape.unpack
        self._names.append("n")
        self._flush()
        if shape.unpack == "3s":
            self._lines.append("n=I(n,'little')")
        self._lines += ["q=p+n", f"{variable}=b[p:q]", "p=q"] if is_carried else ["p+=n"]

    def _flush(self) -> None:
        """Add the line that unpacks the fixed-size columns gathered so far."""
        unpack = struct.Struct(self._format)
        if self._format == "<B" and self._names:
            self._lines.append(f"{self._names[0]}=b[p]")  # the same as unpacking it, and faster
        elif self._names:
            name = f"U{len(self._scope)}"
            self._scope[name] = unpack.unpack_from
            self._lines.append(f"{','.join(self._names)},={name}(b,p)")
        if unpack.size:
            self._lines.append(f"p+={unpack.size}")
        self._format, self._names = "<", []

    def compiled(self, carried: Sequence[str]) -> Decoder:
        """Return the decoder. `carried` is the order of the columns in its result."""
        self._flush()
        if self._form == "text":
            pieces = ",".join(f"{_literal(quoted(name))}:{self._values[name]}" for name in carried)
            result = f"f'''{{{{{pieces}}}}}'''"
        else:
            result = "{" + ",".join(f"{name!r}:{self._values[name]}" for name in carried) + "}"
        source = "\n ".join(["def decode(b,p):", *self._lines, f"return {result},p"])
        exec(source, self._scope)  # noqa: S102  # generated from column types alone
        decoder: Decoder = self._scope["decode"]
        return decoder


def _literal(text: str) -> str:
    """Return `text` as the constant part of an f-string."""
    return text.replace("\\", "\\\\").replace("'", "\\'").replace("{", "{{").replace("}", "}}")


def _undecodable(column: Column, reason: str) -> Fatal:
    return Fatal(
        f"binlog: column {column.name} cannot be decoded: {reason}",
        hint="take the column off the allow-list, or change its type at the source",
    )


class RowsDecoder:
    """Decodes the rows of one version of a table, as one TABLE_MAP event describes it.

    With the `form` "text", rows are JSON texts of the carried columns that the table has. With
    "keys" they are dictionaries of integers. `key` is the column that identifies a row whose
    image is incomplete; it is "" if such a row may be given as it is.
    """

    def __init__(
        self, columns: Sequence[Column], carried: Sequence[str], form: Form, key: str = ""
    ) -> None:
        self._columns = columns
        self._carried_columns = carried
        self._form: Form = form
        self._key = key
        self._bitmap = (len(columns) + 7) // 8
        self._head = bytes([min(len(columns), 255)])
        full = ((1 << len(columns)) - 1).to_bytes(self._bitmap, "little")
        self._full = self._head + full
        self._image = ImageDecoder(columns, carried, form)
        self._parts: dict[tuple[bytes, Form], ImageDecoder] = {}

    def rows(self, op: str, event: bytes, at: int) -> tuple[list[tuple[Any, Any]], bool]:
        """Return the rows of a ROWS event before and after the change, and if they are incomplete.

        A side without a row image is None. Incomplete rows are dictionaries of their keys alone.
        The event's column count is at `at`. Raises ValueError if the event does not fit its
        TABLE_MAP.
        """
        start = at + 1 + self._bitmap
        whole = event[at:start] == self._full
        if op == "u":
            start += self._bitmap
            whole = whole and event[start - self._bitmap : start] == self._full[1:]
        if whole:
            return self._image.pairs(op, event, start, self._image), False
        first, second, partial = self._partial_images(op, event, at)
        return first.pairs(op, event, start, second), partial

    def _partial_images(
        self, op: str, event: bytes, at: int
    ) -> tuple[ImageDecoder, ImageDecoder, bool]:
        if event[at : at + 1] != self._head:
            raise ValueError("another number of columns than its table")
        at += 1
        first = event[at : at + self._bitmap]
        second = event[at + self._bitmap :][: self._bitmap] if op == "u" else first
        images = [
            self._part_decoder(present, self._form, self._carried_columns)
            for present in (first, second)
        ]
        if self._form == "keys" or all(image.carried == self._image.carried for image in images):
            return images[0], images[1], False
        keys = [self._part_decoder(present, "keys", (self._key,)) for present in (first, second)]
        if not any(image.carried for image in keys):
            raise ValueError("a partial row without its key")
        return keys[0], keys[1], True

    def _part_decoder(self, present: bytes, form: Form, carried: Sequence[str]) -> ImageDecoder:
        image = self._parts.get((present, form))
        if image is None:
            bits = int.from_bytes(present, "little")
            columns = [column for index, column in enumerate(self._columns) if bits >> index & 1]
            image = self._parts[present, form] = ImageDecoder(columns, carried, form)
        return image
