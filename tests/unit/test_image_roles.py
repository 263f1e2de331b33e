"""The role rootfs_image hands each option of the module on, and image_boot's scripts are what the module wants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

import rootfs_image

ROLES = Path(__file__).parents[2] / "roles"
OF_THE_ROLE = {"path"}
"""The role makes it from its folder and the name of the image."""


def _read(path: str) -> Any:
    return yaml.safe_load((ROLES / path).read_text())


def test_each_option_of_the_module_is_handed_on() -> None:
    tasks = _read("rootfs_image/tasks/build.yml")
    handed = next(task["rootfs_image"] for task in tasks if "rootfs_image" in task)
    assert set(handed) == set(rootfs_image.ARGUMENTS)


def test_the_options_of_an_image_are_those_of_the_module() -> None:
    known = _read("rootfs_image/vars/main.yml")["__rootfs_image_options"]
    assert set(known) == set(rootfs_image.ARGUMENTS) - OF_THE_ROLE | {"name"}


def test_options_of_the_kernel_are_in_the_page() -> None:
    """Those that mountroot reads are those that docs/images.md explains, and that its own head lists."""
    script = (ROLES / "image_boot/files/mountroot").read_text()
    read = set(re.findall(r"^ +(cowherd\.\w+)=", script, re.MULTILINE))
    assert read
    assert read == set(re.findall(r"^# +(cowherd\.\w+)=", script, re.MULTILINE))
    page = (ROLES.parent / "docs/images.md").read_text()
    assert read == set(re.findall(r"`(cowherd\.\w+)=", page))
