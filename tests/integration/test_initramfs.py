"""The module initramfs, on a real Debian with its own initramfs-tools."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images, leftovers, needs
from tests.support.ansible import four_runs, run_module

HOOK = """\
#!/bin/sh
[ "$1" != prereqs ] || exit 0
echo made-by-the-hook >"$DESTDIR/conf/cowherd-test"
"""
FILES = [{"path": "etc/initramfs-tools/hooks/cowherd", "content": HOOK, "mode": "0755"}]


@pytest.fixture(scope="module")
def debian() -> Iterator[Path]:
    needs.root("a chroot makes the initial RAM disk")
    needs.program("mmdebstrap")
    folder = leftovers.new_folder()
    tree = folder / "tree"
    tree.mkdir()
    tar = ["tar", "--extract", "--numeric-owner", "--file", images.bootable_debian(), "--directory", tree]
    subprocess.run(tar, check=True)
    yield tree
    leftovers.remove(folder)


def test_four_runs(debian: Path) -> None:
    runs = four_runs("initramfs", {"tree": str(debian), "files": FILES}, state=lambda: _state(debian))
    (kernel,) = runs.do["kernels"]
    assert Path(kernel["kernel"]).name == f"vmlinuz-{kernel['version']}"
    assert "made-by-the-hook" in _file_in(debian, kernel["initrd"], "conf/cowherd-test")
    assert not any((debian / "proc").iterdir()), "a mount is left in the tree"


def test_a_ram_disk_that_was_changed_is_made_again(debian: Path) -> None:
    """After an update of the kernel in the tree, say. What a killed run left is no reason to fail."""
    run_module("initramfs", {"tree": str(debian), "files": FILES})
    initrd = next(debian.glob("boot/initrd.img-*"))
    initrd.unlink()
    announced = run_module("initramfs", {"tree": str(debian), "files": FILES}, check=True)
    assert announced["steps"] == [f"make boot/{initrd.name} in {debian}"]
    assert announced["kernels"][0]["initrd"] is None
    assert run_module("initramfs", {"tree": str(debian), "files": FILES})["changed"]
    assert initrd.is_file()


def test_a_hook_that_fails_is_reported_and_the_ram_disk_is_kept(debian: Path) -> None:
    run_module("initramfs", {"tree": str(debian), "files": FILES})
    initrd = next(debian.glob("boot/initrd.img-*"))
    before = hashlib.sha256(initrd.read_bytes()).hexdigest()
    failing = [{**FILES[0], "content": "#!/bin/sh\n[ \"$1\" != prereqs ] || exit 0\necho 'no such disk' >&2\nexit 1\n"}]
    result = run_module("initramfs", {"tree": str(debian), "files": failing})
    assert result["failed"]
    assert "no such disk" in result["msg"]
    assert hashlib.sha256(initrd.read_bytes()).hexdigest() == before
    assert run_module("initramfs", {"tree": str(debian), "files": FILES}, check=True)["changed"]


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    needs.root("as the module")
    assert "There is no folder" in run_module("initramfs", {"tree": str(tmp_path / "none")})["msg"]
    assert "There is no kernel" in run_module("initramfs", {"tree": str(tmp_path), "files": FILES})["msg"]
    assert not any(tmp_path.iterdir())


def _state(tree: Path) -> dict[str, str]:
    files = (path for folder in ("boot", "etc", "var") for path in (tree / folder).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _file_in(tree: Path, initrd: str, name: str) -> str:
    inside = "/" + str(Path(initrd).relative_to(tree))
    unpacked = tree / "tmp/unpacked"
    subprocess.run(["chroot", tree, "unmkinitramfs", inside, "/tmp/unpacked"], check=True)
    found = next(unpacked.rglob(name)).read_text()
    shutil.rmtree(unpacked)
    return found
