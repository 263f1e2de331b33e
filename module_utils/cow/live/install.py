"""The resource: a root of a seed on a device or in a file, known by the UUID of the file system that holds it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from .. import blockdev, names, tools
from ..btrfs import Subvolume
from ..errors import CowError
from ..image import sources
from ..journal import Journal
from ..plan import Plan, Step
from ..size import Size
from . import blocks, copied, room, sprout, verify
from . import seed as seeds
from . import target as targets
from .order import Order
from .seed import Seed
from .target import Target


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for; the meaning is that of the module's options."""

    seed: Path
    target: Path
    order: Order
    size: Size | None
    replace: str
    verify: bool
    records: Path

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the parameters of the module."""
        return cls(
            seed=Path(names.absolute_path(params["seed"])),
            target=Path(names.absolute_path(params["target"])),
            order=Order.of(params),
            size=Size.parse(params["size"]).floor(Size(4096)) if params["size"] else None,
            replace=params["replace"] or "",
            verify=params["verify"],
            records=Path(names.absolute_path(params["records"])),
        )


@dataclass(frozen=True)
class Method:
    """How a root comes to its target, and why so."""

    name: str
    why: str


@dataclass(frozen=True)
class Found:
    """The target, and the seed.

    record: of the installation that is on the target; None when there is none.
    least: bytes that the target needs; 0 when all is there already.
    """

    seed: Seed
    target: Target
    method: Method
    inputs: Mapping[str, Any]
    record: Mapping[str, Any] | None
    least: int

    @property
    def complete(self) -> bool:
        """The target has what is wanted."""
        return self.record is not None and self.is_of(self.record)

    def is_of(self, record: Mapping[str, Any]) -> bool:
        """A record is of an installation of what is wanted. Those of former versions have the method in them."""
        return {key: value for key, value in record["inputs"].items() if key != "method"} == self.inputs


def observe(wanted: Wanted) -> Found:
    """Read the target and the seed."""
    target, record = _target(wanted)
    seeds.check(wanted.seed)
    if target.path == wanted.seed.resolve():
        raise CowError(f"The target {wanted.target} is the seed itself. Choose another one.")
    for program in ("btrfs", "btrfstune"):
        tools.require(program)
    with room.opened() as folder:
        seed = seeds.observe(wanted.seed, folder)
        root = seed.root(wanted.order.root)
        method = choose(seed, wanted, _size(wanted, target))
        found = Found(seed, target, method, _inputs(seed, root, wanted.order), record, 0)
        if found.complete:
            return found
        return replace(found, least=_least_bytes(found, wanted.order, folder))


def _least_bytes(found: Found, order: Order, folder: Path) -> int:
    if found.method.name == "blocks":
        return blocks.least_bytes(found.seed, order.metadata)
    if found.method.name == "sprout":
        return sprout.least_bytes(found.seed.space, order.metadata)
    copied.require_tools(order)
    return copied.least_bytes(found.seed, order, folder)


def _written(found: Found) -> int:
    """Return the most bytes that are written into a file of holes."""
    return min(blocks.written_bytes(found.seed), found.least) if found.method.name == "blocks" else found.least


def _size(wanted: Wanted, target: Target) -> int | None:
    """Return the bytes that the target has, or will have; None when it is not there and nothing says so."""
    return wanted.size.bytes if target.bytes is None and wanted.size else target.bytes


def _target(wanted: Wanted) -> tuple[Target, Mapping[str, Any] | None]:
    """Return the target, and the record of the installation that is on it.

    That of a copy is there before the file system is, and says of its UUID that it is unfinished. It takes the label
    too, which anybody may have given, for another file system may have the same UUID.
    """
    target = targets.observe(wanted.target)
    record = None if target.unfinished or not target.uuid else _journal(wanted.records, target.uuid).read()
    if record and record.get("unfinished"):
        if target.label == targets.UNFINISHED_LABEL:
            return replace(target, content="", unfinished=True), None
        return target, None
    return target, record


def choose(seed: Seed, wanted: Wanted, target_bytes: int | None) -> Method:
    """Decide on the method: the blocks as they are, or a sprout, wherever what results is what is wanted."""
    order, fixed = wanted.order, _differs(seed, wanted.order)
    if order.filesystem != "btrfs":
        return Method("copy", f"a seed becomes only a btrfs, and {order.filesystem} is wanted")
    if order.method == "blocks" and not fixed:
        fixed = blocks.why_never(seed)
    if order.method in ("blocks", "sprout") and fixed:
        raise CowError(f"That cannot be had by {order.method}: {fixed}. Leave `method` out.")
    if order.method != "auto":
        return Method(order.method, "as asked for")
    if fixed:
        return Method("copy", fixed)
    if why_not := blocks.why_not(seed, order, target_bytes, verified=wanted.verify):
        return Method("sprout", why_not)
    return Method("blocks", "the blocks of the seed come as they are")


def plan(found: Found, wanted: Wanted) -> Plan:
    """Decide what to do."""
    target = found.target
    if found.complete:
        _refuse_other_uuid(found, wanted)
        return Plan()
    _refuse_known_uuid(found, wanted)
    _refuse_uuid_elsewhere(found, wanted)
    size = _size(wanted, target)
    if size is None:
        raise CowError(f"There is no file {wanted.target}. Set `size` to have it made, or name a device.")
    if size < found.least:
        raise CowError(
            f"{wanted.target} is too small: it has {targets.room_in_words(size)}, and root {wanted.order.root} of the "
            f"seed needs {targets.room_in_words(found.least)} by this method ({found.method.name})."
        )
    if not target.device:
        more = _written(found) - targets.allocated_bytes(target)
        sources.refuse_no_room(wanted.target.parent, more, f"Root {wanted.order.root} of the seed")
    _refuse_unnamed(found, wanted)
    first, *others = (*_make_file(found, size), _install(found, wanted))
    return Plan.of(_with_verified_seed(first, found, wanted) if wanted.verify else first, *others)


def describe(found: Found) -> dict[str, Any]:
    """Return what is there."""
    return {"installed": dict(found.record["result"]) if found.complete and found.record else None}


def _differs(seed: Seed, order: Order) -> str:
    """Say what of the wishes mkfs fixes for ever, and the seed has otherwise; "" when nothing."""
    there = seed.superblock
    if order.checksum and order.checksum != there.checksum:
        return f"the seed has checksums {there.checksum} for ever, and {order.checksum} is wanted"
    if order.node_size and order.node_size != there.node_bytes:
        return f"the seed has nodes of {there.node_bytes} bytes for ever, and {order.node_size} is wanted"
    return ""


def _inputs(seed: Seed, root: Subvolume, order: Order) -> dict[str, Any]:
    """Return what decides on what is installed. By which method it comes does not."""
    wishes = {key: value for key, value in asdict(order).items() if key not in ("uuid", "method")}
    there = seed.superblock
    return {**wishes, "seed": there.uuid, "generation": there.generation, "root_uuid": root.uuid}


def _journal(records: Path, identity: str) -> Journal:
    return Journal(records / f"{identity.replace('/', '_')}.json", "installation of a root of a seed")


def _refuse_other_uuid(found: Found, wanted: Wanted) -> None:
    if wanted.order.uuid and wanted.order.uuid != found.target.uuid:
        raise CowError(
            f"{wanted.target} has this root already, with the UUID {found.target.uuid} and not {wanted.order.uuid}. "
            f"Leave `uuid` out, or wipe the target (`wipefs --all`) to have it installed anew."
        )


def _refuse_known_uuid(found: Found, wanted: Wanted) -> None:
    if wanted.order.uuid and UUID(found.seed.superblock.uuid) == UUID(wanted.order.uuid):
        raise CowError(f"The UUID {wanted.order.uuid} is the seed's own. Two file systems cannot have the same one.")


def _refuse_uuid_elsewhere(found: Found, wanted: Wanted) -> None:
    """Refuse a UUID that another file system has, as far as that is known: by it one would be taken for the other."""
    order = wanted.order
    if not order.uuid or order.uuid == found.target.uuid:
        return
    if device := blockdev.with_uuid(order.uuid):
        raise CowError(
            f"{device} has the UUID {order.uuid} already, and two file systems cannot have the same one. Detach it, or "
            f"leave `uuid` out."
        )
    journal = _journal(wanted.records, order.uuid)
    record = journal.read()
    if record and not record.get("unfinished") and not found.is_of(record):
        raise CowError(
            f"Another root was installed with the UUID {order.uuid}, on {record['result']['target']}. If that is no "
            f"more, delete {journal.path}. Otherwise leave `uuid` out."
        )


def _refuse_unnamed(found: Found, wanted: Wanted) -> None:
    target = found.target
    if target.uuid == found.seed.superblock.uuid and not target.unfinished:
        raise CowError(
            f"{wanted.target} is the seed, or a copy of the seed. If it may be destroyed, wipe it first: `wipefs --all "
            f"{target.path}`."
        )
    if not target.content or wanted.replace in target.names:
        return
    named = f" `replace` names {wanted.replace}, which is not there." if wanted.replace else ""
    ways = " or ".join(target.names)
    raise CowError(
        f"{wanted.target} has something on it: {target.content}.{named} If that may be destroyed, set `replace` to "
        f"{ways}."
    )


def _with_verified_seed(step: Step, found: Found, wanted: Wanted) -> Step:
    def run() -> None:
        verify.verify(wanted.seed, buffered=found.method.name == "blocks").require_whole(wanted.seed)
        step.run()

    return replace(step, run=run)


def _make_file(found: Found, size: int) -> list[Step]:
    if found.target.bytes is not None:
        return []
    path = found.target.path

    def run() -> None:
        with path.open("xb") as file:
            path.chmod(0o600)
            file.truncate(size)

    return [Step(f"make the file {path} of {Size(size)}", run=run, after={"path": path, "size": Size(size)})]


def _install(found: Found, wanted: Wanted) -> Step:
    target, order, how = found.target, wanted.order, found.method
    again = ", where an unfinished installation is" if target.unfinished else ""
    before = target.content or ("an unfinished installation" if target.unfinished else "")
    after = {"content": f"{order.filesystem} labelled {order.label!r}", "root": order.root, "method": how.name}
    return Step(
        f"install root {order.root} of {wanted.seed} on {target.path} ({order.filesystem}, {how.name}){again}",
        run=lambda: _run(found, wanted),
        before={"content": before} if before else None,
        after={**after, "metadata": order.metadata} if order.metadata else after,
        destroys=target.content,
        permit="replace",
    )


def _run(found: Found, wanted: Wanted) -> None:
    """Install; what says that it is unfinished goes when all else is done."""
    began = time.monotonic()
    _refuse_change(found, wanted)
    with room.opened() as folder, targets.writable(found.target) as device:
        if by := {"blocks": blocks.install, "sprout": sprout.install}.get(found.method.name):
            written = by(found.seed, wanted.order, device, folder, lambda: _begin(found, wanted, device))
        else:
            order = replace(wanted.order, uuid=wanted.order.uuid or str(uuid4()))
            written = copied.install(
                found.seed, order, device, folder, lambda: _begin(found, wanted, device, order.uuid)
            )
        identity = targets.identity(device)
        result = {**_result(found, wanted, identity), "bytes": written, "seconds": round(time.monotonic() - began, 3)}
        _journal(wanted.records, identity).write({"inputs": dict(found.inputs), "result": result})
        targets.end(device)


def _refuse_change(found: Found, wanted: Wanted) -> None:
    now, _ = _target(wanted)
    if (now.content, now.uuid) != (found.target.content, found.target.uuid):
        raise CowError(
            f"What is on {wanted.target} changed meanwhile: {now.content or 'nothing'}. Nothing was changed."
        )


def _begin(found: Found, wanted: Wanted, device: str, identity: str = "") -> None:
    """Wipe and mark the target. identity: of the file system that will be made, and overwrites the mark."""
    if found.target.device:  # a file is in use by its own loop device
        _refuse_change(found, wanted)
    targets.begin(device)
    if found.target.uuid:
        _journal(wanted.records, found.target.uuid).remove()
    if identity:
        _journal(wanted.records, identity).write({"inputs": dict(found.inputs), "unfinished": True})


def _result(found: Found, wanted: Wanted, identity: str) -> dict[str, Any]:
    return {
        "target": str(found.target.path),
        "filesystem": wanted.order.filesystem,
        "method": found.method.name,
        "why": found.method.why,
        "uuid": identity,
        "label": wanted.order.label,
        "root": wanted.order.root,
        "seed_uuid": found.seed.superblock.uuid,
    }
