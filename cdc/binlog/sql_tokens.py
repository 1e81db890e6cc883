"""SQL text -> tokens, as MySQL and MariaDB split it. Pure.

What a text means depends on the session that ran it: its character set, and whether ANSI_QUOTES or
NO_BACKSLASH_ESCAPES was set. The binlog says all of that beside each statement.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Literal, NamedTuple

from cdc.binlog.byte_reader import UNREADABLE, ByteReader
from cdc.binlog.field_types import Flavour

# Bits of sql_mode.
_ANSI_QUOTES = 1 << 2
_NO_BACKSLASH_ESCAPES = 1 << 20

# The status variables of a statement, up to the character sets. Each has a size, or is a text.
_FLAGS, _SQL_MODE, _AUTO_INCREMENT, _CHARSETS, _CATALOG = 0, 1, 3, 4, 6
_SIZES = {_FLAGS: 4, _SQL_MODE: 8, _AUTO_INCREMENT: 4, _CHARSETS: 6}

# Python's names of the character sets that a client may send. The others are Python's own names.
_CODECS = {
    "utf8mb4": "utf-8",
    "utf8mb3": "utf-8",
    "utf8": "utf-8",
    "binary": "utf-8",
    "latin1": "cp1252",
    "latin2": "iso8859-2",
    "latin5": "iso8859-9",
    "latin7": "iso8859-13",
    "greek": "iso8859-7",
    "hebrew": "iso8859-8",
    "koi8r": "koi8-r",
    "koi8u": "koi8-u",
    "sjis": "shift_jis",
    "ujis": "euc-jp",
    "eucjpms": "euc-jp",
    "euckr": "euc-kr",
    "tis620": "tis-620",
    "macroman": "mac-roman",
    "macce": "mac-latin2",
}


class Token(NamedTuple):
    """A piece of a statement.

    A word is not quoted: a keyword, a name or a number. A name is an identifier in quotes, a text a
    literal in quotes, both without them. Anything else is a symbol of one character.
    """

    kind: Literal["word", "name", "text", "symbol", "end"]
    text: str


END = Token("end", "")
DOT = Token("symbol", ".")
AT = Token("symbol", "@")


class Session(NamedTuple):
    """What the binlog says of the session that ran a statement."""

    sql_mode: int = 0
    charset: str = "utf8mb4"

    @classmethod
    def read(cls, status: bytes, charsets: Mapping[int, str]) -> "Session":
        """Read the status variables of a QUERY event.

        `charsets` has the character sets by collation id. What is missing is as the servers have it
        by default.
        """
        session = cls()
        reader = ByteReader(status)
        try:
            while not reader.at_end:
                variable = reader.number(1)
                if variable == _CATALOG:
                    reader.take(reader.number(1))
                    continue
                if variable not in _SIZES:
                    break
                value = ByteReader(reader.take(_SIZES[variable]))
                if variable == _SQL_MODE:
                    session = session._replace(sql_mode=value.number(8))
                elif variable == _CHARSETS:
                    session = session._replace(charset=charsets.get(value.number(2), "utf8mb4"))
        except UNREADABLE:
            return session
        return session

    def tokens(self, statement: bytes, flavour: Flavour) -> Iterator[Token]:
        """Yield the tokens of a statement, without comments.

        What the server ran although it stands in a comment, as in ``/*!50003 ... */``, is no
        comment. A server writes such a comment into its binlog only if it ran what is in it.
        """
        codec = _CODECS.get(self.charset, self.charset)
        try:
            sql = statement.decode(codec, "replace")
        except LookupError:
            sql = statement.decode("utf-8", "replace")
        if codec != "utf-8":
            sql = sql.replace("\u00a0", " ")  # a space to them, and a letter to utf8
        pattern = _pattern(
            flavour,
            bool(self.sql_mode & _ANSI_QUOTES),
            bool(self.sql_mode & _NO_BACKSLASH_ESCAPES),
        )
        is_in_comment = False
        for match in pattern.finditer(sql):
            kind = match.lastgroup
            text = match[0]
            if kind == "word":
                yield Token("word", text)
            elif kind == "name":
                yield Token("name", text[1:-1].replace(text[0] * 2, text[0]))
            elif kind == "text":
                yield Token("text", text[1:-1])
            elif kind == "symbol":
                yield Token("symbol", text)
            elif kind == "opened":
                is_in_comment = True
            elif kind == "closed":
                if not is_in_comment:
                    yield Token("symbol", "*")
                    yield Token("symbol", "/")
                is_in_comment = False


@cache
def _pattern(flavour: Flavour, ansi_quotes: bool, no_escapes: bool) -> "re.Pattern[str]":
    def quoted(quote: str, *, escapes: bool) -> str:
        if escapes:
            return rf"{quote}(?:[^{quote}\\]++|{quote}{quote}|\\.)*+{quote}"
        return rf"{quote}(?:[^{quote}]++|{quote}{quote})*+{quote}"

    texts = [quoted("'", escapes=not no_escapes)]
    names = [quoted("`", escapes=False)]
    if ansi_quotes:
        names.append(quoted('"', escapes=False))
    else:
        texts.append(quoted('"', escapes=not no_escapes))
    marks = "M?!" if flavour == "mariadb" else "!"
    alternatives = (
        r"[ \t\n\v\f\r]++",
        rf"(?P<opened>/\*{marks}(?:\d{{5,6}})?)",
        r"/\*.*?\*/",
        # Two dashes begin a comment only in front of a space, a control character or the end.
        r"--(?=[\x00-\x20\x7f]|\Z)[^\n]*+",
        r"#[^\n]*+",
        r"(?P<closed>\*/)",
        rf"(?P<text>{'|'.join(texts)})",
        rf"(?P<name>{'|'.join(names)})",
        r"(?P<word>[0-9A-Za-z_$\x80-\U0010ffff]++)",
        r"(?P<symbol>.)",
    )
    return re.compile("|".join(alternatives), re.DOTALL)


class TokenReader:
    """Reads tokens front to back; `next` is the one that comes.

    At the end `next` is END, for ever.
    """

    def __init__(self, tokens: Iterator[Token]) -> None:
        self._tokens = tokens
        self.next = next(tokens, END)

    def take(self) -> Token:
        """Return the next token, and step behind it."""
        token = self.next
        self.next = next(self._tokens, END)
        return token

    def word(self) -> str:
        """Return the next token in upper case if it is a word, else ""."""
        return self.next.text.upper() if self.next.kind == "word" else ""

    def accept(self, *words: str) -> str:
        """Step behind one of these words if it comes. Return it, or "" if it doesn't come."""
        word = self.word()
        if word not in words:
            return ""
        self.take()
        return word

    def accept_symbol(self, symbol: str) -> bool:
        """Step behind this symbol if it comes. Return whether it came."""
        if self.next != ("symbol", symbol):
            return False
        self.take()
        return True

    def identifier(self) -> str:
        """Return an identifier, and step behind it; "" if none comes."""
        if self.next.kind not in ("word", "name"):
            return ""
        return self.take().text

    def rest(self) -> Iterator[Token]:
        """Yield the tokens that are left."""
        while self.next is not END:
            yield self.take()
