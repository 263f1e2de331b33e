"""Storage pools: what they are, who uses them, and how a host gets from the pool it has to the one that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .. import loop, names
from ..errors import CowError, Drift
from ..journal import Journal
from ..plan import Plan, Step
from ..size import Size
from . import locate, profiles, settings
from .client import Server
from .locate import AUTO, CLONING_DRIVERS, Ground, Wish
from .profiles import DevicesByProfile, Key, Profile
from .settings import Settings

JOURNAL_KIND = "recreate-pool"
USER_KINDS = ("instances", "volumes", "buckets", "images", "profiles")
_OWN_KEYS = ("source", "size")
"""Keys of Incus that are options of their own here."""


@dataclass(frozen=True, order=True)
class User:
    """Something that uses a pool. kind: instances, volumes (custom ones), buckets, images or profiles."""

    kind: str
    project: str
    name: str

    def __str__(self) -> str:
        """Name it for people; the project only when it is not the default one."""
        return self.name if self.project == "default" else f"{self.project}/{self.name}"


@dataclass(frozen=True)
class Pool:
    """A pool as the server has it. size and used: bytes, None while the pool is not available."""

    name: str
    driver: str
    config: Mapping[str, str]
    status: str
    users: tuple[User, ...] = ()
    size: int | None = None
    used: int | None = None
    description: str = ""

    @property
    def source(self) -> str:
        """The effective source as the server has rewritten it: a loop file, UUID, device, path or dataset."""
        return self.config.get("source", "")

    @property
    def can_clone(self) -> bool:
        """Whether a new instance is a clone of its image and not a copy."""
        return self.driver in CLONING_DRIVERS

    @property
    def half_made(self) -> bool:
        """Whether making it was interrupted: a record without a source, that holds nothing."""
        return self.status != "Created" and not self.source and not self.contents

    @property
    def contents(self) -> tuple[User, ...]:
        """What would be lost with the pool. Cached images are not: Incus keeps their files and unpacks them again."""
        return tuple(user for user in self.users if user.kind not in ("images", "profiles"))

    @property
    def loop_size(self) -> Size | None:
        """The size of the loop file, None for a pool that is not in one."""
        return Size.parse(self.config["size"]) if "size" in self.config and self.source.endswith(".img") else None


@dataclass(frozen=True)
class Wanted:
    """The pool that is wanted.

    config: further keys of Incus. recreate_empty: an empty `dir` pool may be removed and made again. report_drift: what
    cannot be changed without moving data is reported and not an error.
    """

    wish: Wish
    config: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    recreate_empty: bool = False
    report_drift: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the options of incus_storage_pool and check it."""
        said = {key: params.get(key) or "" for key in ("source", "device", "path", "dataset", "size")}
        wish = Wish(name=params["name"], driver=params.get("driver") or AUTO, **said)
        locate.check(wish)
        config = settings.as_text(params.get("config") or {}, f"pool {wish.name}")
        for key in _OWN_KEYS:
            if key in config:
                raise CowError(f"Pool {wish.name} has {key} in its config. Give it as the option {key} of its own.")
        return cls(
            wish=wish,
            config=config,
            description=params.get("description"),
            recreate_empty=bool(params.get("recreate_empty")),
            report_drift=params.get("drift") == "report",
        )


@dataclass(frozen=True)
class Found:
    """What planning a pool needs to know.

    detached: devices that an interrupted run took off profiles and did not put back. unrecorded: files on a `dir` pool
    that the server has no record of, and would delete with the pool. foreign: what is in the loop file of the pool's
    name, though the pool is not in it; the server would delete that too.
    """

    pool: Pool | None
    ground: Ground
    profiles: Mapping[Key, Profile]
    detached: DevicesByProfile = field(default_factory=dict)
    unrecorded: tuple[str, ...] = ()
    foreign: str = ""


def read(server: Server, name: str) -> Pool | None:
    """Read one pool with what uses it, or None when there is none of that name."""
    found = server.find("storage-pools", name)
    return None if found is None else _pool(server, found.body)


def read_all(server: Server) -> tuple[Pool, ...]:
    """Read every pool of the server, by name."""
    bodies = server.get("storage-pools", recursion=1)
    return tuple(_pool(server, body) for body in sorted(bodies, key=lambda body: str(body["name"])))


def observe(server: Server, wish: Wish, known_profiles: Mapping[Key, Profile]) -> Found:
    """Read all that planning this pool needs."""
    pool = read(server, wish.name)
    ground = locate.observe(wish, server)
    return Found(
        pool=pool,
        ground=ground,
        profiles=known_profiles,
        detached=_detached(_journal(server, wish.name)),
        unrecorded=_unrecorded(pool) if pool is not None and pool.driver == "dir" and not pool.contents else (),
        foreign=_foreign(pool, ground.loop_file) if pool is not None and ground.loop_file else "",
    )


def describe(pool: Pool | None) -> dict[str, Any]:
    """Give a pool as return value of a module."""
    if pool is None:
        return {"pool": None}
    return {
        "pool": {
            "name": pool.name,
            "driver": pool.driver,
            "source": pool.source,
            "initial_source": pool.config.get("volatile.initial_source", pool.source),
            "status": pool.status,
            "description": pool.description,
            "size_bytes": pool.size,
            "used_bytes": pool.used,
            "can_clone": pool.can_clone,
            "half_made": pool.half_made,
            "used_by": {kind: [str(user) for user in pool.users if user.kind == kind] for kind in USER_KINDS},
        }
    }


def plan(server: Server, found: Found, wanted: Wanted) -> Plan:
    """Plan what makes the wanted pool be there, without losing anything."""
    pool = found.pool
    unfinished = _attach(server, wanted.wish.name, found.detached)
    if pool is None:
        return _create(server, found.ground, wanted) + unfinished
    if pool.half_made:
        _refuse_foreign(found, pool)
        ground = found.ground.without_half_made() if pool.can_clone else found.ground.without_pool()
        create = _create(server, ground, wanted)
        return _replace(server, found, pool.name, _delete(server, pool, "delete the half-made"), create)
    try:
        _refuse_unavailable(pool)
        if _is_other_driver(pool, wanted.wish):
            return _recreate(server, pool, found, wanted)
        _refuse_other_source(pool, wanted.wish)
        return Plan.of(*_grow(server, pool, wanted, found.ground), *_configure(server, pool, wanted)) + unfinished
    except Drift as drift:
        if not wanted.report_drift:
            raise
        return Plan(warnings=(str(drift),), facts={"drift": str(drift)}) + unfinished


def plan_absent(server: Server, found: Found) -> Plan:
    """Plan the removal of a pool that holds nothing, so that nothing is destroyed with it."""
    pool = found.pool
    if pool is None:
        return Plan()
    held = _held((user for user in pool.users if user.kind != "images"), found.unrecorded)
    if held:
        raise CowError(
            f"Pool {pool.name} is in use by {' and by '.join(held)}. It stays. Move or remove these first; "
            f"a pool is never removed together with what is on it."
        )
    _refuse_foreign(found, pool)
    return Plan.of(_delete(server, pool, "delete"))


def _pool(server: Server, body: Mapping[str, Any]) -> Pool:
    available = body["status"] == "Created"
    space = server.get("storage-pools", body["name"], "resources")["space"] if available else {}
    return Pool(
        name=body["name"],
        driver=body["driver"],
        config=body["config"],
        status=body["status"],
        users=tuple(sorted({_user(url) for url in body["used_by"]})),
        size=space.get("total"),
        used=space.get("used"),
        description=body["description"],
    )


def _user(url: str) -> User:
    parts = urlsplit(url)
    path = [unquote(part) for part in parts.path.removeprefix("/1.0/").split("/")]
    project = parse_qs(parts.query).get("project", ["default"])[0]
    if path[0] == "storage-pools":  # storage-pools/POOL/volumes/custom/VOLUME or storage-pools/POOL/buckets/BUCKET
        return User(path[2], project, path[4] if path[2] == "volumes" else path[3])
    return User(path[0], project, path[1])


def _unrecorded(pool: Pool) -> tuple[str, ...]:
    """Everything in the pool's folder but the empty ones that Incus makes, and the images, which it unpacks again."""
    if not pool.source:  # a pool that was never finished
        return ()
    entries = (entry for entry in _listing(Path(pool.source)) if entry.name != "images")
    inner = (found for entry in entries for found in (_listing(entry) if entry.is_dir() else [entry]))
    return tuple(str(path) for path in inner)


def _foreign(pool: Pool, loop_file: str) -> str:
    # A `dir` pool has no loop file, and none is deleted with it.
    return loop.content(loop_file) if pool.can_clone and pool.source != loop_file else ""


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise CowError(f"The folder {folder} of a storage pool cannot be read: {error.strerror}.") from error


def _journal(server: Server, pool: str) -> Journal:
    return Journal(Path(server.folder) / "cowherd" / f"{JOURNAL_KIND}-{pool}.json", JOURNAL_KIND)


def _create(server: Server, ground: Ground, wanted: Wanted) -> Plan:
    name = wanted.wish.name
    location = locate.choose(wanted.wish, ground)
    config = {**wanted.config, **location.config}
    body = {
        "name": name,
        "driver": location.driver,
        "config": settings.merged({}, config),
        "description": wanted.description or "",
    }

    def run() -> None:
        if location.kind == "subvolume":
            _make_folder(Path(location.config["source"]).parent)
        server.post("storage-pools", body=body)

    step = Step(
        title=f"create storage pool {name}: {location.driver}, {location.why}",
        run=run,
        after={"driver": location.driver, **config},
    )
    return Plan(
        steps=(step,),
        warnings=(location.warning,) if location.warning else (),
        facts={"location": {"kind": location.kind, "why": location.why}},
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CowError(f"The folder {folder} for a storage pool cannot be made: {error.strerror}.") from error


def _delete(server: Server, pool: Pool, how: str) -> Step:
    return Step(
        title=f"{how} storage pool {pool.name} ({pool.driver})",
        run=lambda: server.delete("storage-pools", pool.name),
        before={"driver": pool.driver, **pool.config},
    )


def _recreate(server: Server, pool: Pool, found: Found, wanted: Wanted) -> Plan:
    if pool.contents or found.unrecorded or pool.driver != "dir":
        raise Drift(_other_driver(pool, found.unrecorded, wanted.wish))
    if not wanted.recreate_empty:
        raise Drift(
            f"Pool {pool.name} has driver {pool.driver}, wanted is {_in_words(wanted.wish)}. It is empty: "
            f"set recreate_empty to have it made again."
        )
    create = _create(server, found.ground.without_pool(), wanted)
    return _replace(server, found, pool.name, _delete(server, pool, "delete the empty"), create)


def _replace(server: Server, found: Found, name: str, delete: Step, create: Plan) -> Plan:
    """Make a pool again. Incus deletes none that a profile names, and no profile may lose its devices by it."""
    attached = profiles.devices_on_pool(found.profiles, name)
    devices = {key: {**found.detached.get(key, {}), **attached.get(key, {})} for key in {**found.detached, **attached}}
    detach = _detach(server, name, attached, devices)
    return detach + Plan.of(delete) + create + _attach(server, name, devices)


def _detach(server: Server, pool: str, attached: DevicesByProfile, devices: DevicesByProfile) -> Plan:
    """Take devices off profiles, with all `devices` that are to be put back later in the journal before that."""
    if not attached:
        return Plan()

    def run() -> None:
        _journal(server, pool).write({"devices": [[*key, named] for key, named in devices.items()]})
        for key, named in attached.items():
            profiles.take_off(server, key, frozenset(named))

    step = Step(
        title=f"detach storage pool {pool} from profile {', '.join(map(str, attached))} for now",
        run=run,
        before={f"profile {key}": ", ".join(named) for key, named in attached.items()},
    )
    return Plan.of(step)


def _attach(server: Server, pool: str, devices: DevicesByProfile) -> Plan:
    if not devices:
        return Plan()

    def run() -> None:
        for key, named in devices.items():
            profiles.put_back(server, key, named)
        _journal(server, pool).remove()

    step = Step(
        title=f"attach storage pool {pool} to profile {', '.join(map(str, devices))} again",
        run=run,
        after={f"profile {key}": ", ".join(named) for key, named in devices.items()},
    )
    return Plan.of(step)


def _detached(journal: Journal) -> DevicesByProfile:
    document = journal.read() or {"devices": []}
    return {Key(project, name): named for project, name, named in document["devices"]}


def _refuse_foreign(found: Found, pool: Pool) -> None:
    if found.foreign:
        raise CowError(
            f"{found.ground.loop_file} is there and holds {found.foreign}, but pool {pool.name} is not in it. "
            f"Incus would delete this file with the pool. Move it away, and run again."
        )


def _refuse_unavailable(pool: Pool) -> None:
    if pool.status == "Created":
        return
    holding = f"holds {_listed(pool.contents)}" if pool.contents else "holds nothing"
    again = "" if pool.contents else f" If it was never used: `incus storage delete {pool.name}`, and run again."
    raise CowError(
        f"Pool {pool.name} is there and {holding}, but its status is {pool.status} (source {pool.source or 'none'}). "
        f"It is left as it is. A device or file is missing, most often; the daemon's log says more.{again}"
    )


def _is_other_driver(pool: Pool, wish: Wish) -> bool:
    return not pool.can_clone if wish.driver == AUTO else pool.driver != wish.driver


def _refuse_other_source(pool: Pool, wish: Wish) -> None:
    initial = pool.config.get("volatile.initial_source", "")
    # Without a record of the first source, a UUID cannot be told from the device it was made on.
    comparable = initial or pool.source.startswith("/") == wish.source.startswith("/")
    if wish.source and comparable and wish.source not in (initial, pool.source):
        raise Drift(
            f"Pool {pool.name} has source {pool.source}, wanted is {wish.source}. A pool's source cannot be changed: "
            f"correct the inventory, or make a second pool and copy the instances to it."
        )


def _grow(server: Server, pool: Pool, wanted: Wanted, ground: Ground) -> Iterable[Step]:
    found = pool.loop_size
    if found is None or not wanted.wish.size or wanted.wish.size.endswith("%"):
        return
    size = Size.parse(wanted.wish.size)
    if size < found:
        raise Drift(
            f"Pool {pool.name} is {found}, wanted is {size}. A loop file is never shrunk: "
            f"set the size to {found} or more."
        )
    if size.bytes - found.bytes > ground.free.bytes:
        raise CowError(
            f"Pool {pool.name} is to grow from {found} to {size}, but {ground.daemon_folder} has only "
            f"{ground.free.rounded()} free. Set a smaller size."
        )
    if size > found:
        yield settings.step(
            server,
            ("storage-pools", pool.name),
            f"grow storage pool {pool.name} from {found} to {size}",
            pool.config,
            {"size": str(size)},
            check=_refuse_smaller,
        )


def _configure(server: Server, pool: Pool, wanted: Wanted) -> Iterable[Step]:
    known = settings.together(pool.config, pool.description)
    after = settings.differing(known, settings.together(wanted.config, wanted.description))
    if after:
        title = f"set {', '.join(sorted(after))} of storage pool {pool.name}"
        yield settings.step(server, ("storage-pools", pool.name), title, known, after, check=_refuse_smaller)


def _refuse_smaller(before: Settings, after: Settings) -> None:
    # Newer servers may act on a missing size.
    if "size" in before and ("size" not in after or Size.parse(after["size"]) < Size.parse(before["size"])):
        raise CowError(f"The size of a pool would fall from {before['size']} to {after.get('size', 'nothing')}.")


def _other_driver(pool: Pool, unrecorded: Sequence[str], wish: Wish) -> str:
    holding = "".join(f" and holds {what}" for what in _held(pool.contents, unrecorded))
    return (
        f"Pool {pool.name} has driver {pool.driver}{holding}; wanted is "
        f"{_in_words(wish)}. It is left as it is. Make a second pool under another name and move the instances to "
        f"it with playbooks/migrate.yml; see docs/migration.md."
    )


def _in_words(wish: Wish) -> str:
    return "one that clones (btrfs or zfs)" if wish.driver == AUTO else wish.driver


def _held(users: Iterable[User], unrecorded: Sequence[str]) -> list[str]:
    files = [f"files that Incus has no record of ({names.shortened(unrecorded)})"] if unrecorded else []
    return [listed for listed in (_listed(users), *files) if listed]


def _listed(users: Iterable[User]) -> str:
    by_kind: dict[str, list[str]] = {}
    for user in users:
        by_kind.setdefault(user.kind, []).append(str(user))
    return "; ".join(f"{kind} {names.shortened(members)}" for kind, members in by_kind.items())
