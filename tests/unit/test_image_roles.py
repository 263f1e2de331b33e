"""Roles of images hand each option of their module on, and image_boot's scripts are what the module wants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import live_image
import rootfs_image
import seed_install

ROLES = Path(__file__).parents[2] / "roles"
OF_THE_ROLE = {"path"}
"""The role makes it from its folder and the name of the image."""


def _read(path: str) -> Any:
    return yaml.safe_load((ROLES / path).read_text())


def _handed(tasks: str, module: str) -> set[str]:
    """The options that the first task with the module hands on which is not there to verify."""
    found = (task[module] for task in _read(tasks) if module in task)
    return next(set(options) for options in found if options.get("state") != "verified")


@pytest.mark.parametrize(
    ("tasks", "module"),
    [
        ("rootfs_image/tasks/build.yml", rootfs_image),
        ("live_image/tasks/build.yml", live_image),
        ("live_install/tasks/converge.yml", seed_install),
    ],
)
def test_each_option_of_the_module_is_handed_on(tasks: str, module: Any) -> None:
    assert _handed(tasks, module.__name__) == set(module.ARGUMENTS)


@pytest.mark.parametrize("module", [rootfs_image, live_image])
def test_the_options_of_an_image_are_those_of_the_module(module: Any) -> None:
    known = _read(f"{module.__name__}/vars/main.yml")[f"__{module.__name__}_options"]
    assert set(known) == set(module.ARGUMENTS) - OF_THE_ROLE | {"name"}


def test_the_options_of_an_installation_are_those_of_the_module() -> None:
    known = _read("live_install/vars/main.yml")["__live_install_module_options"]
    assert set(known) == set(seed_install.ARGUMENTS) - {"seed", "root", "target", "verify"}


def test_options_of_the_kernel_are_in_the_page() -> None:
    """Those that mountroot reads are those that the pages explain, and that its own head lists."""
    script = (ROLES / "image_boot/files/mountroot").read_text()
    read = set(re.findall(r"^ +(cowherd\.\w+)=", script, re.MULTILINE))
    assert read
    assert read == set(re.findall(r"^# +(cowherd\.\w+)=", script, re.MULTILINE))
    pages = "".join((ROLES.parent / "docs" / name).read_text() for name in ("images.md", "live.md"))
    assert read == set(re.findall(r"`(cowherd\.\w+)=", pages))
