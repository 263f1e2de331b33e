"""Which steps make the place of a store, and on which devices no pool is made."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.cow.blockdev import Device
from ansible.module_utils.cow.errors import CowError, NotYetKnown
from ansible.module_utils.cow.golden import place
from ansible.module_utils.cow.golden.place import Found, Wanted
from ansible.module_utils.cow.process import CommandFailed, Finished
from ansible.module_utils.cow.size import Size
from ansible.module_utils.cow.zfs import Zfs
from ansible.module_utils.cow.zpool import Zpool

EMPTY = Device("/dev/vdb", Size(4 << 30), "")
STATUS = """\
  pool: tank
 state: ONLINE
config:

\tNAME                STATE     READ WRITE CKSUM
\ttank                ONLINE       0     0     0
\t  mirror-0          ONLINE       0     0     0
\t    /dev/vdb1       ONLINE       0     0     0
\t    /dev/vdc1       ONLINE       0     0     0

errors: No known data errors
"""
IMPORTABLE = """\
   pool: tank
     id: 1234567890
  state: ONLINE
 action: The pool can be imported using its name or numeric identifier.
"""


def wanted(**params: Any) -> Wanted:
    return Wanted.of(
        {
            "store": "tank/a/golden",
            "backend": "auto",
            "expect": None,
            "device": None,
            "pool_properties": {},
            "properties": {"atime": "off"},
            **params,
        }
    )


def titles(found: Found, of: Wanted) -> list[str]:
    return place.plan(found, of, Zpool(), Zfs()).titles


def test_nothing_is_done_for_what_is_there() -> None:
    assert titles(Found(), wanted()) == []
    assert titles(Found(), wanted(store="/srv/golden")) == []


def test_datasets_are_made_from_the_outermost_on() -> None:
    assert wanted().datasets == ("tank/a", "tank/a/golden")
    assert titles(Found(missing=("tank/a/golden",)), wanted()) == ["create dataset tank/a/golden"]


def test_a_pool_is_made_on_an_empty_device() -> None:
    found = Found(missing=("tank/a", "tank/a/golden"), pool=False, device=EMPTY)
    assert titles(found, wanted(device="/dev/vdb")) == [
        "create pool tank on /dev/vdb (4.0 GiB)",
        "create dataset tank/a",
        "create dataset tank/a/golden",
    ]


@pytest.mark.parametrize(
    ("found", "device", "sentence"),
    [
        (Found(pool=False), None, "There is no pool tank"),
        (Found(pool=False), "/dev/vdb", "/dev/vdb is not a block device"),
        (Found(pool=False, device=Device("/dev/vdb", Size(1), "ext4 (filesystem)")), "/dev/vdb", "is not empty: ext4"),
        (Found(pool=False, device=Device("/dev/vdb", Size(1), "3 partitions")), "/dev/vdb", "not empty: 3 partitions"),
        (
            Found(pool=False, device=EMPTY, importable=("old",)),
            "/dev/vdb",
            "is of the pool old, which could be imported",
        ),
        (Found(pool=False, device=EMPTY, importable=("tank",)), "/dev/vdb", "Run `zpool import tank`"),
        (Found(pool=False, importable=("tank",)), None, "Run `zpool import tank`"),
        (Found(devices=("/dev/sdx1",)), "/dev/vdb", "is on /dev/sdx1, not on /dev/vdb"),
    ],
)
def test_devices_that_no_pool_is_made_on(found: Found, device: str | None, sentence: str) -> None:
    with pytest.raises(CowError, match=sentence.replace("(", r"\(")):
        titles(found, wanted(device=device))


def test_a_pool_may_be_about_to_come() -> None:
    """Another task of the play may make it, so that check mode warns where the run would be refused."""
    with pytest.raises(NotYetKnown, match="There is no pool tank"):
        titles(Found(missing=("tank/a", "tank/a/golden"), pool=False), wanted())


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"store": "/srv/golden", "device": "/dev/vdb"}, "a device is for a pool of ZFS"),
        ({"store": "tank"}, "is a whole pool"),
        ({"store": "tank/../other"}, "is not a dataset"),
        ({"store": "/srv/../etc"}, "is not an absolute path"),
        ({"device": "vdb"}, "is not an absolute path"),
        ({"properties": {"atime": False}}, "Write it as text in quotes"),
    ],
)
def test_what_cannot_be_asked_for(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CowError, match=sentence):
        wanted(**params)


def answering(status: int, stdout: str = "", stderr: str = "") -> Zpool:
    """A `zpool` whose answer was recorded."""

    def run(argv: list[str], accept: tuple[int, ...] = (0,), timeout: float = 0) -> Finished:
        del timeout
        finished = Finished(tuple(argv), status, stdout, stderr)
        if status not in accept:
            raise CommandFailed(finished)
        return finished

    return Zpool(run)


def test_a_pool_is_absent_only_on_that_very_answer() -> None:
    assert answering(0, "tank\n").exists("tank")
    assert not answering(1, stderr="cannot open 'tank': no such pool\n").exists("tank")
    with pytest.raises(CommandFailed):
        answering(1, stderr="The ZFS modules cannot be auto-loaded.\n").exists("tank")


def test_devices_are_read_and_groups_of_them_are_not() -> None:
    assert answering(0, STATUS).devices("tank") == ("/dev/vdb1", "/dev/vdc1")


def test_pools_that_could_be_imported_are_read() -> None:
    assert answering(0, IMPORTABLE).importable() == ("tank",)
    assert answering(0, IMPORTABLE).importable("/dev/vdb") == ("tank",)
    assert answering(1, stderr="no pools available to import\n").importable() == ()
    with pytest.raises(CommandFailed):
        answering(1, stderr="Permission denied\n").importable()
