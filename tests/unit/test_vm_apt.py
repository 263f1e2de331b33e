from __future__ import annotations

from tests.support.vm import apt

INDEXES = """\
'http://mirror.example/debian/dists/bookworm/InRelease' mirror.example_debian_dists_bookworm_InRelease 0
'http://mirror.example/debian/dists/bookworm-updates/InRelease' mirror.example_debian_dists_bookworm-updates_InRelease 0
'http://mirror.example/debian/dists/bookworm-backports/InRelease' mirror.example_dists_bookworm-backports_InRelease 0
'http://mirror.example/security/dists/bookworm-security/InRelease' mirror.example_security_InRelease 0
'http://mirror.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror.example_Packages 0
'https://other.example/tool/dists/stable/InRelease' other.example_tool_dists_stable_InRelease 0
"""

CONFIGURATION = """\
APT::Architecture "amd64";
Acquire::http::Proxy "http://127.0.0.1:3142/";
Acquire::https "";
Acquire::Retries "3";
Acquire::Languages:: "none";
"""


def test_debian_archives_are_taken_for_another_release() -> None:
    settings = apt.parse("bookworm", INDEXES, CONFIGURATION)
    assert settings.sources("trixie") == [
        "deb http://mirror.example/debian trixie main contrib",
        "deb http://mirror.example/debian trixie-updates main contrib",
        "deb http://mirror.example/security trixie-security main contrib",
    ]


def test_download_settings_are_kept_and_others_are_not() -> None:
    settings = apt.parse("bookworm", INDEXES, CONFIGURATION)
    assert settings.options == ('Acquire::http::Proxy "http://127.0.0.1:3142/";', 'Acquire::Retries "3";')


def test_a_proxy_on_this_machine_is_reached_from_the_guest() -> None:
    files = apt.parse("bookworm", INDEXES, CONFIGURATION).guest_files("trixie")
    assert 'Acquire::http::Proxy "http://10.0.2.2:3142/";\n' in files["/etc/apt/apt.conf.d/90host"]


def test_another_distribution_leaves_the_default_archive() -> None:
    settings = apt.parse("noble", INDEXES, CONFIGURATION)
    assert settings.sources("trixie") == []
    assert "/etc/apt/sources.list" not in settings.guest_files("trixie")
