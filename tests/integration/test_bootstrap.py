"""./cowherd on a system that has nothing but Debian's base: no Python and no Incus."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.vm import apt

ROOT = Path(__file__).parents[2]

ENTER = """
set -e
system=$1 checkout=$2 user=$3; shift 3
mount --bind "$system" "$system"
mkdir -p "$system/checkout"
mount --bind "$checkout" "$system/checkout"
mount -o remount,bind,ro "$system/checkout"
mount -t proc proc "$system/proc"
mount --bind /sys "$system/sys"
mount --rbind /dev "$system/dev"
for folder in $LENT; do
    mkdir -p "$system/host$folder"
    mount --bind "$folder" "$system/host$folder"
done
exec chroot --userspec="$user" "$system" "$@"
"""
"""Enters the system as a user, with the checkout, which can only be read. The mounts go with their namespace."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Pip:
    """This machine's configuration of pip as variables, in which paths begin with /host.

    folders: what the paths are in; an index refers to files beside it.
    """

    variables: dict[str, str]
    folders: tuple[str, ...]


def pip_of_this_machine() -> Pip:
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    lines = [line.partition("=") for line in listed.stdout.splitlines()]
    settings = sorted(((key, ast.literal_eval(value)) for key, _, value in lines), key=lambda each: ":env:" in each[0])
    paths = [Path(path) for _, value in settings for path in re.findall(r"(?:^|\s|file://)(/\S+)", value)]
    variables = {}
    for key, value in settings:
        lent = re.sub(r"(^|\s|file://)/", r"\1/host/", value)
        variables[f"PIP_{key.rpartition('.')[2].replace('-', '_').upper()}"] = lent
    return Pip(variables, tuple(sorted({str(path.parent) for path in paths if path.exists()})))


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def on_bare_system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a command of the checkout on a new system with packages from where this machine gets them."""
    needs.root("a system is unpacked and entered")
    needs.program("mmdebstrap")
    archive, pip = apt.of_this_machine(), pip_of_this_machine()
    system = tmp_path_factory.mktemp("bare") / request.param
    options = [f"--aptopt={option}" for option in archive.options]
    mmdebstrap = [
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        *options,
        request.param,
        system,
        *archive.sources(request.param),
    ]
    subprocess.run(mmdebstrap, stdin=subprocess.DEVNULL, check=True)
    shutil.copy("/etc/resolv.conf", system / "etc/resolv.conf")
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **proxies, **pip.variables}

    def run(*argv: str, user: str = "root", **more: str) -> subprocess.CompletedProcess[str]:
        namespace = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", ENTER, "enter"]
        return subprocess.run(
            [*namespace, system, ROOT, f"{user}:", *argv],
            env={**variables, **more, "LENT": " ".join(pip.folders)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    yield run
    shutil.rmtree(system)


def test_a_bare_system_installs_what_it_needs_once(on_bare_system: Run) -> None:
    refused = on_bare_system("/checkout/cowherd", "--help", user="nobody")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].endswith(
        "Run as root: apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv"
    )

    first = on_bare_system("/checkout/cowherd", "site", "--", "--check", "--diff")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "cowherd: installing python3 python3-venv with apt" in first.stderr
    assert "cowherd: preparing a Python environment in /root/.cache/cowherd/" in first.stderr
    assert "PLAY RECAP" in first.stdout
    assert "Would change\n" in first.stdout

    again = on_bare_system("/checkout/cowherd", "site", "--", "--check", "--diff")
    assert again.returncode == 0
    assert "cowherd:" not in again.stderr


@pytest.mark.parametrize("on_bare_system", ["trixie"], indirect=True)
def test_a_person_with_sudo_needs_no_more(on_bare_system: Run) -> None:
    prepare = [
        "apt-get --quiet --quiet update",
        "apt-get --quiet --quiet install --yes --no-install-recommends passwd sudo >/dev/null",
        "useradd --create-home pia",
        "echo 'pia ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/pia",
    ]
    prepared = on_bare_system("sh", "-c", " && ".join(prepare), DEBIAN_FRONTEND="noninteractive")
    assert prepared.returncode == 0, prepared.stderr
    run = on_bare_system("/checkout/cowherd", "site", "--", "--check", user="pia", HOME="/home/pia")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Would change\n" in run.stdout
