"""Plans for images as a function of what the server has and what is wanted, and files told from how they begin."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible.module_utils.cow import apt, debian
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.incus import image_files, images
from ansible.module_utils.cow.incus.client import Server
from ansible.module_utils.cow.incus.image_sources import Look, Remote, Source
from ansible.module_utils.cow.incus.image_store import IMPORTED, SOURCE, Image, Leftover, Pool, Store, remote_token
from ansible.module_utils.cow.incus.images import Found, Key, Wanted

SERVER = Server("/nonexistent/unix.socket")
KEY = Key("default", "base")
OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
CLONES, COPIES = Pool(can_clone=True), Pool(can_clone=False)


@dataclass(frozen=True)
class Somewhere(Source):
    """A source whose look is given with what was found."""

    @property
    def words(self) -> str:
        return "from somewhere"

    def look(self, named: Image | None) -> Look:
        raise NotImplementedError

    def bring(self, server: Server, project: str, look: Look) -> str:
        raise NotImplementedError


def image(
    fingerprint: str, *aliases: str, of: str = "", by_hand: bool = False, remote: str = "", auto_update: bool = False
) -> Image:
    properties = {**({SOURCE: of} if of else {}), **({IMPORTED: "true"} if of and not by_hand else {})}
    return Image(fingerprint, frozenset(aliases), properties, auto_update=auto_update, remote=remote)


def found(*there: Image, look: Look, pools: Mapping[str, Pool] | None = None, left: tuple[Leftover, ...] = ()) -> Found:
    store = Store(images={"default": there}, leftovers={"default": left}, pools=pools or {})
    return Found(store, {KEY: look})


def titles(state: Found, *pools: str, source: Source | None = None, fresh: frozenset[str] = frozenset()) -> list[str]:
    return images.plan(SERVER, state, Wanted(KEY, source or Somewhere(), pools), fresh).titles


@pytest.mark.parametrize(
    ("there", "look", "expected"),
    [
        ((), Look("new"), ["import image base: from somewhere"]),
        ((image(OLD, "base", of="new"),), Look("new"), []),
        ((image(OLD, "base"),), Look("new"), []),
        ((image(NEW, "base"),), Look("new", NEW), []),
        (
            (image(OLD, "base"),),
            Look("new", NEW),
            [f"import image base: from somewhere, in place of {OLD[:12]}"],
        ),
        (
            (image(OLD, "base", of="old"),),
            Look("new"),
            [
                f"import image base: from somewhere, in place of {OLD[:12]}",
                f"delete image {OLD[:12]}, which no alias names any more",
            ],
        ),
        (
            (image(OLD, "base", of="old", by_hand=True),),
            Look("new"),
            [f"import image base: from somewhere, in place of {OLD[:12]}"],
        ),
        (
            (image(OLD, "base", "kept", of="old"),),
            Look("new"),
            [f"import image base: from somewhere, in place of {OLD[:12]}"],
        ),
        ((image(NEW, of="new"),), Look("new"), [f"give alias base to image {NEW[:12]}, which is here already"]),
        ((image(NEW),), Look("new", NEW[:12]), [f"give alias base to image {NEW[:12]}, which is here already"]),
        (
            (image(OLD, "base", of="old"), image(NEW, "x", of="new")),
            Look("new"),
            [
                f"move alias base to image {NEW[:12]}, which is here already",
                f"delete image {OLD[:12]}, which no alias names any more",
            ],
        ),
        ((image(OTHER, "other", of="old"), image(OLD)), Look("new"), ["import image base: from somewhere"]),
    ],
)
def test_alias_comes_to_name_the_wanted_image(there: tuple[Image, ...], look: Look, expected: list[str]) -> None:
    assert titles(found(*there, look=look)) == expected


UNPACK = "unpack image base on storage pool fast"


@pytest.mark.parametrize(
    ("pool", "fresh", "expected"),
    [
        (CLONES, False, [UNPACK]),
        (COPIES, False, []),
        (Pool(can_clone=True, unpacked=frozenset({NEW})), False, []),
        (Pool(can_clone=True, unpacked=frozenset({OLD})), False, [UNPACK]),
        (Pool(can_clone=True, unpacked=frozenset({NEW})), True, [UNPACK]),
        (COPIES, True, [UNPACK]),
        (None, True, [UNPACK]),
    ],
)
def test_image_is_unpacked_where_that_makes_the_first_launch_a_clone(
    pool: Pool | None, fresh: bool, expected: list[str]
) -> None:
    state = found(image(NEW, "base"), look=Look("new"), pools={"fast": pool} if pool else {})
    assert titles(state, "fast", fresh=frozenset({"fast"} if fresh else ())) == expected


def test_new_image_is_unpacked_though_the_old_one_was() -> None:
    pools = {"fast": Pool(can_clone=True, unpacked=frozenset({OLD}))}
    state = found(image(OLD, "base", of="old"), look=Look("new"), pools=pools)
    assert titles(state, "fast")[-1] == UNPACK


def test_unknown_pool_is_refused() -> None:
    with pytest.raises(CowError, match=r"unpacked on slow, .* There is fast"):
        titles(found(look=Look("new"), pools={"fast": CLONES}), "fast", "slow")


def test_only_leftovers_of_the_alias_go() -> None:
    left = (Leftover("cowherd-unpack-1", "base"), Leftover("cowherd-unpack-2", "other"))
    (title,) = titles(found(image(NEW, "base"), look=Look("new"), left=left))
    assert "cowherd-unpack-1" in title


REMOTE = Remote("https://images.example/", "simplestreams", "debian/13", auto_update=True)
REMOTE_TOKEN = remote_token("https://images.example", "simplestreams", "debian/13")


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (image(NEW, "base", of=REMOTE_TOKEN, auto_update=True), []),
        (image(NEW, "base", remote=REMOTE_TOKEN, auto_update=True), []),
        (image(NEW, "base", of=REMOTE_TOKEN), ["set auto_update of image base"]),
        (
            image(OLD, "base", remote="another"),
            [f"import image base: debian/13 from https://images.example/, in place of {OLD[:12]}"],
        ),
    ],
)
def test_image_of_a_remote_is_known_also_after_an_automatic_update(there: Image, expected: list[str]) -> None:
    assert titles(found(there, look=REMOTE.look(there)), source=REMOTE) == expected


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ((), []),
        ((image(OLD, "base"),), [f"delete image base ({OLD[:12]})"]),
        ((image(OLD, "base", "kept"),), [f"delete alias base of image {OLD[:12]}, which has others"]),
        ((image(OLD, "other"),), []),
    ],
)
def test_absent(there: tuple[Image, ...], expected: list[str]) -> None:
    assert images.plan_absent(SERVER, found(*there, look=Look()), KEY).titles == expected


@pytest.mark.parametrize("by_hand", [True, False])
def test_an_image_that_cannot_be_imported_again_is_deleted_only_by_its_name(by_hand: bool) -> None:
    there = image(OLD, "base", of="old", by_hand=by_hand)
    (step,) = images.plan_absent(SERVER, found(there, look=Look()), KEY).steps
    assert (bool(step.destroys), step.permit) == (by_hand, "state")


def test_nothing_at_all_is_planned_for() -> None:
    assert images.plan_absent(SERVER, Found(), KEY).titles == []
    assert images.describe(Found(), KEY) == {"image": None}


def tar(folder: Path, mode: str, *names: str) -> Path:
    path = folder / "file"
    with tarfile.open(path, f"w{mode}") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


@pytest.mark.parametrize("mode", ["", ":gz", ":xz", ":bz2"])
def test_tars_are_looked_into(tmp_path: Path, mode: str) -> None:
    image_files.check_unified(tar(tmp_path, mode, "metadata.yaml", "rootfs/bin"))
    image_files.check_unified(tar(tmp_path, mode, "./rootfs", "./metadata.yaml"))
    image_files.check_metadata(tar(tmp_path, mode, "templates/x", "./metadata.yaml"))
    image_files.check_rootfs(tar(tmp_path, mode, "./bin"))
    with pytest.raises(CowError, match="begins with 'bin/sh'"):
        image_files.check_unified(tar(tmp_path, mode, "./bin/sh"))
    with pytest.raises(CowError, match=r"no metadata\.yaml"):
        image_files.check_metadata(tar(tmp_path, mode, "rootfs"))


@pytest.mark.parametrize(
    "content",
    [b"", b"hsq", b"\x1f\x8b", b"\x1f\x8bgarbage", b"\xfd7zXZ\0garbage", b"BZhgarbage", b"]\0\0garbage", b"x" * 1024],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for check in (image_files.check_unified, image_files.check_metadata, image_files.check_rootfs):
        with pytest.raises(CowError, match="is not"):
            check(path)


def test_squashfs_and_zstd_are_taken_at_their_magic(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hsqs...")
    image_files.check_rootfs(path)
    path.write_bytes(b"\x28\xb5\x2f\xfd...")
    image_files.check_unified(path)


def test_other_release_is_taken_from_the_mirror_of_the_host() -> None:
    base = apt.Source(
        ("deb", "deb-src"), ("http://mirror.example/debian",), ("bookworm", "bookworm-updates"), ("main",)
    )
    security = apt.Source(("deb",), ("http://mirror.example/security",), ("bookworm-security",), ("main",))
    vendor = apt.Source(("deb",), ("http://vendor.example",), ("bookworm",), ("main",))
    backports = apt.Source(("deb",), ("http://mirror.example/debian",), ("bookworm-backports",), ("main",))
    system = debian.System("trixie")
    followed = debian.following(system.release, "bookworm", (base, security, vendor, backports))
    assert [(source.types, source.uris, source.suites) for source in followed] == [
        (("deb",), base.uris, ("trixie", "trixie-updates")),
        (("deb",), security.uris, ("trixie-security",)),
    ]
    (rolling,) = debian.following("sid", "bookworm", (base, security))
    assert rolling.suites == ("sid",)
