"""What a store holds: projects with generations and sessions, and the states that they go through."""

from __future__ import annotations

from dataclasses import dataclass

BACKENDS = ("zfs", "zvol", "btrfs", "reflink", "copy")
BEGUN_WITH = "cowherd:backend"
"""The property of a store's dataset that says which backend it was begun with."""

COMPLETE = "complete"
BUILDING = "building"
"""A generation that is not complete yet."""
MAKING = "making"
"""A session that is not complete yet."""
REMOVING = "removing"
UNMARKED = "unmarked"
"""There is a tree, and no marker. Whose it is cannot be told, so it is neither used nor removed."""
GONE = "gone"
"""There is a marker, and no tree."""


@dataclass(frozen=True)
class Record:
    """What is noted of a generation when it is complete.

    created: seconds since 1970. source: "session:ID" or "directory:PATH". fingerprint: of the source as it was, by
    which an unchanged one is recognised.
    """

    created: int
    source: str
    fingerprint: str


@dataclass(frozen=True)
class Generation:
    """state: COMPLETE, BUILDING, REMOVING, UNMARKED or GONE. record: that of a complete one."""

    number: int
    state: str
    record: Record | None = None


@dataclass(frozen=True)
class Session:
    """A writable clone.

    generation: None where it cannot be told. state: COMPLETE, MAKING, REMOVING, UNMARKED or GONE.
    path: where its tree is seen. mounted: whether it is seen there now. created: seconds since 1970.
    made_folder: whether the folder at `path` was made for it, and goes with it.
    """

    name: str
    generation: int | None
    state: str
    path: str
    mounted: bool = False
    created: int = 0
    made_folder: bool = False


@dataclass(frozen=True)
class Project:
    """generations, sessions: by number and by name. foreign: what is among them and is not ours.

    whole: False when places for them are missing, as after an interrupted run, so that making the project goes on.
    """

    name: str
    current: int | None = None
    generations: tuple[Generation, ...] = ()
    sessions: tuple[Session, ...] = ()
    foreign: tuple[str, ...] = ()
    whole: bool = True

    @property
    def last(self) -> int:
        """The highest number of a generation; the next one gets the one after it."""
        return max((each.number for each in self.generations), default=self.current or 0)

    def generation(self, number: int | None) -> Generation | None:
        """Return the generation with this number."""
        return next((each for each in self.generations if each.number == number), None)

    def session(self, name: str) -> Session | None:
        """Return the session with this name."""
        return next((each for each in self.sessions if each.name == name), None)

    def sessions_of(self, number: int) -> tuple[Session, ...]:
        """Return the sessions that need the generation with this number."""
        return tuple(each for each in self.sessions if each.generation == number and each.state != GONE)


@dataclass(frozen=True)
class Room:
    """Bytes that can still be written to a store, and bytes that its file system or pool has in all."""

    free: int
    total: int


@dataclass(frozen=True)
class Sizes:
    """Bytes of data of a tree: those that nothing else refers to, and those that something else does."""

    exclusive: int
    shared: int

    @property
    def apparent(self) -> int:
        """All that the tree refers to."""
        return self.exclusive + self.shared
