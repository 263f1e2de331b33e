"""The resource: an image at a path, made from a source, known by the fingerprint of all that it was made from."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from .. import manifest, names, process, tools
from ..errors import CowError
from ..plan import Plan, Step
from . import record, sizing, sources, verity, workshop
from .formats import FORMATS
from .job import Built, Job, Options
from .purge import Purge
from .record import Inputs, Record
from .sources import Look, Source, Visible

RECIPE = 1
"""Changes when the same inputs give other bytes than before."""
_LONGEST_NAME = 255 - len("..cowherd.tree.draft")


@dataclass(frozen=True)
class Signing:
    """Key and certificate in PEM form."""

    key: Path
    certificate: Path


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for; the meaning is that of the module's options."""

    path: Path
    state: str
    src: str
    incus: Mapping[str, Any]
    options: Options
    purge: Purge
    strict: bool
    epoch: int | None
    verity: bool
    beside: bool
    signing: Signing | None
    root_hash: str
    mode: int
    rebuild: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the parameters of the module, and refuse what cannot be meant."""
        names.absolute_path(params["path"])
        options = Options.of(params)
        signing = (
            Signing(Path(params["signing"]["key"]), Path(params["signing"]["certificate"]))
            if params["signing"]
            else None
        )
        wanted = cls(
            path=Path(params["path"]),
            state=params["state"],
            src=params["src"] or "",
            incus=params["incus"] or {},
            options=options,
            purge=Purge(tuple(params["purge"])),
            strict=params["strict"],
            epoch=params["source_date_epoch"],
            verity=params["verity"],
            beside=params["verity_tree"] == "beside",
            signing=signing,
            root_hash=verity.root_hash(params["root_hash"]) if params["root_hash"] else "",
            mode=_mode(params["mode"]),
            rebuild=params["rebuild"],
        )
        wanted.check()
        return wanted

    def check(self) -> None:
        """Refuse what cannot be meant together."""
        if not self.path.parent.is_dir():
            raise CowError(f"The folder {self.path.parent} does not exist. Make it, or choose another path.")
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise CowError(f"{self.path} is there and is not an ordinary file. It is left alone: choose another path.")
        if len(os.fsencode(self.path.name)) > _LONGEST_NAME:
            raise CowError(f"The name of {self.path} is too long for the files that go beside it.")
        if self.state != "present":
            return
        FORMATS[self.options.format].check(self.options)
        if self.signing and not self.verity:
            raise CowError("Only a root hash can be signed. Set `verity: true`, or leave `signing` out.")
        if self.epoch is not None and not 0 <= self.epoch < 2**32:
            raise CowError(f"source_date_epoch is {self.epoch}. It can be from 0 to {2**32 - 1}.")


@dataclass(frozen=True)
class Found:
    """What there is at the path, and what the source is now.

    record: of the image that is there; None when there is none that was built here and is still the same.
    occupied: why a file at the path is not ours to replace; "" when it is, or there is none.
    bytes: that the image takes at least.  wrong: what verification says.
    """

    exists: bool
    record: Record | None
    occupied: str
    mode: int
    leftover: bool
    missing: tuple[Path, ...] = ()
    source: Source | None = None
    look: Look | None = None
    inputs: Inputs | None = None
    lost: tuple[str, ...] = ()
    bytes: int = 0
    wrong: str = ""
    changes: tuple[str, ...] = ()


def observe(wanted: Wanted) -> Found:
    """Read what is there, and of the source what may have changed."""
    found = _observe_image(wanted)
    if wanted.state == "verified":
        return _verified(wanted, found)
    if wanted.state == "absent":
        return found
    source = _source(wanted)
    before = record.load(wanted.path)
    known = record.known(wanted.path, before)
    tool_versions = _tools(wanted)
    look = source.look(known, wanted.purge)
    inputs = _inputs(wanted, look, tool_versions)
    changes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    least = 0
    if look.manifest:
        builder = FORMATS[wanted.options.format]
        lost = tuple(builder.lost(look.manifest.tree, wanted.options))
        if found.record is None or found.record.inputs != inputs or wanted.rebuild:
            least = builder.foresee(look.manifest.tree, wanted.options)
        if known.manifest and before and before.inputs["content"] != look.identity:
            shown = wanted.purge.applied_to_manifest(known.manifest)
            changes = tuple(manifest.differences(shown, look.manifest, limit=8))
    return replace(found, source=source, look=look, inputs=inputs, lost=lost, bytes=least, changes=changes)


def plan(found: Found, wanted: Wanted) -> Plan:
    """Decide what to do."""
    leftover = _remove_leftover(found, wanted)
    if wanted.state == "verified":
        if found.wrong:
            raise CowError(
                f"{wanted.path} is not what the root hash {wanted.root_hash} says: {found.wrong}. Do not use it."
            )
        return Plan()
    if wanted.state == "absent":
        return leftover + _remove(found, wanted)
    _refuse(found, wanted)
    if reason := _reason(found, wanted):
        return leftover + _build(found, wanted, reason)
    losses = Plan(warnings=tuple(f"The image lacks {loss}." for loss in _lost(found)))
    return leftover + _chmod(found, wanted) + losses


def describe(found: Found) -> dict[str, Any]:
    """Return what is there."""
    return {"image": dict(found.record.result) if found.record else None}


def _source(wanted: Wanted) -> Source:
    return sources.of_incus(wanted.incus) if wanted.incus else sources.of_path(Path(wanted.src))


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise CowError(f"{text!r} is not a mode. Write it in octal, such as 0600.")
    return int(text, 8)


def _observe_image(wanted: Wanted) -> Found:
    path = wanted.path
    exists = path.exists()
    before = record.load(path)
    occupied = ""
    if exists and before is None:
        occupied = f"{path}, which was not built here"
    elif exists and before and record.stamp(path) != before.stamp:
        occupied = f"{path}, which was changed since it was built"
    ours = before if exists and not occupied else None
    return Found(
        exists=exists,
        record=ours,
        occupied=occupied,
        mode=path.stat().st_mode & 0o777 if exists else 0,
        leftover=workshop.folder_of(path).exists(),
        missing=tuple(file for file in _files_of(path, ours) if not file.exists()),
    )


def _files_of(path: Path, ours: Record | None) -> tuple[Path, ...]:
    """The files beside the image that it is useless without."""
    if ours is None:
        return ()
    beside = (record.tree_path(path),) if ours.verity and ours.verity.beside else ()
    return (*beside, *((record.signature_path(path),) if ours.signed else ()))


def _verified(wanted: Wanted, found: Found) -> Found:
    if not found.exists:
        raise CowError(f"There is no image at {wanted.path}.")
    before = record.load(wanted.path)
    if before is None or before.verity is None:
        raise CowError(
            f"{wanted.path} has no hash tree that there is a record of ({record.record_path(wanted.path)}). Build it "
            f"with `verity: true`, and take the record along when you copy it."
        )
    tools.require("veritysetup")
    tree_file = record.tree_path(wanted.path) if before.verity.beside else wanted.path
    if not tree_file.exists():
        raise CowError(f"The hash tree {tree_file} is not there.")
    wrong = verity.verify(wanted.path, tree_file, before.verity, wanted.root_hash)
    return replace(found, record=before, wrong=wrong)


def _tools(wanted: Wanted) -> Mapping[str, str]:
    versions = dict(FORMATS[wanted.options.format].tools(wanted.options))
    if wanted.verity:
        said = process.run([tools.require("veritysetup"), "--version"]).stdout
        versions["veritysetup"] = said.split()[1] if len(said.split()) > 1 else "unknown"
    return versions


def _inputs(wanted: Wanted, look: Look, versions: Mapping[str, str]) -> Inputs:
    chosen = asdict(wanted.options)
    options = {f"option {name}": chosen[name] for name in FORMATS[wanted.options.format].heeds}
    return {
        "content": look.identity,
        "recipe": RECIPE,
        "option format": wanted.options.format,
        **options,
        "option purge": list(wanted.purge.patterns),
        "option source_date_epoch": wanted.epoch,
        "option verity": wanted.verity and ("beside" if wanted.beside else "appended"),
        "option signing": _certificate_digest(wanted.signing),
        **{f"version of {name}": version for name, version in versions.items()},
    }


def _certificate_digest(signing: Signing | None) -> str | None:
    if signing is None:
        return None
    for file in (signing.key, signing.certificate):
        names.absolute_path(str(file))
        if not file.is_file():
            raise CowError(f"{file} is not there. Give key and certificate in PEM form to sign the root hash.")
    return sources.sha256(signing.key, signing.certificate)


def _reason(found: Found, wanted: Wanted) -> str:
    if not found.exists:
        return "there is none"
    if found.occupied:
        return "another file is there"
    if found.record is None or found.record.inputs != found.inputs:
        return "it was made from something else"
    if found.missing:
        return f"{found.missing[0]} is missing"
    return "as asked for" if wanted.rebuild else ""


def _refuse(found: Found, wanted: Wanted) -> None:
    if wanted.strict and found.lost:
        raise CowError(
            f"{wanted.options.format} does not keep {'; '.join(found.lost)}. Choose another format or method, or set "
            f"`strict: false` to do without."
        )


def _lost(found: Found) -> tuple[str, ...]:
    return found.lost or (tuple(found.record.result["lost"]) if found.record else ())


def _remove_leftover(found: Found, wanted: Wanted) -> Plan:
    if not found.leftover:
        return Plan()
    folder = workshop.folder_of(wanted.path)
    return Plan.of(
        Step(
            f"remove {folder}, which a killed build left",
            run=lambda: workshop.clear(wanted.path),
            before={"path": folder},
        )
    )


def _remove(found: Found, wanted: Wanted) -> Plan:
    beside = tuple(file for file in record.beside(wanted.path) if file.exists())
    if not found.exists and not beside:
        return Plan()

    def run() -> None:
        # The record goes last: until then it says that the image was ours.
        for file in (wanted.path, *record.beside(wanted.path)):
            file.unlink(missing_ok=True)
        workshop.synced(wanted.path.parent)

    return Plan.of(
        Step(
            f"delete {wanted.path}",
            run=run,
            before={"path": wanted.path, "beside": [str(file) for file in beside]},
            destroys=found.occupied,
            permit="overwrite",
        )
    )


def _chmod(found: Found, wanted: Wanted) -> Plan:
    if found.mode == wanted.mode:
        return Plan()

    def run() -> None:
        for file in (*_files_of(wanted.path, found.record), wanted.path):
            file.chmod(wanted.mode)

    return Plan.of(
        Step(
            f"set the mode of {wanted.path} to {wanted.mode:04o}",
            run=run,
            before={"mode": f"{found.mode:04o}"},
            after={"mode": f"{wanted.mode:04o}"},
        )
    )


def _build(found: Found, wanted: Wanted, reason: str) -> Plan:
    if found.look is None or found.inputs is None or found.source is None:
        raise AssertionError("a source is looked at before anything is built from it")
    look, inputs, source = found.look, found.inputs, found.source
    if found.bytes:
        sources.refuse_no_room(wanted.path.parent, found.bytes)
    before, after = _differing(found.record.inputs if found.record else {}, inputs)
    if found.changes:
        after["changed"] = "; ".join(found.changes)
    step = Step(
        f"build {wanted.path} ({wanted.options.format}) from {source.words}: {reason}",
        run=lambda: _Build(wanted, source, look, inputs).run(),
        before=before if found.exists else None,
        after=after,
        destroys=found.occupied,
        permit="overwrite",
    )
    return Plan(steps=(step,), warnings=tuple(f"The image will lack {loss}." for loss in found.lost))


def _differing(before: Inputs, after: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return {key: before[key] for key in keys if key in before}, {key: after[key] for key in keys if key in after}


@dataclass(frozen=True)
class _Build:
    wanted: Wanted
    source: Source
    look: Look
    inputs: Inputs

    def run(self) -> None:
        """Build in the folder beside, then put all in place; the record last."""
        path = self.wanted.path
        with workshop.opened(path) as work:
            target = work / "image"
            with self.source.tree(self.look, self.wanted.purge, work) as visible:
                began = time.monotonic()
                built, epoch, lost = self._filled(visible, target, work)
                facts = self._facts(visible, built, epoch, lost)
            tree = self._hash_tree(target, work)
            result = {**facts, **self._measured(target, facts, time.monotonic() - began), "verity": self._told(tree)}
            self._finish(work, target, result, tree)

    def _filled(self, visible: Visible, target: Path, work: Path) -> tuple[Built, int, list[str]]:
        options = self.wanted.options
        builder = FORMATS[options.format]
        lost = builder.lost(visible.tree, options)
        if self.wanted.strict and lost:
            raise CowError(f"{options.format} does not keep {'; '.join(lost)}. Nothing was changed.")
        if self.look.manifest is None:
            sources.refuse_no_room(work, builder.foresee(visible.tree, options))
        epoch = _newest(visible) if self.wanted.epoch is None else self.wanted.epoch
        (work / "tools").mkdir()
        job = Job(visible.root, visible.tree, target, work / "tools", options, self._identity, epoch)
        built = builder.build(job)
        target.chmod(0o600)
        return built, epoch, lost

    @property
    def _fingerprint(self) -> str:
        return record.fingerprint(self.inputs)

    @property
    def _identity(self) -> UUID:
        return UUID(bytes=bytes.fromhex(self._fingerprint)[:16], version=4)

    def _hash_tree(self, target: Path, work: Path) -> verity.Tree | None:
        if not self.wanted.verity:
            return None
        beside = work / "verity" if self.wanted.beside else None
        tree = verity.add(target, beside, self._fingerprint, self._identity)
        if self.wanted.signing:
            signing = self.wanted.signing
            verity.sign(tree.root_hash, signing.key, signing.certificate, work / "signature", work)
        return tree

    def _told(self, tree: verity.Tree | None) -> dict[str, Any] | None:
        if tree is None:
            return None
        path = self.wanted.path
        told = {key: value for key, value in tree.record().items() if key != "beside"}
        return {
            **told,
            "tree_path": str(record.tree_path(path) if tree.beside else path),
            "signature_path": str(record.signature_path(path)) if self.wanted.signing else None,
        }

    def _facts(self, visible: Visible, built: Built, epoch: int, lost: list[str]) -> dict[str, Any]:
        return {
            "path": str(self.wanted.path),
            "format": self.wanted.options.format,
            **asdict(built),
            "payload_bytes": sizing.payload(visible.tree),
            "inodes": sizing.inodes_of(visible.tree),
            "uuid": str(self._identity) if self.wanted.options.format != "squashfs" else None,
            "source_date_epoch": epoch,
            "fingerprint": self._fingerprint,
            "lost": lost,
        }

    @staticmethod
    def _measured(target: Path, facts: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        status = target.stat()
        return {
            "bytes": status.st_size,
            "allocated_bytes": status.st_blocks * 512,
            "payload_ratio": round(facts["payload_bytes"] / status.st_size, 4),
            "seconds": round(seconds, 3),
        }

    def _finish(self, work: Path, target: Path, result: Mapping[str, Any], tree: verity.Tree | None) -> None:
        """Between the renames only a crash could leave an image with the wrong files beside it, and no record then."""
        path = self.wanted.path
        moves = {work / "verity": record.tree_path(path), work / "signature": record.signature_path(path)}
        made = [file for file in (*moves, target) if file.exists()]
        for file in made:
            file.chmod(self.wanted.mode)
            workshop.synced(file)
        for file, place in moves.items():
            if file.exists():
                file.replace(place)
            else:
                place.unlink(missing_ok=True)
        target.replace(path)
        if self.look.whole:
            self.look.whole.save(record.contents_path(path))
        else:
            record.contents_path(path).unlink(missing_ok=True)
        stamp = record.stamp(path)
        Record(self.inputs, result, stamp, tree, self.wanted.signing is not None, self.look.files).save(path)
        workshop.synced(path.parent)


def _newest(visible: Visible) -> int:
    newest = -(-max(entry.mtime_ns for entry in visible.tree.entries) // 10**9)
    return min(max(newest, 0), 2**32 - 1)
