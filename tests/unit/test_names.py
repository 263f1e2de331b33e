from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible.module_utils.cow import names
from ansible.module_utils.cow.errors import CowError
from hypothesis import given
from hypothesis import strategies as st

SINGLE = [
    names.pool,
    names.project,
    names.profile,
    names.instance,
    names.network,
    names.subvolume,
    names.golden_project,
    names.session,
]
EVERY = [*SINGLE, names.image_alias, names.dataset, names.snapshot, names.absolute_path]

texts = st.text() | st.text("aZ09-._/:+ \n\0", max_size=70)


def refusal(check: Callable[[str], str], name: str) -> str:
    """The message that the name is refused with; nothing when it is taken, and then as it is."""
    try:
        assert check(name) == name
    except CowError as error:
        return str(error)
    return ""


def accepts(check: Callable[[str], str], name: str) -> bool:
    message = refusal(check, name)
    assert not message or repr(name) in message
    return not message


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (names.pool, "fast"),
        (names.pool, "p" * 63),
        (names.project, "web.2_a-b"),
        (names.instance, "c1-web"),
        (names.network, "incusbr0"),
        (names.image_alias, "debian/13"),
        (names.image_alias, "images:debian/13+cloud"),
        (names.dataset, "tank"),
        (names.snapshot, "tank/golden@monday"),
        (names.session, "build-17"),
        (names.golden_project, "mono.repo_2"),
        (names.dataset, "tank/incus/pool-1"),
        (names.subvolume, "@home with space"),
        (names.subvolume, "größe"),
        (names.absolute_path, "/srv/pool"),
        (names.absolute_path, "/srv/größe of \N{GREEK SMALL LETTER PI}"),
        (names.absolute_path, "/srv/\udcff"),
    ],
)
def test_usual_names_are_taken(check: Callable[[str], str], name: str) -> None:
    assert accepts(check, name)


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (names.pool, "p" * 64),
        (names.instance, "1c"),
        (names.instance, "c-"),
        (names.instance, "c_1"),
        (names.network, "a" * 16),
        (names.image_alias, "debian//13"),
        (names.image_alias, "/debian"),
        (names.image_alias, "debian/."),
        (names.dataset, "tank/"),
        (names.snapshot, "tank/golden"),
        (names.snapshot, "tank@a@b"),
        (names.snapshot, "tank/../x@a"),
        (names.session, "a/b"),
        (names.golden_project, ".cowherd"),
        (names.dataset, "tank@snapshot"),
        (names.dataset, "tank/.."),
        (names.subvolume, "s" * 256),
        (names.absolute_path, "/"),
        (names.absolute_path, "//srv"),
        (names.absolute_path, "/srv/"),
        (names.absolute_path, "/srv/../etc"),
        (names.absolute_path, "srv"),
        *((names.absolute_path, f"/srv/x{broken}y") for broken in "\t\n\r\x0b\x1c\x7f\x85\u2028\u2029"),
    ],
)
def test_unusual_names_are_refused(check: Callable[[str], str], name: str) -> None:
    assert not accepts(check, name)


@pytest.mark.parametrize("check", EVERY)
@pytest.mark.parametrize("name", ["", ".", "..", "-x", "--help", "a\0b", "-/a"])
def test_dangerous_names_are_refused_everywhere(check: Callable[[str], str], name: str) -> None:
    assert not accepts(check, name)


@pytest.mark.parametrize("check", EVERY)
@given(name=texts)
def test_what_is_taken_is_safe_in_a_command(check: Callable[[str], str], name: str) -> None:
    if accepts(check, name):
        assert name
        assert not name.startswith("-")
        assert "\0" not in name
        assert len(name.splitlines()) == 1 or check is names.subvolume
        assert not {".", ".."} & set(name.split("/"))


@pytest.mark.parametrize("check", SINGLE)
@given(name=texts)
def test_a_single_name_stays_in_its_folder(check: Callable[[str], str], name: str) -> None:
    if accepts(check, name):
        assert "/" not in name
        assert "\n" not in name


def test_zfs_properties_are_text() -> None:
    assert names.zfs_properties({"atime": "off", "site:owner": "a b", "quota": 5}) == {
        "atime": "off",
        "site:owner": "a b",
        "quota": "5",
    }


@pytest.mark.parametrize("properties", [{"-o": "x"}, {"A": "x"}, {"atime": True}, {"a:b": "x\ty"}, {"a:b": ["x"]}])
def test_zfs_properties_that_are_refused(properties: dict[str, object]) -> None:
    with pytest.raises(CowError):
        names.zfs_properties(properties)
