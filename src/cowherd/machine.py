"""What the tests need of this machine beside Python packages: distribution packages, and a newer Python."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cowherd.environment import ROOT, say

_PACKAGES = ROOT / "tests" / "packages.txt"
_BACKPORTS = Path("/etc/apt/sources.list.d/cowherd-test-backports.sources")
_LAST_MINOR = 30


def install_packages() -> None:
    """Install the distribution packages that the tests name; without root say what is left out."""
    missing = [name for name in _PACKAGES.read_text().split() if not _is_installed(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        say(f"not root, so tests that need these packages are left out: {' '.join(missing)}")
        return
    say(f"installing what the tests need with apt: {' '.join(missing)}")
    _apt_get("update")
    _apt_get("install", "--yes", "--no-install-recommends", *_target_release(), *missing)


def newer_python() -> tuple[Path, str] | None:
    """Return the newest Python on this machine that is newer than this one, and its version as 3.13."""
    for minor in range(_LAST_MINOR, sys.version_info.minor, -1):
        version = f"3.{minor}"
        for python in _pythons(version):
            if _succeeds([python, "-c", "import ensurepip, venv"]):
                return python, version
    return None


def _pythons(version: str) -> list[Path]:
    """Those on PATH, and those that pyenv has but does not put there."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    with suppress(PermissionError):
        folders += (Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions").glob(f"{version}.*/bin")
    pythons = [folder / f"python{version}" for folder in folders]
    return [python for python in pythons if os.access(python, os.X_OK)]


def _target_release() -> list[str]:
    """Return the options that take packages from backports where the release itself has no Incus."""
    import ansible.module_utils

    ansible.module_utils.__path__.append(str(ROOT / "module_utils"))
    from ansible.module_utils.cow import apt

    offers = apt.parse_policy(_output(["apt-cache", "policy", "incus"])).get("incus", ())
    if apt.best_offer(offers, from_backports=False):
        return []
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    sources = apt.read_sources()
    stanza = apt.backports_stanza(sources, release)
    if stanza and not apt.backports_configured(sources, release):
        say(f"adding {_BACKPORTS}, since {release} has no Incus of its own")
        _BACKPORTS.write_text(stanza)
        _apt_get("update")
    return ["--target-release", apt.backports_suite(release)]


def _is_installed(package: str) -> bool:
    return "ok installed" in _output(["dpkg-query", "--show", "--showformat=${Status}", package])


def _apt_get(*arguments: str) -> None:
    """Run apt-get on standard error; where it fails, the tests that need the packages say so."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(
        ["apt-get", "--quiet", "--quiet", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env=environment,
        check=False,
    )


def _succeeds(argv: list[str | Path]) -> bool:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
