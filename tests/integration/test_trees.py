"""Walks, manifests and copies of trees that hold everything that can be lost, on real file systems."""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ansible.module_utils.cow import manifest, treecopy
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.tree import is_unchanged, walk

from tests.support import loops, needs, trees

Folder = Callable[[str], Path]


@pytest.fixture(scope="module", params=["btrfs", "xfs", "ext4"])
def file_system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    needs.root("file systems are mounted")
    place = tmp_path_factory.mktemp(request.param)
    with getattr(loops, request.param)(place / "image", place / "mounted") as folder:
        yield folder


@pytest.fixture
def folder(file_system: Path) -> Iterator[Folder]:
    """Paths in a folder of the test's own."""
    own = file_system / f"test{time.monotonic_ns()}"
    own.mkdir()
    yield lambda name: own / name
    trees.let_go(own)
    subprocess.run(["rm", "-rf", own], check=True)


def equal(first: Path, second: Path) -> None:
    ours, theirs = manifest.of(first), manifest.of(second)
    assert manifest.differences(ours, theirs) == []
    assert ours.digest == theirs.digest


def test_a_copy_has_everything(folder: Folder) -> None:
    trees.make_hostile(folder("source"))
    done = treecopy.copy(folder("source"), folder("target"))
    equal(folder("source"), folder("target"))
    assert done.entries > 480
    assert walk(folder("target")).by_path()[b"sparse"].blocks < 1000


def test_a_copy_to_another_file_system_has_everything(folder: Folder, btrfs_folder: Path) -> None:
    trees.make_hostile(folder("source"), seed=2)
    treecopy.copy(folder("source"), btrfs_folder / "target", workers=3)
    equal(folder("source"), btrfs_folder / "target")
    trees.let_go(btrfs_folder)


def test_a_copy_inherits_no_acl(folder: Folder) -> None:
    """Of the folder that it is made in, or of the empty one that it fills."""
    trees.make_hostile(folder("source"))
    os.setxattr(folder("source").parent, "system.posix_acl_default", trees.acl(999))
    for name in ("target", "filled"):
        if name == "filled":
            folder(name).mkdir()
            assert os.getxattr(folder(name), "system.posix_acl_access") == trees.acl(999)
        treecopy.copy(folder("source"), folder(name))
        equal(folder("source"), folder(name))


def test_an_update_inherits_no_acl(folder: Folder) -> None:
    """Of the target's folders, and of those that the source has a default ACL for, but files that are older."""
    trees.make_hostile(folder("source"), depth=20)
    folder("target").mkdir()
    os.setxattr(folder("target"), "system.posix_acl_default", trees.acl(999))
    (folder("target") / "dir0").mkdir()
    treecopy.update(manifest.of(folder("source")), manifest.of(folder("target")))
    equal(folder("source"), folder("target"))
    subprocess.run(["rm", "-r", folder("target") / "inherit/below"], check=True)
    (folder("target") / "inherit/below").touch()
    treecopy.update(manifest.of(folder("source")), manifest.of(folder("target")))
    equal(folder("source"), folder("target"))


def test_a_source_that_is_no_folder_is_told_in_a_sentence(folder: Folder) -> None:
    folder("source").mkdir()
    folder("link").symlink_to("source")
    for name in ("link", "nothing"):
        with pytest.raises(CowError, match=f"{folder(name)} cannot be copied to .*: (Not a|No such)"):
            treecopy.copy(folder(name), folder(f"target of {name}"))


def test_an_update_of_an_equal_tree_writes_nothing(folder: Folder) -> None:
    trees.make_hostile(folder("source"))
    treecopy.copy(folder("source"), folder("target"))
    before = walk(folder("target"))
    done = treecopy.update(manifest.of(folder("source")), manifest.of(folder("target")))
    assert done == treecopy.Copied()
    assert walk(folder("target")).entries == before.entries


def test_an_update_makes_an_empty_folder_equal(folder: Folder) -> None:
    trees.make_hostile(folder("source"))
    folder("target").mkdir()
    treecopy.update(manifest.of(folder("source")), manifest.of(folder("target")))
    equal(folder("source"), folder("target"))


def test_an_update_between_two_trees_that_have_little_in_common(folder: Folder) -> None:
    trees.make_hostile(folder("source"), seed=3)
    trees.make_hostile(folder("target"), seed=4)
    trees.let_go(folder("target") / "dir1")
    subprocess.run(["rm", "-rf", folder("target") / "dir1", folder("target") / "odd"], check=True)
    (folder("target") / "odd").write_text("a file where a folder is wanted")
    (folder("target") / "more/and/more").mkdir(parents=True)
    (folder("target") / "sparse").unlink()
    (folder("target") / "sparse").write_bytes(b"s" * 40_000_000)
    treecopy.update(manifest.of(folder("source")), manifest.of(folder("target")))
    equal(folder("source"), folder("target"))


def test_an_update_mends_hard_links_both_ways(folder: Folder) -> None:
    """As `incus copy` loses them; and names that were one file in the target and are two in the source."""
    trees.make_hostile(folder("source"), depth=20)
    subprocess.run(["cp", "-a", "--no-preserve=links", folder("source"), folder("target")], check=True)
    (folder("target") / "dir0/sub1/file4").unlink()
    os.link(folder("target") / "setuid", folder("target") / "dir0/sub1/file4")
    treecopy.update(manifest.of(folder("source")), manifest.of(folder("target")))
    equal(folder("source"), folder("target"))


def test_an_update_writes_only_the_blocks_that_differ(folder: Folder) -> None:
    folder("source").mkdir()
    content = os.urandom(8 << 20)
    (folder("source") / "database").write_bytes(content)
    treecopy.copy(folder("source"), folder("target"))
    with (folder("source") / "database").open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"changed")
    done = treecopy.update(manifest.of(folder("source")), manifest.of(folder("target")))
    assert done.bytes == manifest.BLOCK
    equal(folder("source"), folder("target"))


def test_a_known_manifest_spares_the_reading_of_what_is_unchanged(folder: Folder) -> None:
    trees.make_hostile(folder("source"))
    time.sleep(2.1)  # what was just changed is always read again
    known = manifest.of(folder("source"))
    time.sleep(0.1)
    (folder("source") / "dir0/sub1/file4").write_bytes(b"changed")
    read: list[int] = []
    again = manifest.of(folder("source"), known, read.append)
    assert sum(read) == len("changed")
    assert again.digest == manifest.of(folder("source")).digest != known.digest
    assert [sentence.split(" has ")[0] for sentence in manifest.differences(known, again)][-1] == "dir0/sub1/file4"


def test_a_write_through_a_mapping_is_seen(folder: Folder) -> None:
    folder("source").mkdir()
    (folder("source") / "mapped").write_bytes(bytes(8192))
    with (folder("source") / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapping:
        mapping[0] = 1
        time.sleep(2.1)
        mapping[1] = 2
        known = manifest.of(folder("source"))
        mapping[2] = 3  # without a system call, on a page that was writable before the manifest
    assert manifest.of(folder("source"), known).contents != known.contents


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "content": lambda tree: (tree / "folder/file").write_text("else"),
    "mode": lambda tree: (tree / "folder/file").chmod(0o600),
    "attribute": lambda tree: os.setxattr(tree / "folder/file", "user.new", b"1"),
    "time of the root": os.utime,
    "a new file": lambda tree: (tree / "folder/new").touch(),
    "a new link": lambda tree: (tree / "folder/new").hardlink_to(tree / "folder/file"),
    "a file less": lambda tree: (tree / "folder/file").unlink(),
    "a folder less": lambda tree: (tree / "folder").rename(tree.parent / "moved"),
    "another of the same name": lambda tree: (tree / "folder/other").rename(tree / "folder/file"),
    "a file for a folder": lambda tree: ((tree / "empty").rmdir(), (tree / "empty").touch()),
}


def test_any_change_shows_without_another_walk(folder: Folder) -> None:
    for name in CHANGES:
        (folder(name) / "folder").mkdir(parents=True)
        (folder(name) / "empty").mkdir()
        for file in ("file", "other"):
            (folder(name) / "folder" / file).write_text("same")
    assert not is_unchanged(walk(folder("nothing"))), "what was just changed is not to be told from its times"
    time.sleep(2.1)
    before = {name: walk(folder(name)) for name in CHANGES}
    for name, change in CHANGES.items():
        change(folder(name))
        assert is_unchanged(before[name]) == (name == "nothing"), name
    subprocess.run(["mount", "--bind", folder("content"), folder("nothing") / "empty"], check=True)
    try:
        assert not is_unchanged(before["nothing"])
    finally:
        subprocess.run(["umount", folder("nothing") / "empty"], check=True)
    assert is_unchanged(before["nothing"])


def test_a_saved_manifest_is_the_same_when_loaded(folder: Folder) -> None:
    trees.make_hostile(folder("source"))
    first = manifest.of(folder("source"))
    folder("manifest").write_bytes(first.encoded())
    assert manifest.Manifest.load(folder("manifest")) == first


def test_a_damaged_manifest_is_refused(folder: Folder) -> None:
    folder("source").mkdir()
    first = manifest.of(folder("source"))
    whole = first.encoded()
    damaged = [whole[:-12], *(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in range(len(whole)))]
    refused: list[str] = []
    for each in damaged:
        folder("manifest").write_bytes(each)
        try:
            assert manifest.Manifest.load(folder("manifest")) == first
        except CowError as error:
            refused.append(str(error))
    unread = 10  # the header of gzip (RFC 1952), which has a time
    assert len(refused) > len(damaged) - unread
    assert all("cannot be used" in said for said in refused)


def test_a_file_of_many_that_cannot_be_read_is_named(folder: Folder) -> None:
    folder("source").mkdir()
    for number in range(600):
        (folder("source") / f"f{number}").touch()
    unreadable = folder("source") / "f300"
    subprocess.run(["mount", "--bind", f"/proc/{os.getpid()}/mem", unreadable], check=True)
    try:
        with pytest.raises(CowError, match=r"^f300 cannot be read: Input/output error\.$"):
            manifest.of(folder("source"))
    finally:
        subprocess.run(["umount", unreadable], check=True)


def test_a_copy_never_goes_over_what_is_there(folder: Folder) -> None:
    folder("source").mkdir()
    folder("target").mkdir()
    (folder("target") / "precious").touch()
    with pytest.raises(CowError, match="not empty"):
        treecopy.copy(folder("source"), folder("target"))


def test_what_is_mounted_in_a_tree_is_not_part_of_it(folder: Folder) -> None:
    (folder("source") / "proc").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder("source") / "proc"], check=True)
    try:
        (folder("source") / "proc/elsewhere").touch()
        assert walk(folder("source")).mounts == (b"proc",)
        treecopy.copy(folder("source"), folder("target"))
        assert list((folder("target") / "proc").iterdir()) == []
    finally:
        subprocess.run(["umount", folder("source") / "proc"], check=True)


def test_a_tree_that_changes_under_a_copy_is_copied_when_it_is_live(folder: Folder) -> None:
    trees.make_hostile(folder("source"))
    churn = "while :; do for n in 1 2 3 4 5 6 7 8 9; do echo $n > $n; mkdir d$n; ln $n d$n/; rm -r $n d$n; done; done"
    process = subprocess.Popen(["sh", "-c", churn], cwd=folder("source") / "sticky", stderr=subprocess.DEVNULL)
    try:
        for number in range(5):
            treecopy.copy(folder("source"), folder(f"target{number}"), live=True)
            manifest.of(folder("source"))
    finally:
        process.kill()
        process.wait()


def test_a_full_target_is_told_in_a_sentence(tmp_path: Path) -> None:
    needs.root("file systems are mounted")
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(64 << 20))
    with loops.ext4(tmp_path / "image", tmp_path / "small", 32 << 20) as small:
        with pytest.raises(CowError, match="No space left on device"):
            treecopy.copy(source, small / "target")
        assert subprocess.run(["fuser", "-m", small], capture_output=True, check=False).stdout == b""


def test_what_the_target_cannot_keep_is_told_in_a_sentence(folder: Folder) -> None:
    (folder("source") / "sub").mkdir(parents=True)
    (folder("source") / "sub/file").touch()
    os.setxattr(folder("source") / "sub/file", "user.note", b"")
    folder("target").mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", folder("target")], check=True)
    try:
        with pytest.raises(CowError, match=r"cannot be copied .*: Operation not supported \(sub/file\)\.$"):
            treecopy.copy(folder("source"), folder("target"))
        with pytest.raises(CowError, match=r"cannot be made equal .*: Operation not supported\.$"):
            treecopy.update(manifest.of(folder("source")), manifest.of(folder("target")))
    finally:
        subprocess.run(["umount", folder("target")], check=True)


def test_progress_ends_with_the_whole(folder: Folder) -> None:
    trees.make_hostile(folder("source"))
    told: list[treecopy.Copied] = []
    done = treecopy.copy(folder("source"), folder("target"), progress=told.append)
    assert told[-1] == done


def test_a_walk_ends_only_with_the_tree(folder: Folder) -> None:
    with ExitStack() as stack:
        stack.enter_context(trees.hostile(folder("source")))
        entries = walk(folder("source")).entries
    assert entries[0].path == b"."
    assert [entry for entry in entries if entry.path.endswith(b"bottom")]
