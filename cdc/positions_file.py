"""The positions as a file, a line a hospital, and back. The higher position holds: an old file can
move nobody back.
"""

from contextlib import closing
from pathlib import Path

from cdc.positions import Positions, Saved
from passport.errors import Fatal, without_text
from passport.settings import Settings


def save(settings: Settings, file: Path) -> list[str]:
    """Writes where each hospital's reader is. Returns their ids. NotReady, Fatal."""
    with closing(Positions(settings.kafka)) as positions:
        found = positions.all()
    try:
        file.write_bytes(b"".join(found[name].encode() + b"\n" for name in sorted(found)))
    except OSError as error:
        raise Fatal(
            f"{file} can't be written ({without_text(error)})",
            hint="passport positions backup FILE",
        ) from None
    return sorted(found)


def restore(settings: Settings, file: Path) -> dict[str, bool]:
    """Saves each line's position, where it is further than what is there. By hospital: whether it
    was.
    """
    Positions.ensure(settings)
    with closing(Positions(settings.kafka)) as positions:
        there = positions.all()
        further = {one.hospital: one for one in _read(file)}
        taken = {
            name: name not in there or one.rank > there[name].rank for name, one in further.items()
        }
        for name, one in further.items():
            if taken[name]:
                positions.save(one)
    return taken


def _read(file: Path) -> list[Saved]:
    try:
        return [Saved.parse(line) for line in file.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise Fatal(
            f"{file} is no backup of positions ({without_text(error)})",
            hint="passport positions backup FILE",
        ) from None
