"""Moves of instances to another pool as the journals on the host have them: one file for each instance, by its uuid.

A move goes through its phases in this order. Each is in the journal, durably, before anything of it is done:

    copying       Incus copies the source, which runs on, to a new instance that is switched off
    filling       the copy is made equal to the source, which still runs
    stopping      the source is stopped, the copy brought up to date, and both are compared
    verified      both are equal; the source is set aside and the copy takes its name and identity
    starting      that is done; the instance is started and looked at
    moved         it is well; the source is kept aside
    rolling_back  the source is about to be put back, from whichever phase
    rolled_back   the source is back; the copy is kept aside
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import CowError
from ..journal import Journal
from .client import Server
from .instances import Instance
from .profiles import Key

KIND = "move-instance"
COPYING = "copying"
FILLING = "filling"
STOPPING = "stopping"
VERIFIED = "verified"
STARTING = "starting"
MOVED = "moved"
ROLLING_BACK = "rolling_back"
ROLLED_BACK = "rolled_back"
PHASES = (COPYING, FILLING, STOPPING, VERIFIED, STARTING, MOVED, ROLLING_BACK, ROLLED_BACK)
BEFORE_COMMIT = (COPYING, FILLING, STOPPING)
ENDED = (MOVED, ROLLED_BACK)

MARK = "user.cowherd.move"
"""Configuration key of copies and kept sources; its value says of which move they are."""
_OWN_NAMES = ("move-of-", "kept-of-", "undone-of-")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_LONGEST_NAME = 63


@dataclass(frozen=True)
class Aside:
    """An instance that a move has put aside, and how it was then.

    since: seconds since 1970. last_used: when it was started last. fingerprints: those of its trees, by the name of the
    snapshot, "" for the root. compared: whether it was found equal to what is in its place. going: whether its removal
    has begun.
    """

    name: str
    uuid: str
    pool: str
    since: float
    last_used: str
    fingerprints: Mapping[str, str]
    compared: bool
    going: bool = False


@dataclass(frozen=True)
class Move:
    """A move of one instance.

    uuid: of the instance; serial: which move of it. original: the body that a PUT takes to have the source as it was.
    copy_uuid: of the copy until it takes over that of the source, and after it gave it back. kept_uuid: of the source
    while it is aside. nics: those of the source on bridges of the server, as they are in effect. was_running,
    addresses, last_used: of the source when it was stopped. fingerprints: of its trees then. asides: what this move and
    earlier ones have put aside.
    """

    project: str
    name: str
    uuid: str
    serial: int
    from_pool: str
    to_pool: str
    phase: str
    original: Mapping[str, Any]
    kept_uuid: str
    copy_uuid: str
    began: float
    nics: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    was_running: bool = False
    addresses: tuple[str, ...] = ()
    last_used: str = ""
    stopped_at: float = 0.0
    ended: float = 0.0
    downtime: float = 0.0
    verifying: float = 0.0
    bytes: int = 0
    digest: str = ""
    snapshot_digests: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    asides: tuple[Aside, ...] = ()

    @property
    def key(self) -> Key:
        """What the instance is called."""
        return Key(self.project, self.name)

    @property
    def copy(self) -> Key:
        """What the copy is called before it takes the source's place."""
        return self._own("move-of-")

    @property
    def kept(self) -> Key:
        """What the source is called while it is aside."""
        return self._own("kept-of-")

    @property
    def undone(self) -> Key:
        """What the copy is called once the move is undone."""
        return self._own("undone-of-")

    @property
    def source_keys(self) -> tuple[Key, ...]:
        """All that the source may be called meanwhile."""
        return self.key, self.kept

    @property
    def copy_keys(self) -> tuple[Key, ...]:
        """All that the copy may be called."""
        return self.key, self.copy, self.undone

    @property
    def mark(self) -> str:
        """The value of MARK in what belongs to this move."""
        return f"{self.uuid}:{self.serial}"

    @property
    def is_active(self) -> bool:
        """Whether it is neither finished nor undone."""
        return self.phase not in ENDED

    def _own(self, prefix: str) -> Key:
        suffix = hashlib.sha256(self.mark.encode()).hexdigest()[:6]
        return Key(self.project, f"{prefix}{self.name[: _LONGEST_NAME - len(prefix) - 7].rstrip('-')}-{suffix}")


def read_all(server: Server) -> dict[str, Move]:
    """Read the journals of all moves, by uuid. CowError when one of them is damaged, or of other work."""
    return {move.uuid: move for path in sorted(_folder(server).glob("*.json")) if (move := _read(path)) is not None}


def write(server: Server, move: Move) -> None:
    """Make this what the journal says, durably, before returning."""
    _journal(server, move.uuid).write(asdict(move))


def forget(server: Server, move: Move) -> None:
    """Remove the journal of a move of which nothing is left."""
    _journal(server, move.uuid).remove()


def of(moves: Mapping[str, Move], key: Key, there: Instance | None) -> Move | None:
    """Return the move that concerns what is called by this name, or was.

    One that is under way is found by the name, since the instance's uuid changes meanwhile; one that has ended by uuid.
    """
    under_way = next((move for move in moves.values() if move.is_active and move.key == key), None)
    if under_way is not None or there is not None:
        return under_way or moves.get(there.uuid if there else "")
    return max((move for move in moves.values() if move.key == key), key=lambda move: move.began, default=None)


def is_own_name(name: str) -> bool:
    """Say whether a name is like those that moves give."""
    return name.startswith(_OWN_NAMES)


def checked_uuid(found: Instance) -> str:
    """Return the uuid of an instance in the form that makes it a file name."""
    if not _UUID.fullmatch(found.uuid):
        raise CowError(
            f"Instance {found.key} has no uuid of the usual form ({found.uuid!r}). Start and stop it once, "
            f"upon which Incus gives it one."
        )
    return found.uuid


def describe(move: Move | None) -> dict[str, Any] | None:
    """Give a move as return value of a module."""
    if move is None:
        return None
    names_aside = [aside.name for aside in move.asides]
    return {
        "phase": move.phase,
        "from_pool": move.from_pool,
        "to_pool": move.to_pool,
        "kept": move.kept.name if move.kept.name in names_aside else "",
        "aside": names_aside,
        "began": as_text(move.began),
        "ended": as_text(move.ended),
        "downtime_seconds": round(move.downtime, 3),
        "verify_seconds": round(move.verifying, 3),
        "total_seconds": round(max(move.ended - move.began, 0.0), 3),
        "bytes": move.bytes,
        "digest": move.digest,
        "snapshot_digests": dict(move.snapshot_digests),
    }


def as_text(seconds: float) -> str:
    """Write a time in UTC (ISO 8601), "" for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""


def with_aside_going(move: Move, name: str) -> Move:
    """Return the move with one of those that it put aside noted as being removed."""
    return replace(move, asides=tuple(replace(each, going=each.going or each.name == name) for each in move.asides))


def without_aside(move: Move, name: str) -> Move:
    """Return the move without one of those that it put aside."""
    return replace(move, asides=tuple(aside for aside in move.asides if aside.name != name))


def _folder(server: Server) -> Path:
    return Path(server.folder) / "cowherd" / "moves"


def _journal(server: Server, uuid: str) -> Journal:
    return Journal(_folder(server) / f"{uuid}.json", KIND)


def _read(path: Path) -> Move | None:
    journal = Journal(path, KIND)
    document = journal.read()
    if document is None:
        return None
    try:
        asides = tuple(Aside(**aside) for aside in document["asides"])
        move = Move(**{**document, "asides": asides, "addresses": tuple(document["addresses"])})
        checked = move.phase in PHASES and f"{move.uuid}.json" == path.name and _UUID.fullmatch(move.uuid)
    except (KeyError, TypeError, AttributeError) as error:
        raise CowError(_foreign(path)) from error
    if not checked or not _is_typed(move):
        raise CowError(_foreign(path))
    return move


def _is_typed(move: Move) -> bool:
    text = (one for one in fields(Move) if one.type == "str")
    return all(isinstance(getattr(move, one.name), str) for one in text) and isinstance(move.original, dict)


def _foreign(path: Path) -> str:
    return (
        f"The journal {path} is not one of a move that this version can read. Nothing was changed. Find out what wrote "
        f"it; move it aside only when that work is known to be finished."
    )
