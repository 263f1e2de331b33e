"""Images with ext4: computed to the block and written by mke2fs, or copied into a mounted one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import tools
from ..errors import CowError
from ..process import CommandFailed, Finished
from ..size import Size
from ..tree import Entry, Tree
from . import losses, sizing, workshop
from .job import Built, Job, Options, Room, refuse_ignored
from .sizing import BLOCK, Content, Layout, Need

FEATURES = (
    "none",
    "extent",
    "huge_file",
    "flex_bg",
    "metadata_csum",
    "64bit",
    "dir_nlink",
    "extra_isize",
    "sparse_super",
    "large_file",
    "filetype",
    "dir_index",
    "ext_attr",
)
"""Those that Debian's mke2fs.conf gives ext4, but for room to grow (resize_inode); the host's own file is not read."""
VARIES_BY_KERNEL = ("times of access, change and creation", "where the kernel puts blocks and inodes")
"""What is otherwise in two images of the same inputs that the kernel filled."""
_TIMES = (b"atime", b"ctime", b"crtime")
"""Fields of inodes that mke2fs takes from the source, where they are others each time."""
_LEAST_JOURNAL = 1024
_BYTES_PER_FREE_INODE = 16384
_LARGE_FILE = 2 << 30
_MANY_LOOKS = 4_000_000
"""Looks at blocks of folders from which on mke2fs takes about a minute for one folder."""
_GROWTH = 64
"""A computed size that was too small grows by this part of it."""
_LONGEST_LABEL = 16
_NO_ROOM = "There was no room left while the image was filled. Make room where the image is to be."
_NO_BLOCK = re.compile(
    r"could not allocate block|no free space|not enough space|no space left|journal size too big", re.IGNORECASE
)
_PLAIN_NAME = re.compile(rb"[!#-\[\]-~]+")
"""Names of attributes that are one word for debugfs: printable ASCII without space, quote and backslash."""
_NO_INODE = re.compile(r"[Cc]ould not allocate inode|inode.*not.*(free|alloc)", re.IGNORECASE)


@dataclass(frozen=True)
class Method:
    """A way to fill the file system, and why this one."""

    name: str
    why: str


class Ext4:
    """What mke2fs makes."""

    heeds = ("label", "size", "method", "reserved_percent", "journal", "packed_meta_blocks", "inodes")

    def check(self, options: Options) -> None:
        """Refuse sizes and numbers that are none."""
        Room.of(options.size)
        _journal(options.journal)
        _spare_inodes(options.inodes)
        if not 0 <= options.reserved_percent <= 50:
            raise CowError(f"reserved_percent is {options.reserved_percent}. It can be from 0 to 50.")
        if len(options.label.encode()) > _LONGEST_LABEL:
            raise CowError(f"The label {options.label!r} is longer than {_LONGEST_LABEL} bytes.")
        if options.method == "mkfs":
            raise CowError("ext4 has no method mkfs. Its methods are auto, mke2fs, loop and shrink.")
        if options.compressor or options.level is not None:
            raise CowError("ext4 does not compress. Leave `compressor` and `level` out, or choose another format.")
        refuse_ignored(options, self.heeds)
        if options.method == "shrink" and options.size != "minimum":
            raise CowError("Method shrink makes the smallest image that it can. Leave `size` out, or choose loop.")

    def tools(self, options: Options) -> Mapping[str, str]:
        """Return the version of e2fsprogs."""
        for program in ("mke2fs", "debugfs", "dumpe2fs", *(("resize2fs",) if options.method == "shrink" else ())):
            tools.require(program)
        return {"e2fsprogs": ".".join(map(str, version()))}

    def lost(self, tree: Tree, options: Options) -> list[str]:
        """Flags, hard links of symlinks and far times, by mke2fs."""
        if choose(tree, options, version()).name != "mke2fs":
            return []
        return [
            *losses.flags(tree),
            *losses.linked_symlinks(tree),
            *losses.times(tree, -(2**31), 2**31 - 1, "mke2fs writes those of 1901 to 2038"),
        ]

    def foresee(self, content: Content, options: Options) -> int:
        """Compute the size, and return what of it is not holes."""
        method = choose(content.tree, options, version()).name
        layout = _layout(_need(content, method), options)
        written = sizing.need_of(content)
        journal = 0 if method == "mke2fs" else layout.journal  # which mke2fs leaves a hole, and the kernel writes to
        return (written.blocks + journal) * BLOCK + written.inodes * sizing.INODE

    def build(self, job: Job) -> Built:
        """Compute, and fill; once more, a little larger, when that was too small after all."""
        method = choose(job.tree, job.options, version())
        need = _need(job.content, method.name)
        layout = _layout(need, job.options)
        smallest = _smallest(need, job.options)
        fill = {"mke2fs": _by_mke2fs, "loop": _by_loop, "shrink": _by_shrinking}[method.name]
        tries = 1
        try:
            fill(job, layout)
        except _TooSmall as refused:
            if Room.of(job.options.size).fixed:
                raise CowError(
                    f"An image of {Size(layout.bytes)} is too small for the content: {refused}. "
                    f"Give it {Size(layout.bytes // 50).rounded()} more."
                ) from refused
            tries, layout = 2, refused.grown(layout)
            smallest = refused.grown(smallest)
            job.target.unlink(missing_ok=True)
            with _in_words(layout):
                fill(job, layout)
        varies = () if method.name == "mke2fs" else VARIES_BY_KERNEL
        return Built(method.name, method.why, minimum_bytes=smallest.bytes, tries=tries, varies=varies)


def version() -> tuple[int, ...]:
    """Return that of the installed e2fsprogs."""
    return parse_version(tools.said("mke2fs", "-V"))


def parse_version(said: str) -> tuple[int, ...]:
    """Read `mke2fs 1.47.0 (5-Feb-2023)`."""
    matched = re.search(r"mke2fs (\d+(?:\.\d+)*)", said)
    if matched is None:
        raise CowError(f"mke2fs does not say its version: {said.strip()!r}.")
    return tuple(map(int, matched[1].split(".")))


def fails_with_large_files(found: tuple[int, ...]) -> bool:
    """Say whether mke2fs -d of this version fails with files of 2 GiB and more: 1.47.1 to 1.47.3 do."""
    return (1, 47, 1) <= found <= (1, 47, 3)


def choose(tree: Tree, options: Options, found: tuple[int, ...]) -> Method:
    """Decide how to fill the file system."""
    largest = sizing.largest_file(tree)
    cannot = fails_with_large_files(found) and largest >= _LARGE_FILE
    words = ".".join(map(str, found))
    if options.method == "mke2fs" and cannot:
        raise CowError(
            f"mke2fs {words} fails with files of 2 GiB and more, and the largest here has {Size(largest).rounded()}. "
            f"Choose method loop, or install e2fsprogs 1.47.4 or newer."
        )
    odd = _odd_attribute(tree.entries[0])
    if options.method == "mke2fs" and odd:
        raise CowError(
            f"Method mke2fs cannot write {odd}: it can those with names of printable ASCII without spaces, quotes and "
            f"backslashes. Choose method loop, or remove the attribute."
        )
    if options.method != "auto":
        return Method(options.method, "as asked for")
    if odd:
        return Method("loop", f"mke2fs cannot write {odd}")
    if cannot:
        return Method("loop", f"mke2fs {words} fails with files of 2 GiB and more")
    folder, entries, looks = sizing.slowest_folder(tree)
    if looks > _MANY_LOOKS:
        shown = folder.decode("utf-8", "backslashreplace")
        return Method("loop", f"mke2fs takes minutes for a folder of {entries} entries ({shown})")
    return Method("mke2fs", "mke2fs makes the smallest image, and the same bytes each time")


def _odd_attribute(root: Entry) -> str:
    """Name an attribute of the root that debugfs cannot be told to write; "" when there is none.

    Its scripts are of lines, and lines of words: the rest of such a name would be another command, run as root.
    """
    odd = next((name for name, _ in root.xattrs if not _PLAIN_NAME.fullmatch(name)), None)
    return "" if odd is None else f"the attribute {os.fsdecode(odd)!r} of the root of the tree"


@contextlib.contextmanager
def _in_words(layout: Layout) -> Iterator[None]:
    try:
        yield
    except _TooSmall as refused:
        raise CowError(
            f"The size that was computed, {layout.bytes} bytes, is too small: {refused}. Give a fixed `size`, "
            f"and please report this as a fault."
        ) from refused


class _TooSmall(Exception):
    def __init__(self, what: str, said: str) -> None:
        super().__init__(said)
        self.what = what

    def grown(self, layout: Layout) -> Layout:
        """Return the next size to try."""
        if self.what == "inodes":
            more = layout.inodes // _GROWTH + 16
            return Layout(layout.blocks + more // 16 + 2, layout.inodes + more, layout.journal)
        return Layout(layout.blocks + layout.blocks // _GROWTH + 16, layout.inodes, layout.journal)


def _journal(journal: str) -> int | None:
    """Return its blocks, None for those of its table."""
    if journal in ("auto", "none"):
        return None if journal == "auto" else 0
    blocks = Size.parse(journal).bytes // BLOCK
    if not _LEAST_JOURNAL <= blocks <= 10240000 or blocks % 256:
        raise CowError(f"The journal is to have {journal}. It can have whole MiB from 4MiB on, or be `none` or `auto`.")
    return blocks


def _spare_inodes(inodes: str) -> int | None:
    """Return how many more than needed, None for what goes with the room that is left free."""
    if inodes in ("auto", "exact"):
        return None if inodes == "auto" else 0
    matched = re.fullmatch(r"\+(\d{1,9})", inodes)
    if matched is None:
        raise CowError(f"{inodes!r} is not a number of inodes. Write auto, exact or +1000.")
    return int(matched[1])


def _need(content: Content, method: str) -> Need:
    need = sizing.need_of(content)
    return need if method == "mke2fs" else sizing.for_the_kernel(content.tree, need)


def _smallest(need: Need, options: Options) -> Layout:
    spare = _spare_inodes(options.inodes) or 0
    return sizing.smallest(need.with_room(0, spare), _journal(options.journal))


def _layout(need: Need, options: Options) -> Layout:
    """Return the file system that is wanted. Raises CowError when it is too small."""
    journal, room = _journal(options.journal), Room.of(options.size)
    smallest = _smallest(need, options)
    if room.fixed:
        return _fixed(need, options, smallest, room.fixed)
    free = room.free(smallest.bytes)
    if not free:
        return smallest
    spare = _spare_inodes(options.inodes)
    more = free // _BYTES_PER_FREE_INODE if spare is None else spare
    return sizing.smallest(need.with_room(-(-free // BLOCK), more), journal)


def _fixed(need: Need, options: Options, smallest: Layout, size: int) -> Layout:
    if size < smallest.bytes:
        raise CowError(
            f"An image of {options.size} is too small: its content needs {smallest.bytes} bytes "
            f"({Size(smallest.bytes).rounded()}) with these options. Give at least that, or `size: minimum`."
        )
    spare = _spare_inodes(options.inodes)
    if spare is None:
        # What is left of the room after their own tables.
        spare = (size - smallest.bytes) // (_BYTES_PER_FREE_INODE + sizing.INODE)
    layout = sizing.fixed(size, need.with_room(0, spare), _journal(options.journal))
    if layout.free >= need.blocks:
        return layout
    return Layout(layout.blocks, need.inodes + (_spare_inodes(options.inodes) or 0), smallest.journal)


def _by_mke2fs(job: Job, layout: Layout) -> None:
    _make(job, layout, job.root)
    _amend(job)


def _by_loop(job: Job, layout: Layout) -> None:
    from .. import treecopy  # noqa: PLC0415

    _make(job, layout)
    with (
        workshop.room_explained(job.work, _NO_ROOM),
        workshop.mounted(job.target, job.work / "filled", "-o", "loop,noatime") as point,
    ):
        (point / "lost+found").rmdir()
        try:
            treecopy.copy(job.root, point, sparse=True)
        except CowError as error:
            if "No space left" in str(error):
                raise _TooSmall("blocks", str(error)) from error
            raise
        if not (point / "lost+found").exists():
            (point / "lost+found").mkdir(mode=0o700)
            root = job.tree.entries[0]
            os.utime(point, ns=(root.mtime_ns, root.mtime_ns))
        workshop.written(point)


def _by_shrinking(job: Job, layout: Layout) -> None:
    large = Layout(layout.blocks * 2 + 4 * sizing.default_journal(layout.blocks), layout.inodes, layout.journal)
    _by_loop(job, large)
    workshop.tool(["e2fsck", "-f", "-y", job.target], accept=(0, 1))
    workshop.tool(["resize2fs", "-M", job.target])
    with job.target.open("r+b") as file:
        file.truncate(next(_figures(job, "Block count")) * BLOCK)


def _figures(job: Job, *names: str) -> Iterator[int]:
    """Read numbers from the superblock of the image."""
    said = workshop.tool(["dumpe2fs", "-h", job.target]).stdout
    for name in names:
        matched = re.search(rf"^{name}: +(\d+)$", said, re.MULTILINE)
        if matched is None:
            raise CowError(f"dumpe2fs does not say the {name.lower()} of the image.")
        yield int(matched[1])


def _make(job: Job, layout: Layout, content: Path | None = None) -> None:
    options = job.options
    with job.target.open("xb") as file:
        file.truncate(layout.bytes)
    features = (*FEATURES, *(("has_journal",) if layout.journal else ()))
    argv: list[str | Path] = ["mke2fs", "-q", "-F", "-b", str(BLOCK), "-I", str(sizing.INODE), "-N", str(layout.inodes)]
    argv += ["-m", str(options.reserved_percent), "-O", ",".join(features), "-U", str(job.identity)]
    if layout.journal:
        argv += ["-J", f"size={layout.journal * BLOCK >> 20}"]
    if options.label:
        argv += ["-L", options.label]
    extended = f"hash_seed={job.identity},lazy_itable_init=0,lazy_journal_init=0,discard,root_owner=0:0"
    argv += ["-E", extended + (",packed_meta_blocks=1" if options.packed_meta_blocks else "")]
    if content:
        argv += ["-d", content]
    configuration = job.work / "mke2fs.conf"
    configuration.write_text("[defaults]\n\n[fs_types]\n")
    environment = {"MKE2FS_CONFIG": str(configuration), **_clock(job)}
    try:
        workshop.tool([*argv, job.target, str(layout.blocks)], environment=environment)
    except CommandFailed as error:
        said = error.finished.stderr.strip()
        if _NO_INODE.search(said):
            raise _TooSmall("inodes", said) from error
        if _NO_BLOCK.search(said):
            raise _TooSmall("blocks", said) from error
        raise


def _clock(job: Job) -> dict[str, str]:
    """Have the tools take the time of the build for now; 0 would be the real time to them."""
    return {"E2FSPROGS_FAKE_TIME": str(max(job.epoch, 1))}


def _amend(job: Job) -> None:
    """Do what mke2fs leaves out.

    It takes times of access and change from the source, which are others each time, and the root's own attributes from
    nowhere. Inodes are taken in the order of their numbers; the tables of those that are free stay holes.
    """
    inodes, free = _figures(job, "Inode count", "Free inodes")
    used = inodes - free
    script = job.work / "amend"
    with script.open("wb") as file:
        file.writelines(b"%b\n" % line for line in _of_root(job.tree.entries[0], job.work))
        for inode in (2, *range(11, used + 1)):
            file.writelines(b"sif <%d> %b @%d\n" % (inode, field, job.epoch) for field in _TIMES)
    argv: list[str | Path] = ["debugfs", "-w", "-f", script.name, job.target]
    finished = workshop.tool(argv, environment=_clock(job), accept=(0, 1), folder=job.work)
    if complaint := complaints(finished):
        raise CowError(f"debugfs could not set what mke2fs leaves out: {complaint}.")


def complaints(finished: Finished) -> str:
    """Return what debugfs says besides its version and the commands that it was given; its status is often 0 then."""
    errors = [line for line in finished.stderr.splitlines() if not re.match(r"debugfs \d", line)]
    others = [line for line in finished.stdout.splitlines() if not line.startswith("debugfs: ")]
    said = "; ".join(line.strip() for line in (*errors, *others) if line.strip())
    return said or ("" if finished.status == 0 else f"it ended with status {finished.status}")


def _of_root(root: Entry, work: Path) -> Iterator[bytes]:
    """Commands of debugfs for the root's attributes, to be run in `work`."""
    yield b"sif <2> mode 0%o" % root.mode
    yield b"sif <2> uid %d" % root.uid
    yield b"sif <2> gid %d" % root.gid
    yield b"sif <2> mtime @%d" % (root.mtime_ns // 10**9)
    for number, (name, value) in enumerate(root.xattrs):
        if not _PLAIN_NAME.fullmatch(name):
            raise AssertionError("an attribute that debugfs cannot be told of is not written by it")
        content = work / f"attribute{number}"
        content.write_bytes(value)
        yield b"ea_set -f %b <2> %b" % (content.name.encode(), name)
