"""What apt's sources mean, and how Debian orders versions; samples as real systems have them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.cow import apt
from ansible.module_utils.cow.errors import CowError
from hypothesis import given, settings
from hypothesis import strategies as st

DEBIAN_12_DEB822 = """\
Types: deb
# http://snapshot.example.org/archive/debian/20250520T000000Z
URIs: http://deb.example.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.example.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

DEBIAN_12_INSTALLER = """\
#deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 NETINST with firmware 20240210-11:27]/ bookworm main

deb http://ftp.de.debian.org/debian/ bookworm main non-free-firmware
deb-src http://ftp.de.debian.org/debian/ bookworm main non-free-firmware

deb http://security.example.org/debian-security bookworm-security main non-free-firmware
deb-src http://security.example.org/debian-security bookworm-security main non-free-firmware

# bookworm-updates, to get updates before a point release is made;
# see https://www.debian.org/doc/manuals/debian-reference/ch02.en.html#_updates_and_backports
deb http://ftp.de.debian.org/debian/ bookworm-updates main non-free-firmware
deb-src http://ftp.de.debian.org/debian/ bookworm-updates main non-free-firmware
"""

DEBIAN_12_CLOUD = """\
Types: deb deb-src
URIs: mirror+file:///etc/apt/mirrors/debian.list
Suites: bookworm bookworm-updates bookworm-backports
Components: main

Types: deb deb-src
URIs: mirror+file:///etc/apt/mirrors/debian-security.list
Suites: bookworm-security
Components: main
"""

RASPBERRY_PI_BASE = """\
deb http://deb.example.org/debian bookworm main contrib non-free non-free-firmware
deb http://deb.example.org/debian-security/ bookworm-security main contrib non-free non-free-firmware
deb http://deb.example.org/debian bookworm-updates main contrib non-free non-free-firmware
# Uncomment deb-src lines below then 'apt-get update' to enable 'apt-get source'
#deb-src http://deb.example.org/debian bookworm main contrib non-free non-free-firmware
"""

RASPBERRY_PI_VENDOR = """\
deb http://archive.raspberrypi.example/debian/ bookworm main
# Uncomment line below then 'apt-get update' to enable 'apt-get source'
#deb-src http://archive.raspberrypi.example/debian/ bookworm main
"""

RASPBIAN = """\
deb [ arch=armhf ] http://raspbian.example.org/raspbian/ bookworm main contrib non-free rpi
deb http://archive.raspberrypi.example/debian/ bookworm main
"""

UBUNTU_24_04 = """\
# See http://help.example.com/community/UpgradeNotes for how to upgrade to
# newer versions of the distribution.

## Ubuntu distribution repository
Types: deb
URIs: http://archive.example.com/ubuntu/
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

Types: deb
URIs: http://security.example.com/ubuntu/
Suites: noble-security
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""

INLINE_KEY = """\
Enabled: yes
Types: deb
URIs: https://mirror.example.org/debian-remote
Suites: trixie trixie-updates
Components: main
Architectures: amd64
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEXEMSRhYJKwYBBAHaRw8BAQdAiFpQHhSQQo3sEAyqrsFAtTvhVZGMEZ1fJ6fp
 =abcd
 -----END PGP PUBLIC KEY BLOCK-----
"""

VENDORS = """\
deb [signed-by=/usr/share/keyrings/hashicorp-archive-keyring.gpg] https://apt.releases.hashicorp.com bookworm main
deb [signed-by=/etc/apt/keyrings/grafana.gpg] https://apt.grafana.com stable main
deb [arch=amd64,arm64 signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian bookworm stable
deb http://apt.postgresql.org/pub/repos/apt bookworm-pgdg main
deb [trusted=yes] file:/srv/packages ./
"""

POLICY = """\
incus-base:
  Installed: 6.0.4-1
  Candidate: 6.0.4-2
  Version table:
     6.0.4-2+deb13u7~bpo12+1 100
        100 http://deb.example.org/debian bookworm-backports/main amd64 Packages
     6.0.4-2 500 (phased 40%)
        500 http://deb.example.org/debian bookworm/main amd64 Packages
        500 http://security.example.org bookworm-security/main amd64 Packages
 *** 6.0.4-1 100
        100 /var/lib/dpkg/status
incus:
  Installed: (none)
  Candidate: 7.0
  Version table:
     7.0 500
        500 file:/srv/packages ./ Packages
"""


def stanza(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_deb822() -> None:
    release, security = apt.parse_deb822(DEBIAN_12_DEB822)
    assert release == apt.Source(
        types=("deb",),
        uris=("http://deb.example.org/debian",),
        suites=("bookworm", "bookworm-updates"),
        components=("main",),
        options=(("Signed-By", "/usr/share/keyrings/debian-archive-keyring.gpg"),),
    )
    assert security.suites == ("bookworm-security",)


def test_one_line_form_leaves_out_comments() -> None:
    sources = apt.parse_list(DEBIAN_12_INSTALLER)
    assert len(sources) == 6
    assert sources[1] == apt.Source(
        types=("deb-src",),
        uris=("http://ftp.de.debian.org/debian/",),
        suites=("bookworm",),
        components=("main", "non-free-firmware"),
    )


def test_options_of_a_line_are_the_fields_of_a_stanza() -> None:
    line = "deb [ arch+=i386,arm64 lang=none by-hash=no signed-by=/a.gpg,/b.gpg ] http://example.org/debian trixie main"
    (source,) = apt.parse_list(line)
    assert source.signed_by == "/a.gpg /b.gpg"
    assert source.options == (
        ("Architectures-Add", "i386 arm64"),
        ("Languages", "none"),
        ("By-Hash", "no"),
        ("Signed-By", "/a.gpg /b.gpg"),
    )


def test_comment_after_a_line() -> None:
    (source,) = apt.parse_list("deb http://example.org/debian trixie main # contrib\n")
    assert source.components == ("main",)


def test_flat_repository() -> None:
    (source,) = apt.parse_list("deb [trusted=yes] file:/srv/packages ./")
    assert (source.suites, source.components) == (("./",), ())


def test_cdrom_is_read_and_never_taken_for_the_mirror() -> None:
    text = "deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 DVD]/ bookworm main contrib\n"
    (source,) = apt.parse_list(text)
    assert source.uris == ("cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 DVD]/",)
    assert not source.has_secret
    assert apt.backports_stanza([source], "bookworm") is None


@pytest.mark.parametrize("no", ["no", "No", "false", "off", "0"])
def test_disabled_stanza(no: str) -> None:
    assert apt.parse_deb822(DEBIAN_12_DEB822.replace("Types: deb\n", f"Enabled: {no}\nTypes: deb\n")) == ()


def test_inline_key_survives() -> None:
    (source,) = apt.parse_deb822(INLINE_KEY)
    text = apt.backports_stanza([source], "trixie")
    assert text == (
        INLINE_KEY.removeprefix("Enabled: yes\n")
        .replace("trixie trixie-updates", "trixie-backports")
        .replace("Architectures: amd64\n", "")
        .replace("Components: main\n", "Components: main\nArchitectures: amd64\n")
    )
    (again,) = apt.parse_deb822(text)
    assert again.signed_by == source.signed_by


def test_backports_come_from_the_mirror_of_the_release() -> None:
    text = apt.backports_stanza(apt.parse_deb822(DEBIAN_12_DEB822), "bookworm")
    assert text == (
        "Types: deb\n"
        "URIs: http://deb.example.org/debian\n"
        "Suites: bookworm-backports\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )


@pytest.mark.parametrize(
    ("sources", "codename", "uri"),
    [
        (apt.parse_list(DEBIAN_12_INSTALLER), "bookworm", "http://ftp.de.debian.org/debian/"),
        (apt.parse_deb822(DEBIAN_12_CLOUD), "bookworm", "mirror+file:///etc/apt/mirrors/debian.list"),
        (apt.parse_list(RASPBERRY_PI_VENDOR + RASPBERRY_PI_BASE), "bookworm", "http://deb.example.org/debian"),
        (apt.parse_deb822(UBUNTU_24_04), "noble", "http://archive.example.com/ubuntu/"),
        (apt.parse_list(VENDORS + DEBIAN_12_INSTALLER), "bookworm", "http://ftp.de.debian.org/debian/"),
        (apt.parse_list("deb http://mirror.example.org/d trixie main"), "trixie", "http://mirror.example.org/d"),
        (apt.parse_list(VENDORS + "deb http://example.org/debian stable main"), "trixie", "http://example.org/debian"),
    ],
    ids=["installer", "cloud", "raspberry-pi", "ubuntu", "vendors", "bare", "by-alias"],
)
def test_mirror_is_told_from_vendors(sources: tuple[apt.Source, ...], codename: str, uri: str) -> None:
    found = apt.backports_stanza(sources, codename)
    assert found is not None
    fields = stanza(found)
    assert (fields["Types"], fields["URIs"], fields["Suites"]) == ("deb", uri, f"{codename}-backports")


@pytest.mark.parametrize(
    ("sources", "codename"),
    [
        ((), "bookworm"),
        (apt.parse_deb822(DEBIAN_12_DEB822), "trixie"),
        (apt.parse_list(RASPBERRY_PI_VENDOR), "bookworm"),
    ],
)
def test_no_mirror_no_stanza(sources: tuple[apt.Source, ...], codename: str) -> None:
    assert apt.backports_stanza(sources, codename) is None


def test_raspberry_pis_own_repository_is_not_the_base_of_raspbian() -> None:
    base = apt.base_source(apt.parse_list(RASPBIAN), "bookworm")
    assert base is not None
    assert base.uris == ("http://raspbian.example.org/raspbian/",)


@pytest.mark.parametrize(
    ("sources", "codename", "configured"),
    [
        (apt.parse_deb822(UBUNTU_24_04), "noble", True),
        (apt.parse_deb822(DEBIAN_12_DEB822), "bookworm", False),
        (apt.parse_list("deb-src http://example.org/debian bookworm-backports main"), "bookworm", False),
    ],
)
def test_backports_configured(sources: tuple[apt.Source, ...], codename: str, configured: bool) -> None:
    assert apt.backports_configured(sources, codename) is configured


def test_what_is_derived_is_then_configured() -> None:
    sources = apt.parse_list(DEBIAN_12_INSTALLER)
    text = apt.backports_stanza(sources, "bookworm")
    assert text is not None
    assert apt.backports_configured((*sources, *apt.parse_deb822(text)), "bookworm")


@pytest.mark.parametrize(
    ("uri", "secret"),
    [("https://me:word@example.org/debian", True), ("https://example.org/debian", False)],
)
def test_password_in_an_address_is_noticed(uri: str, secret: bool) -> None:
    (source,) = apt.parse_list(f"deb {uri} trixie main")
    assert source.has_secret is secret


def test_folder_is_read_as_apt_reads_it(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://example.org/first trixie main\n")
    (parts / "b.sources").write_text(DEBIAN_12_DEB822)
    (parts / "a.list").write_text("deb http://example.org/second trixie main\n")
    (parts / "c.list.disabled").write_text("deb http://example.org/never trixie main\n")
    (parts / "d e.list").write_text("deb http://example.org/never trixie main\n")
    assert [source.uris[0] for source in apt.read_sources(tmp_path)] == [
        "http://example.org/first",
        "http://example.org/second",
        "http://deb.example.org/debian",
        "http://deb.example.org/debian-security",
    ]


def test_host_without_apt(tmp_path: Path) -> None:
    assert apt.read_sources(tmp_path) == ()
    assert not apt.have_lists(tmp_path)


def test_policy() -> None:
    offers = apt.parse_policy(POLICY)
    assert offers == {
        "incus-base": (
            apt.Offer("6.0.4-2+deb13u7~bpo12+1", "bookworm-backports"),
            apt.Offer("6.0.4-2", "bookworm"),
            apt.Offer("6.0.4-2", "bookworm-security"),
        ),
        "incus": (apt.Offer("7.0", "."),),
    }
    assert apt.best_offer(offers["incus-base"], from_backports=True) == "6.0.4-2+deb13u7~bpo12+1"
    assert apt.best_offer(offers["incus-base"], from_backports=False) == "6.0.4-2"
    assert apt.best_offer(offers["incus"], from_backports=True) is None


@pytest.mark.parametrize("name", ["-o", "Incus", "a", "", "in*", "incus=1"])
def test_names_that_are_not_packages(name: str) -> None:
    with pytest.raises(CowError, match="not the name of a package"):
        apt.installed([name])


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("6.0.4-2+deb13u7~bpo12+1", "6.0.4"),
        ("1:4.5.1-1", "4.5.1"),
        ("1:10.0.2+ds-2+deb13u1~bpo12+1", "10.0.2"),
        ("7.0", "7.0"),
    ],
)
def test_upstream_version(version: str, upstream: str) -> None:
    assert apt.upstream_version(version) == upstream


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("6.0", "6.0.4-2"),
        ("6.0.4", "6.0.4-2"),
        ("6.0.4-2~bpo12+1", "6.0.4-2"),
        ("6.0.4-9", "6.0.4-10"),
        ("9.0", "1:1.0"),
        ("1.0~rc1", "1.0"),
        ("1.0a", "1.0+"),
    ],
)
def test_order_of_versions(lower: str, higher: str) -> None:
    assert apt.compare_versions(lower, higher) == -1
    assert apt.compare_versions(higher, lower) == 1
    assert apt.compare_versions(lower, lower) == 0


VERSION = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "0:", "1:"]),
    st.sampled_from("019"),
    st.text(alphabet="019.+~ab", max_size=6),
    st.text(alphabet="019.+~ab", max_size=6).map(lambda revision: revision and f"-{revision}"),
)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg: it is not installed")
@settings(max_examples=150)
@given(VERSION, VERSION)
def test_order_is_dpkgs(left: str, right: str) -> None:
    relation = {-1: "lt", 0: "eq", 1: "gt"}[apt.compare_versions(left, right)]
    assert subprocess.run(["dpkg", "--compare-versions", left, relation, right], check=False).returncode == 0
