"""The size of an ext4 as it is computed, against mke2fs itself."""

from __future__ import annotations

import os
import random
import tempfile
import uuid
from pathlib import Path

import pytest
from ansible.module_utils.cow import manifest, process
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.image import erofs, ext4, sizing
from ansible.module_utils.cow.image.job import Options
from ansible.module_utils.cow.image.purge import Purge
from ansible.module_utils.cow.tree import walk
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import needs

PLAIN = {
    "format": "ext4",
    "label": None,
    "size": "minimum",
    "method": "auto",
    "reserved_percent": 0,
    "journal": "auto",
    "packed_meta_blocks": False,
    "inodes": "auto",
    "preset": "balanced",
    "compressor": None,
    "level": None,
}


def options(**other: object) -> Options:
    return Options.of({**PLAIN, **other})


def make(folder: Path, seed: int, files: int, folders: int, longest_name: int) -> None:
    dice = random.Random(seed)
    places = [folder]
    for number in range(folders):
        place = dice.choice(places) / f"d{number}"
        place.mkdir()
        places.append(place)
        if dice.randrange(4) == 0:
            os.setxattr(place, "user.attribute", dice.randbytes(dice.randrange(400)))
    for number in range(files):
        path = dice.choice(places) / f"{number}{'n' * dice.randrange(longest_name)}"
        kind = dice.randrange(6)
        if kind == 0:
            path.symlink_to("t" * dice.randrange(1, 300))
        elif kind == 1:
            with path.open("wb") as file:
                for _ in range(dice.randrange(12)):
                    file.seek(dice.randrange(1 << 12) << 12)
                    file.write(b"x" * dice.randrange(1, 9000))
        elif kind == 2:
            path.write_bytes(bytes(dice.randrange(20000)))
        else:
            path.write_bytes(dice.randbytes(dice.choice((0, 1, 4095, 4096, 4097, 60_000))))
        if kind and dice.randrange(8) == 0:
            os.setxattr(path, "user.attribute", dice.randbytes(dice.randrange(400)))
        if dice.randrange(4) == 0:
            os.link(path, dice.choice(places) / f"link{number}", follow_symlinks=False)


def fits(root: Path, layout: sizing.Layout, work: Path) -> bool:
    """Whether mke2fs gets the tree into a file system of this size."""
    image = work / "image"
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(layout.bytes)
    (work / "conf").write_text("[defaults]\n\n[fs_types]\n")
    features = ",".join((*ext4.FEATURES, *(("has_journal",) if layout.journal else ())))
    journal = ["-J", f"size={layout.journal >> 8}"] if layout.journal else []
    fixed = ["mke2fs", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-U", str(uuid.UUID(int=1)), *journal]
    sized = ["-N", str(layout.inodes), "-O", features, "-E", "lazy_itable_init=0,nodiscard", "-d", str(root)]
    environment = {"MKE2FS_CONFIG": str(work / "conf")}
    made = process.run([*fixed, *sized, str(image), str(layout.blocks)], environment=environment, accept=range(256))
    return made.status == 0 and "too small for a journal" not in made.stdout + made.stderr


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32),
    files=st.integers(0, 120),
    folders=st.integers(0, 12),
    longest_name=st.integers(1, 240),
    journal=st.sampled_from([None, 0, 1024]),
)
def test_what_is_computed_fits_and_two_blocks_less_do_not(
    seed: int, files: int, folders: int, longest_name: int, journal: int | None
) -> None:
    """Where the attributes of folders lie is not known to the block, and a file around them may need one more."""
    needs.program("mke2fs")
    with tempfile.TemporaryDirectory() as place:
        root, work = Path(place, "tree"), Path(place, "work")
        root.mkdir()
        work.mkdir()
        make(root, seed, files, folders, longest_name)
        need = sizing.need_of(sizing.Content(walk(root)))
        assert need == sizing.need_of(sizing.Content(walk(root), manifest.of(root).runs))
        layout = sizing.smallest(need, journal)
        assert fits(root, layout, work)
        assert not fits(root, sizing.Layout(layout.blocks - 2, layout.inodes, layout.journal), work)


@pytest.mark.parametrize(
    ("folders", "files", "name", "size"),
    [
        (1, 1000, "{:012}", 4096),
        (3, 1000, "{:012}", 4096),
        (1, 1000, "{:012}", 0),
        (1, 400, "{:0200}", 4096),
        (1, 2000, "{:0250}", 1),
    ],
)
def test_extents_of_large_folders_are_counted(tmp_path: Path, folders: int, files: int, name: str, size: int) -> None:
    """Each new block of a folder comes after the files that have been written."""
    needs.program("mke2fs")
    root, work = tmp_path / "tree", tmp_path / "work"
    work.mkdir()
    for folder in range(folders):
        (root / str(folder)).mkdir(parents=True)
        for number in range(files):
            (root / str(folder) / name.format(number)).write_bytes(b"x" * size)
    layout = sizing.smallest(sizing.need_of(sizing.Content(walk(root))), 0)
    assert fits(root, layout, work)
    assert not fits(root, sizing.Layout(layout.blocks - 1, layout.inodes, 0), work)


def test_the_journal_takes_room_where_the_kernel_writes_to_it(tmp_path: Path) -> None:
    needs.program("mke2fs")
    (tmp_path / "file").write_text("content")
    content = sizing.Content(walk(tmp_path))
    for method, room in (("mke2fs", 0), ("loop", 64 << 20), ("shrink", 64 << 20)):
        with_journal, without = (
            ext4.Ext4().foresee(content, options(method=method, journal=journal)) for journal in ("64MiB", "none")
        )
        assert with_journal - without == room


@given(blocks=st.integers(1, 1 << 24), inodes=st.integers(11, 1 << 24), journal=st.sampled_from([None, 0, 4096]))
def test_the_smallest_layout_holds_what_is_needed(blocks: int, inodes: int, journal: int | None) -> None:
    need = sizing.Need(blocks, inodes)
    layout = sizing.smallest(need, journal)
    assert layout.free >= blocks
    assert sizing.smallest(need.with_room(1000, 0), journal).blocks >= layout.blocks


@pytest.mark.parametrize(
    ("extents", "blocks"), [(0, 0), (1, 0), (4, 0), (5, 1), (340, 1), (341, 2), (1360, 4), (1361, 6), (3000, 10)]
)
def test_extent_trees(extents: int, blocks: int) -> None:
    assert sizing.extent_blocks(extents) == blocks


@pytest.mark.parametrize(
    ("said", "version", "fails"),
    [
        ("mke2fs 1.47.0 (5-Feb-2023)\n", (1, 47, 0), False),
        ("mke2fs 1.47.1 (20-May-2024)\n", (1, 47, 1), True),
        ("mke2fs 1.47.2 (1-Jan-2025)\n\tUsing EXT2FS Library version 1.47.2", (1, 47, 2), True),
        ("mke2fs 1.47.3 (8-Jul-2025)\n", (1, 47, 3), True),
        ("mke2fs 1.47.4 (6-Mar-2026)\n", (1, 47, 4), False),
        ("mke2fs 1.48 (1-Jan-2027)\n", (1, 48), False),
    ],
)
def test_versions_that_fail_with_large_files(tmp_path: Path, said: str, version: tuple[int, ...], fails: bool) -> None:
    assert ext4.parse_version(said) == version
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 << 30)
    tree = walk(tmp_path)
    assert ext4.choose(tree, options(), version).name == ("loop" if fails else "mke2fs")
    if fails:
        with pytest.raises(CowError, match="method loop"):
            ext4.choose(tree, options(method="mke2fs"), version)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sif <2> mtime @5", ""),
        ("ea_set <2> user.name value", ""),
        ("ea_set -f none <2> user.name", "none: No such file or directory"),
        ("ea_set <2> user.name", "Usage:"),
        ("sif <99999> mtime @5", "<99999>: File not found"),
        ("sif <2> mtime yesterday", "yesterday"),
        ("nonsense", "Command not found"),
    ],
)
def test_what_debugfs_complains_of_is_heard(tmp_path: Path, line: str, said: str) -> None:
    """Also before another command that works."""
    needs.program("debugfs")
    image, script = tmp_path / "image", tmp_path / "script"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    process.run(["mke2fs", "-q", "-F", "-I", "256", str(image)])
    script.write_text(f"{line}\nsif <2> atime @5\n")
    finished = process.run(["debugfs", "-w", "-f", str(script), str(image)], accept=range(256))
    complaint = ext4.complaints(finished)
    assert said in complaint
    assert bool(complaint) == bool(said)


def test_patterns_of_what_is_left_out(tmp_path: Path) -> None:
    for name in ("etc/ssh/ssh_host_rsa_key", "etc/ssh/sub/ssh_host_x_key", "etc/machine-id", "tmp/a/b", "keep"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    tree = walk(tmp_path)
    left = Purge(("etc/ssh/ssh_host_*_key", "tmp/*", "etc/machine-id", "etc/machine-id/none")).applied(tree)
    sizes = {os.fsdecode(entry.path): entry.size for entry in left.entries if not entry.is_folder}
    assert sizes == {"etc/ssh/sub/ssh_host_x_key": 1, "etc/machine-id": 0, "keep": 1}
    assert b"tmp/a" not in left.by_path()
    assert b"tmp" in left.by_path()


def test_compressors_of_both_kinds_of_help() -> None:
    assert erofs.compressors("...\nAvailable compressors are: lz4hc, lz4\n") == ("lz4hc", "lz4")
    newer = " -zX[,level=Y]  X=compressor\n" + "".join(f"{' ' * 23}{name}\n" for name in ("lz4", "lz4hc"))
    assert erofs.compressors(newer) == ("lz4", "lz4hc")
