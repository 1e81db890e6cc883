"""The saved positions as a file, a line a hospital, and back.

The furthest position holds, so that restoring an old file can move nobody back.
"""

from contextlib import closing
from pathlib import Path
from typing import Literal

from cdc.positions import Positions, Saved
from cdc.resume import outdated
from passport.errors import Fatal, without_text
from passport.settings import Settings

Restored = Literal["restored", "older than what was published", "left alone"]


def save(settings: Settings, file: Path) -> list[str]:
    """Write where each hospital's reader is. Return the hospitals' ids, sorted.

    Raises NotReady, and Fatal if the file can't be written.
    """
    with closing(Positions(settings.kafka)) as positions:
        saved = positions.all()
    hospital_ids = sorted(saved)
    lines = [saved[hospital_id].encode() + b"\n" for hospital_id in hospital_ids]
    try:
        file.write_bytes(b"".join(lines))
    except OSError as error:
        raise Fatal(
            f"{file} can't be written ({without_text(error)})",
            hint="passport positions backup FILE",
        ) from None
    return hospital_ids


def restore(settings: Settings, file: Path) -> dict[str, Restored]:
    """Save each line's position that is further than the one in Kafka.

    Return by hospital id what became of it. One that is of an older epoch than what was published
    is restored, too; its reader begins a new epoch. Raises NotReady, and Fatal if the file is no
    backup.
    """
    Positions.ensure(settings)
    restored: dict[str, Restored] = {}
    with closing(Positions(settings.kafka)) as positions:
        current = positions.all()
        backup = {saved.hospital: saved for saved in _read(file)}
        for hospital_id, saved in backup.items():
            before = current.get(hospital_id)
            if before is not None and saved.rank <= before.rank:
                restored[hospital_id] = "left alone"
                continue
            positions.save(saved)
            restored[hospital_id] = "restored"
            if outdated(saved, positions.published_epoch(saved.partition)):
                restored[hospital_id] = "older than what was published"
    return restored


def _read(file: Path) -> list[Saved]:
    try:
        return [Saved.parse(line) for line in file.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise Fatal(
            f"{file} is no backup of positions ({without_text(error)})",
            hint="passport positions backup FILE",
        ) from None
