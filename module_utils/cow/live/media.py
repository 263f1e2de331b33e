"""The resource: an image of live or install media at a path, known by the fingerprint of all that it was made from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import btrfs, manifest, names
from ..btrfs import Btrfs
from ..errors import CowError
from ..image import btrfs_file, record, resource, sizing, workshop
from ..image.btrfs_file import Abilities, Method
from ..image.purge import Purge
from ..image.record import Inputs, Record
from ..image.resource import Beside, Standing
from ..manifest import Manifest
from ..plan import Plan, Step
from . import build, roots, verify
from . import seed as seeds
from .build import Built, Order
from .roots import Root, Seen, Shown
from .verify import Verified

RECIPE = 2
"""Changes when the same inputs give another image than before."""
KIND = "btrfs live image"
FORCE = "force"
"""The option that allows what makes sprouts useless."""


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for; the meaning is that of the module's options."""

    path: Path
    state: str
    roots: tuple[Root, ...]
    order: Order
    verify: bool
    purge: Purge
    mode: int
    rebuild: bool
    force: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the parameters of the module, and refuse what cannot be meant."""
        names.absolute_path(params["path"])
        order = Order(params["checksum"], params["level"], params["label"] or "", params["method"], params["seed"])
        wanted = cls(
            path=Path(params["path"]),
            state=params["state"],
            roots=roots.of(params["roots"] or ()) if params["state"] == "present" else (),
            order=order,
            verify=params["verify"],
            purge=Purge(tuple(params["purge"])),
            mode=resource.mode(params["mode"]),
            rebuild=params["rebuild"],
            force=params["force"],
        )
        wanted.check()
        return wanted

    def check(self) -> None:
        """Refuse what cannot be meant together."""
        if self.state == "verified":
            return
        resource.check_path(self.path)
        btrfs_file.check_level(build.COMPRESSOR, self.order.level)
        btrfs_file.check_label(self.order.label)
        if any(root.name == seeds.DESCRIPTION for root in self.roots):
            raise CowError(f"{seeds.DESCRIPTION} is the name of the image's description. Call the root otherwise.")


@dataclass(frozen=True)
class Found:
    """What there is at the path, and what the sources are now.

    seed: the image that is ours is one.  sprouts: file systems that are mounted on this host and depend on it.
    method: None where it shows only when the archives are unpacked.  changes: what is otherwise in the sources.
    """

    standing: Standing
    seed: bool = False
    sprouts: tuple[str, ...] = ()
    seen: tuple[Seen, ...] = ()
    inputs: Inputs | None = None
    method: Method | None = None
    able: Abilities | None = None
    lost: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    verified: Verified | None = None


def observe(wanted: Wanted) -> Found:
    """Read what is there, and of the sources what may have changed."""
    if wanted.state == "verified":
        return _verified(wanted)
    found = observe_result(wanted)
    if wanted.state == "absent":
        return found
    able = btrfs_file.abilities()
    before = record.load(wanted.path, KIND)
    seen, changes = _sources(wanted, before)
    trees = [each.look.manifest.tree for each in seen if each.look.manifest]
    method = build.choose(wanted.order, wanted.roots, trees, able)
    surely = len(trees) == len(seen) or method.name == "loop"
    return replace(
        found,
        seen=seen,
        inputs=_inputs(wanted, seen, able),
        method=method if surely else None,
        able=able,
        lost=_lost(method, trees),
        changes=changes,
    )


def observe_result(wanted: Wanted) -> Found:
    """Read what is there, and nothing of the sources."""
    path = wanted.path
    standing = resource.observe(path, KIND)
    superblock = btrfs.superblock(path) if standing.exists else None
    return Found(
        standing=standing,
        seed=bool(superblock and superblock.seed),
        sprouts=btrfs.sprouts(superblock.uuid) if superblock else (),
    )


def plan(found: Found, wanted: Wanted) -> Plan:
    """Decide what to do."""
    if wanted.state == "verified":
        if found.verified:
            found.verified.require_whole(wanted.path)
        return Plan()
    standing = found.standing
    leftover = Plan.of(*resource.remove_leftover(standing))
    if wanted.state == "absent":
        deletion = resource.delete(standing)
        if deletion:
            _refuse_orphans(found, wanted, "deleted")
        return leftover + Plan.of(*deletion)
    if reason := resource.reason(standing, found.inputs, rebuild=wanted.rebuild):
        if standing.exists:
            _refuse_orphans(found, wanted, "replaced")
        return leftover + _build(found, wanted, reason)
    losses = Plan(warnings=tuple(f"The image lacks {loss}." for loss in found.lost))
    return leftover + Plan.of(*_flag(found, wanted), *resource.chmod(standing, wanted.mode)) + losses


def describe(found: Found) -> dict[str, Any]:
    """Return what is there."""
    image = found.standing.record
    verified = None
    if found.verified:
        scrubbed = found.verified.scrubbed
        verified = {
            "checksum": found.verified.checksum,
            "data_bytes": scrubbed.data_bytes,
            "metadata_bytes": scrubbed.metadata_bytes,
        }
    return {"image": {**image.result, "seed": found.seed} if image else None, "verified": verified}


def _verified(wanted: Wanted) -> Found:
    path = wanted.path
    result = verify.verify(path)
    if path.is_file() and not path.is_symlink():
        return replace(observe_result(wanted), verified=result)
    return Found(Standing(path, exists=True, record=None, occupied="", mode=0, leftover=False), verified=result)


def _sources(wanted: Wanted, before: Record | None) -> tuple[tuple[Seen, ...], tuple[str, ...]]:
    seen: list[Seen] = []
    changes: list[str] = []
    for number, root in enumerate(wanted.roots):
        known = record.known(wanted.path, before, number)
        each = roots.looked_at(root, known, wanted.purge)
        seen.append(each)
        if known.manifest and each.look.manifest:
            shown = wanted.purge.applied_to_manifest(known.manifest)
            differences = manifest.differences(shown, each.look.manifest, limit=8)
            changes += [f"{root.name}: {difference}" for difference in differences]
    return tuple(seen), tuple(changes)


def _lost(method: Method, trees: list[Any]) -> tuple[str, ...]:
    return tuple(loss for tree in trees for loss in btrfs_file.lost_by_mkfs(tree)) if method.name == "mkfs" else ()


def _inputs(wanted: Wanted, seen: tuple[Seen, ...], able: Abilities) -> Inputs:
    options = {key: value for key, value in asdict(wanted.order).items() if key != "seed"}
    return {
        "recipe": RECIPE,
        "roots": [each.root.name for each in seen],
        **{f"content of root {each.root.name}": each.identity for each in seen},
        **{f"option {name}": value for name, value in options.items()},
        "option purge": list(wanted.purge.patterns),
        "version of btrfs-progs": able.version,
    }


def _refuse_orphans(found: Found, wanted: Wanted, what: str) -> None:
    if found.sprouts and not wanted.force:
        raise CowError(
            f"{wanted.path} is the seed of file systems that are mounted on this host "
            f"({names.shortened(found.sprouts)}) and would be lost if it were {what}. Remove the seed from them "
            f"(`btrfs device remove`) or do without them first, or set `force: true` to give them up."
        )


def _flag(found: Found, wanted: Wanted) -> list[Step]:
    """Set or clear the flag of an image that is otherwise as it should be."""
    if found.seed == wanted.order.seed:
        return []
    clear = found.seed
    return [
        Step(
            f"{'clear' if clear else 'set'} the seed flag of {wanted.path}",
            run=lambda: _change_flag(found, wanted),
            before={"seed": found.seed},
            after={"seed": wanted.order.seed},
            destroys=f"all file systems that were grown from {wanted.path}" if clear else "",
            permit=FORCE,
        )
    ]


def _change_flag(found: Found, wanted: Wanted) -> None:
    """Change a copy, which then takes the image's place; the record goes with it."""
    if found.standing.record is None:
        raise AssertionError("the flag of an image is changed that was built here")
    path = wanted.path
    with workshop.opened(path) as work:
        target = work / "image"
        workshop.tool(["cp", "--reflink=auto", "--sparse=always", path, target])
        Btrfs(run=workshop.tool).set_seed(str(target), seed=wanted.order.seed)
        resource.publish(work, target, found.standing, wanted.mode, found.standing.record)


def _build(found: Found, wanted: Wanted, reason: str) -> Plan:
    if found.inputs is None or found.able is None:
        raise AssertionError("sources are looked at before anything is built from them")
    inputs, able = found.inputs, found.able
    former = found.standing.record
    before, after = resource.differing(former.inputs if former else {}, inputs)
    if found.changes:
        after["changed"] = "; ".join(found.changes)
    places = [record.description_path(wanted.path), record.record_path(wanted.path), *_listed(wanted, found.seen)]
    after["method"] = f"{found.method.name}: {found.method.why}" if found.method else "shows when it is unpacked"
    step = Step(
        f"build {wanted.path} ({'btrfs seed' if wanted.order.seed else 'btrfs'}, {wanted.order.checksum}) from "
        f"{', '.join(map(_in_words, found.seen))}: {reason}",
        run=lambda: _Build(wanted, found.standing, found.seen, inputs, able).run(),
        before=before if found.standing.exists else None,
        after=after,
        destroys=resource.replaced(found.standing, places),
        permit=resource.OVERWRITE,
    )
    return Plan(steps=(step,), warnings=tuple(f"The image will lack {loss}." for loss in found.lost))


def _listed(wanted: Wanted, seen: tuple[Seen, ...]) -> dict[Path, Manifest]:
    """Return what the sources have, by the places beside the image where it belongs."""
    path = wanted.path
    return {record.contents_path(path, number): each.look.whole for number, each in enumerate(seen) if each.look.whole}


def _in_words(seen: Seen) -> str:
    on = f" on {seen.root.base}" if seen.root.base else ""
    return f"{seen.source.words} ({seen.root.name}{on})"


@dataclass(frozen=True)
class _Build:
    wanted: Wanted
    standing: Standing
    seen: tuple[Seen, ...]
    inputs: Inputs
    able: Abilities

    def run(self) -> None:
        """Build in the folder beside, then put all in place."""
        wanted = self.wanted
        with workshop.opened(wanted.path) as work:
            with ExitStack() as stack:
                shown = [self._show(stack, number, each, work) for number, each in enumerate(self.seen)]
                began = time.monotonic()
                trees = [each.tree for each in shown]
                method = build.choose(wanted.order, wanted.roots, trees, self.able)
                description = self._description(shown)
                (work / "tools").mkdir(mode=0o700)
                text = build.described(description)
                job = build.Job(wanted.order, method, shown, wanted.purge, text, work / "tools")
                built = build.build(job)
            result = self._result(description, shown, built, job.target, time.monotonic() - began)
            if wanted.verify:
                self._verify(job.target)
            self._finish(work, job.target, text, result)

    def _verify(self, target: Path) -> None:
        """Read the new image while the old one is still in its place, which it takes only when it is whole."""
        try:
            verify.verify(target).require_whole(target)
        except CowError as error:
            raise CowError(
                f"{self.wanted.path} was left as it was, as what was built to be there cannot be relied on: {error} "
                f"Look at the kernel log: the disk or the memory of this machine may be failing."
            ) from error

    def _show(self, stack: ExitStack, number: int, seen: Seen, work: Path) -> Shown:
        folder = work / f"root{number}"
        folder.mkdir(mode=0o700)
        return stack.enter_context(roots.shown(seen, self.wanted.purge, folder))

    def _description(self, shown: list[Shown]) -> dict[str, Any]:
        order = self.wanted.order
        return {
            "format": 1,
            "label": order.label,
            "checksum": order.checksum,
            "compression": order.settings.compression,
            "roots": [_root(each) for each in shown],
            "fingerprint": record.fingerprint(self.inputs),
            "inputs": dict(self.inputs),
        }

    def _result(
        self, description: Mapping[str, Any], shown: list[Shown], built: Built, target: Path, seconds: float
    ) -> dict[str, Any]:
        superblock = btrfs.superblock(target)
        trees = [each.tree for each in shown]
        lost = [loss for tree in trees for loss in btrfs_file.lost_by_mkfs(tree)] if built.method.name == "mkfs" else []
        payload = sum(root["payload_bytes"] for root in description["roots"])
        return {
            "path": str(self.wanted.path),
            "method": built.method.name,
            "why": built.method.why,
            "uuid": superblock.uuid if superblock else None,
            **{key: description[key] for key in ("label", "checksum", "compression", "fingerprint")},
            "roots": [{**root, "added_bytes": built.added_bytes.get(root["name"])} for root in description["roots"]],
            "used_bytes": built.used_bytes,
            "payload_bytes": payload,
            **resource.measured(target, payload, seconds),
            "description_path": str(record.description_path(self.wanted.path)),
            "lost": lost,
            "varies": list(built.varies),
            "verified": self.wanted.verify,
        }

    def _finish(self, work: Path, target: Path, description: bytes, result: Mapping[str, Any]) -> None:
        path = self.wanted.path
        (work / "description").write_bytes(description)
        files = {key: digest for each in self.seen for key, digest in each.look.files.items()}
        new = Record(self.inputs, result, files=files, kind=KIND)
        contents = {place: listed.encoded() for place, listed in _listed(self.wanted, self.seen).items()}
        beside = Beside({record.description_path(path): work / "description"}, contents)
        resource.publish(work, target, self.standing, self.wanted.mode, new, beside=beside)


def _root(shown: Shown) -> dict[str, Any]:
    tree = shown.tree
    return {
        "name": shown.root.name,
        "from": shown.root.base or None,
        "source": shown.words,
        "digest": shown.content.digest,
        "payload_bytes": sizing.payload(tree),
        "inodes": sizing.inodes_of(tree),
    }
