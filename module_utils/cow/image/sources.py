"""Where the tree of an image comes from: a folder, an archive, a squashfs, or what Incus has.

A source is looked at to tell whether the image has to be built, which reads what may have changed since the last build
and writes nothing. When it is built, the tree is made visible as a folder for as long as that takes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import manifest, mounts, names, tools
from ..errors import CowError, NotYetKnown
from ..manifest import Manifest
from ..process import CommandFailed
from ..tree import Descent, Tree, is_unchanged, mounts_below, walk
from . import purge, workshop
from .purge import Purge

if TYPE_CHECKING:
    from ..incus.client import Server

INCUS_ARGUMENTS: dict[str, Any] = {
    "type": "dict",
    "options": {
        "image": {"type": "str"},
        "instance": {"type": "str"},
        "snapshot": {"type": "str"},
        "project": {"type": "str", "default": "default"},
        "socket": {"type": "path", "default": "/var/lib/incus/unix.socket"},
    },
    "mutually_exclusive": [("image", "instance"), ("image", "snapshot")],
    "required_one_of": [("image", "instance")],
}
"""The option of modules that names something of Incus as a source."""
_SQUASHFS = b"hsqs"
_BLOCK, _MAGIC = 512, slice(257, 262)
"""Of tar, and where its header has the magic (tar(5))."""
_CUT_SHORT = ("unexpected eof", "unexpected end", "ends unexpectedly", "premature end")
"""As tar and the programs that decompress for it say it."""
_NOT_SET = re.compile(r"(?m)^tar: .*\bCannot .*$")
"""What tar says of attributes and ACLs that it could not set, and goes on."""
_NO_PROGRAM = re.compile(r"tar \(child\): (\S+): Cannot exec: No such file")


@dataclass(frozen=True)
class Look:
    """What a source is now.

    identity: changes when its content does; it is part of the image's fingerprint.
    files: what is remembered so that contents need not be read again: path, inode, change time and size to SHA-256.
    manifest: of a tree that can be seen, without what is purged; whole: with it.
    """

    identity: str
    files: Mapping[str, str]
    manifest: Manifest | None = None
    whole: Manifest | None = None


@dataclass(frozen=True)
class Known:
    """What an earlier run remembered."""

    files: Mapping[str, str]
    manifest: Manifest | None = None


class Source(Protocol):
    """Something that a tree can be had from."""

    @property
    def words(self) -> str:
        """It, for people."""

    def look(self, known: Known, purge: Purge) -> Look:
        """Read it; writes nothing."""

    def tree(self, look: Look, purge: Purge, work: Path) -> Any:
        """Give a context in which there are the folder to make the image of, and its tree."""


@dataclass(frozen=True)
class Visible:
    """The folder that the image is made of, and what is in it."""

    root: Path
    tree: Tree


@dataclass(frozen=True)
class Folder:
    """A folder of this host, which is never written to."""

    path: Path
    words: str

    def look(self, known: Known, purge: Purge) -> Look:
        """Walk it, and read what may have changed."""
        _require_folder(self.path)
        whole = manifest.of(self.path, known.manifest if mounts.tells_changes(self.path) else None)
        shown = purge.applied_to_manifest(whole)
        return Look(shown.digest, {}, shown, whole)

    @contextmanager
    def tree(self, look: Look, what: Purge, work: Path) -> Iterator[Visible]:
        """Show it, and fail when it changed meanwhile."""
        if look.whole is None or look.manifest is None:
            raise AssertionError("a folder is looked at before it is built from")
        before = look.whole.tree
        with purge.view(what, before, work / "view", work) as root:
            yield Visible(root, look.manifest.tree)
        if mounts.tells_changes(self.path) and is_unchanged(before):
            return
        if changed := _changed(before, walk(self.path, before)):
            raise CowError(
                f"{self.words} changed while the image was built: {changed}. The image was left as it was. Stop what "
                f"writes there, or take a snapshot and build from that."
            )


@dataclass(frozen=True)
class Archive:
    """A tar in a file, that is unpacked by GNU tar in the folder that the image is built in.

    inner: the folder in it that is the tree.
    """

    path: Path
    words: str
    inner: str = "."

    def look(self, known: Known, _purge: Purge) -> Look:
        """Read the file, when it is not the one that was read before."""
        return _look_at_file(self.path, known)

    @contextmanager
    def tree(self, look: Look, what: Purge, work: Path) -> Iterator[Visible]:
        """Unpack it, where there is room for as much as it has itself, at least, and fail when it changed meanwhile."""
        with _unchanging(self.path, self.words, look):
            yield self._unpacked(what, work)

    def _unpacked(self, what: Purge, work: Path) -> Visible:
        tools.require("tar")
        refuse_no_room(work, self.path.stat().st_size, f"What is in {self.words}")
        folder = work / "unpacked"
        folder.mkdir()
        began_ns = folder.stat().st_mtime_ns
        argv = ["tar", "--extract", "--numeric-owner", "--preserve-permissions", "--same-owner", "--acls", "--xattrs"]
        # Without the last, a member that comes later in a folder would change the folder's time.
        argv += ["--xattrs-include=*", "--sparse", "--warning=no-timestamp", "--delay-directory-restore"]
        try:
            said = workshop.tool([*argv, f"--directory={folder}", f"--file={self.path}"], environment={"TZ": "UTC"})
        except CommandFailed as error:
            raise CowError(_why_not_unpacked(self.path, error)) from error
        if lost := _NOT_SET.search(said.stderr):
            raise CowError(
                f"The archive {self.path} has what cannot be unpacked in {work.parent}: {lost[0]!r}. Nothing was "
                f"changed. Build on another file system, or unpack it yourself without that, and give the folder."
            )
        _refuse_no_end(self.path)
        root = folder / self.inner
        _require_folder(root)
        what.carry_out(root, _completed(walk(root), began_ns))
        return Visible(root, walk(root))


@dataclass(frozen=True)
class Squashfs:
    """A squashfs in a file, which is mounted."""

    path: Path
    words: str

    def look(self, known: Known, _purge: Purge) -> Look:
        """Read the file, when it is not the one that was read before."""
        return _look_at_file(self.path, known)

    @contextmanager
    def tree(self, look: Look, what: Purge, work: Path) -> Iterator[Visible]:
        """Mount it, and fail when it changed meanwhile."""
        mounted = workshop.mounted(self.path, work / "source", "-t", "squashfs", "-o", "loop,ro")
        with _unchanging(self.path, self.words, look), mounted as root:
            tree = walk(root)
            with purge.view(what, tree, work / "view", work) as shown:
                yield Visible(shown, what.applied(tree))


def of_path(path: Path) -> Source:
    """Return what is at a path."""
    names.absolute_path(str(path))
    if path.is_dir():
        if path.is_symlink():
            raise CowError(f"{path} is a link. Give the folder that it leads to: {path.resolve()}.")
        return Folder(path, str(path))
    return _of_file(path, str(path))


def of_incus(options: Mapping[str, Any]) -> Source:
    """Return what Incus has of that name."""
    from ..incus.client import connect  # noqa: PLC0415  # HTTP takes as long to load as all else here

    with connect(options["socket"]) as server:
        if options["image"]:
            return _incus_image(server, options["image"], options["project"])
        return _incus_instance(server, options["instance"], options["snapshot"] or "", options["project"])


def _of_file(path: Path, words: str, inner: str = ".") -> Source:
    if path.exists() and not path.is_file():
        raise CowError(f"{words} is neither a folder nor an ordinary file. Give a folder, a tar or a squashfs.")
    try:
        with path.open("rb") as file:
            beginning = file.read(4)
    except OSError as error:
        raise CowError(f"{words} cannot be read: {error.strerror} ({path}). Give a folder or an archive.") from error
    if not beginning:
        raise CowError(f"{words} is an empty file. Give a folder, a tar or a squashfs.")
    return Squashfs(path, words) if beginning == _SQUASHFS else Archive(path, words, inner)


def _incus_image(server: Server, name: str, project: str) -> Source:
    names.project(project)
    found = server.find("images", "aliases", name, project=project)
    fingerprint = found.body["target"] if found else name
    image = server.find("images", fingerprint, project=project)
    if image is None:
        raise NotYetKnown(f"Incus has no image {name} in project {project}. `incus image list` shows those it has.")
    if image.body["type"] != "container":
        raise CowError(f"The image {name} is one of a {image.body['type']}. Name one of a container.")
    fingerprint = image.body["fingerprint"]
    words = f"image {name} of Incus"
    main = Path(server.folder, "images", fingerprint)
    rootfs = Path(f"{main}.rootfs")
    split = rootfs.exists()
    return Vouched(
        _of_file(rootfs if split else main, words, "." if split else "rootfs"),
        words,
        fingerprint,
        (main, rootfs) if split else (main,),
    )


@dataclass(frozen=True)
class Vouched:
    """Files of an image of Incus, whose fingerprint is the SHA-256 of all of them."""

    source: Source
    words: str
    fingerprint: str
    parts: tuple[Path, ...]

    def look(self, _known: Known, _purge: Purge) -> Look:
        """Believe the fingerprint until something is built."""
        return Look(self.fingerprint, {})

    @contextmanager
    def tree(self, look: Look, what: Purge, work: Path) -> Iterator[Visible]:
        """Compare the files with the fingerprint, and show what is in them."""
        found = sha256(*self.parts)
        if found != self.fingerprint:
            raise CowError(
                f"The files of {self.words} are damaged: their SHA-256 is {found} and not {self.fingerprint}. Delete "
                f"the image and import it again."
            )
        with self.source.tree(look, what, work) as visible:
            yield visible


def _incus_instance(server: Server, name: str, snapshot: str, project: str) -> Source:
    names.instance(name)
    names.project(project)
    found = server.find("instances", name, project=project)
    if found is None:
        raise NotYetKnown(f"Incus has no instance {name} in project {project}. `incus list` shows those it has.")
    words = f"instance {name}"
    if snapshot:
        words = f"snapshot {snapshot} of {words}"
        if "/" in snapshot or server.find("instances", name, "snapshots", snapshot, project=project) is None:
            raise NotYetKnown(f"There is no {words}. `incus info {name}` shows those that there are.")
    if found.body["type"] != "container":
        raise CowError(f"{name} is a {found.body['type']}. Only trees of containers can be read.")
    if found.body["config"].get("volatile.last_state.idmap", "[]") not in ("", "[]"):
        raise CowError(
            f"The owners of the files of {name} are shifted on the disk, as this kernel has no mounts that do it. "
            f"Publish it as an image (`incus publish {name}`) and name that."
        )
    return Folder(_rootfs(server, found.body, name, snapshot, project), words)


def _rootfs(server: Server, body: Mapping[str, Any], name: str, snapshot: str, project: str) -> Path:
    pool = next(device["pool"] for device in body["expanded_devices"].values() if device.get("path") == "/")
    on_disk = name if project == "default" else f"{project}_{name}"
    folder = Path(server.folder, "storage-pools", pool)
    inside = ("containers-snapshots", on_disk, snapshot) if snapshot else ("containers", on_disk)
    root = folder.joinpath(*inside, "rootfs")
    if not root.is_dir():
        raise CowError(
            f"{root} is not there: Incus has not mounted it. Publish it as an image (`incus publish "
            f"{name}{'/' + snapshot if snapshot else ''}`) and name that."
        )
    return root


def _require_folder(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        raise CowError(f"{path} is not a folder that an image could be made of.")


@contextmanager
def _unchanging(path: Path, words: str, look: Look) -> Iterator[None]:
    """Fail when a file is not, at the end of the block, what it was when it was looked at."""
    before = next(iter(look.files), "") or _key(path)
    yield
    if not path.exists() or _key(path) != before:
        raise CowError(
            f"{words} changed while the image was built. The image was left as it was. Wait until what writes there "
            f"has ended, and run this again."
        )


def _key(path: Path) -> str:
    status = path.stat()
    return f"{path} {status.st_dev}:{status.st_ino} {status.st_ctime_ns} {status.st_mtime_ns} {status.st_size}"


def refuse_inside(source: Source, image: Path) -> None:
    """Refuse a folder as the source of an image that would be a part of it."""
    if not isinstance(source, Folder):
        return
    root, parent = source.path.resolve(), image.parent.resolve()
    if root not in (parent, *parent.parents):
        return
    hidden = {root / os.fsdecode(point) for point in mounts_below(root)}
    if not hidden & {parent, *parent.parents}:
        raise CowError(f"{image} would be in the folder that it is made of, {source.path}. Choose another path.")


def _look_at_file(path: Path, known: Known) -> Look:
    key = _key(path)
    digest = (known.files.get(key) if mounts.tells_changes(path.parent) else None) or sha256(path)
    return Look(digest, {key: digest})


def sha256(*parts: Path) -> str:
    """Return the SHA-256 of files, one after the other."""
    total = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            while chunk := file.read(1 << 20):
                total.update(chunk)
    return total.hexdigest()


def _changed(before: Tree, after: Tree) -> str:
    if before.entries == after.entries:
        return ""
    ours, theirs = before.by_path(), after.by_path()
    changed = [
        os.fsdecode(path)
        for path in {**ours, **theirs}
        if path not in ours or path not in theirs or _moment(ours[path]) != _moment(theirs[path])
    ]
    return names.shortened(changed, 3)


def _moment(entry: Any) -> tuple[int, int, int]:
    return (entry.ctime_ns, entry.inode, entry.size)


def _completed(unpacked: Tree, began_ns: int) -> Tree:
    """Give the folders that an archive has no members for the same attributes each time, whatever the umask.

    tar makes those when it needs them, as of now. The root is one in what `docker export` writes.
    """
    made = {
        entry.path for entry in unpacked.entries if entry.is_folder and began_ns <= entry.mtime_ns <= unpacked.began_ns
    }
    if not made:
        return unpacked
    newest = max((entry.mtime_ns for entry in unpacked.entries if entry.path not in made), default=0)
    with Descent(unpacked.root) as descent:
        for path in made:
            folder = descent.at(path)
            os.fchown(folder, 0, 0)
            os.fchmod(folder, 0o755)
            os.utime(folder, ns=(newest, newest))
    return walk(unpacked.root, unpacked)


def _refuse_no_end(path: Path) -> None:
    """Refuse a tar without two blocks of zeros at its end: tar unpacks one that was cut between members in silence."""
    with path.open("rb") as file:
        header = file.read(_BLOCK)
        if header[_MAGIC] != b"ustar":
            return
        file.seek(max(file.seek(0, os.SEEK_END) - 2 * _BLOCK, 0))
        end = file.read()
    if end.count(0) < 2 * _BLOCK:
        raise CowError(
            f"The archive {path} is cut short: the two blocks of zeros that end a tar are missing. Get it again. If "
            f"nothing else is missing, unpack it yourself, and give the folder."
        )


def _why_not_unpacked(path: Path, error: CommandFailed) -> str:
    said = error.finished.stderr.strip()
    if missing := _NO_PROGRAM.search(said):
        return f"{path} cannot be decompressed: {tools.missing(missing[1])}"
    if any(words in said.lower() for words in _CUT_SHORT):
        return f"The archive {path} is cut short: tar says {said.splitlines()[0]!r}. Get it again."
    if "contains '..'" in said:
        return f"The archive {path} has members outside of its root: tar says {said.splitlines()[0]!r}. It is not used."
    if "does not look like a tar archive" in said:
        return f"{path} is neither a tar nor a squashfs. Give one of these, or a folder."
    return f"The archive {path} cannot be unpacked: {said}"


def refuse_no_room(path: Path, bytes_wanted: int, what: str = "The image") -> None:
    """Refuse to begin what cannot fit."""
    free = mounts.free(path)
    if free.bytes < bytes_wanted:
        raise CowError(
            f"{what} needs {bytes_wanted} bytes, and {path} has only {free.rounded()} free. Make room there."
        )
