"""What things may be called. A name is refused here before any command or request is made with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .errors import CowError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POOL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_INSTANCE = r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PROJECT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_ALIAS = r"[A-Za-z0-9][A-Za-z0-9._:+-]*(?:/[A-Za-z0-9][A-Za-z0-9._:+-]*)*"
_INTERFACE = r"[A-Za-z0-9][A-Za-z0-9._-]{1,14}"
_DATASET_PART = r"[A-Za-z0-9][A-Za-z0-9._:-]*"
_ZFS_PROPERTY = r"[a-z0-9][a-z0-9._:@-]{0,255}"
_SUBVOLUME = r"[^/\0-\x1f-][^/\0-\x1f]{0,254}"
_NOT_IN_A_LINE = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"


def pool(name: str) -> str:
    """Return the name of a storage pool, which is also a file name on the host.

    Incus would take "-x"; commands on the host would take that for an option.
    """
    return _checked(
        name, _POOL, "storage pool", "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
    )


def project(name: str) -> str:
    """Return the name of an Incus project."""
    return _checked(
        name, _PROJECT, "project", "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
    )


def profile(name: str) -> str:
    """Return the name of a profile."""
    return _checked(
        name, _PROJECT, "profile", "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
    )


def instance(name: str) -> str:
    """Return the name of an instance: a DNS label (RFC 1123) that begins with a letter, as Incus wants it."""
    return _checked(
        name, _INSTANCE, "instance", "1 to 63 letters, digits or '-', beginning with a letter, not ending in '-'"
    )


def network(name: str) -> str:
    """Return the name of a network, which becomes a Linux interface of at most 15 characters."""
    return _checked(
        name, _INTERFACE, "network", "2 to 15 letters, digits, '.', '_' or '-', beginning with a letter or digit"
    )


def image_alias(name: str) -> str:
    """Return an image alias such as debian/13."""
    return _checked(
        name, _ALIAS, "image alias", "letters, digits and ._:+- in parts separated by '/', such as debian/13"
    )


def dataset(name: str) -> str:
    """Return a ZFS dataset as POOL or POOL/PATH (zfsprops(7): letters, digits and _-:. in each part)."""
    if not all(re.fullmatch(_DATASET_PART, part, re.ASCII) for part in name.split("/")):
        raise CowError(f"{name!r} is not a dataset. Write POOL/NAME in letters, digits, '.', '_', ':' and '-'.")
    return name


def snapshot(name: str) -> str:
    """Return a ZFS snapshot as POOL/NAME@SNAPSHOT."""
    of, at, own = name.partition("@")
    if not at or not all(re.fullmatch(_DATASET_PART, part, re.ASCII) for part in (own, *of.split("/"))):
        raise CowError(
            f"{name!r} is not a snapshot. Write POOL/NAME@SNAPSHOT in letters, digits, '.', '_', ':' and '-'."
        )
    return name


def zfs_properties(properties: Mapping[str, Any]) -> dict[str, str]:
    """Return properties of a dataset as text; their names are lower case, those of users have a colon."""
    for key, value in properties.items():
        if not re.fullmatch(_ZFS_PROPERTY, key, re.ASCII):
            raise CowError(f"{key!r} is not a property of ZFS. Write lower case letters, digits and '._:-'.")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise CowError(f"The property {key} is {value!r}. Write it as text in quotes, as in 'on', or as a number.")
        if any(character in str(value) for character in "\t\n\0"):
            raise CowError(f"The property {key} has a tab or a line break in it. Write it on one line.")
    return {key: str(value) for key, value in properties.items()}


def golden_project(name: str) -> str:
    """Return the name of a project of golden trees, which is a file name and part of a dataset's."""
    return _checked(
        name, _PROJECT, "golden project", "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
    )


def session(name: str) -> str:
    """Return the name of a session of a golden tree, which is a file name and part of a dataset's."""
    return _checked(
        name, _PROJECT, "session", "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
    )


def subvolume(name: str) -> str:
    """Return one path component for a subvolume."""
    return _checked(name, _SUBVOLUME, "subvolume", "1 to 255 characters without '/', not beginning with '-'")


def absolute_path(path: str) -> str:
    """Return an absolute path of one line without '.', '..' or empty parts."""
    parts = path.split("/")
    if len(parts) < 2 or parts[0] or any(part in ("", ".", "..") for part in parts[1:]):
        raise CowError(
            f"{path!r} is not an absolute path. Write it from '/', without '.' or '..' in it or '/' at its end."
        )
    return one_line(path)


def one_line(path: str) -> str:
    """Return a path, also one that a symlink led to, that is one line wherever it is noted, such as in a property."""
    if re.search(_NOT_IN_A_LINE, path):
        raise CowError(
            f"The path {path!r} has a line break or another control character in it, and has to be noted in one line. "
            f"Choose another one, or rename the folder."
        )
    return path


def shortened(members: Sequence[str], at_most: int = 8) -> str:
    """List names in a sentence, the first few of many."""
    rest = len(members) - at_most
    return ", ".join(members[:at_most]) + (f" and {rest} more" if rest > 0 else "")


def _checked(name: str, form: str, what: str, rule: str) -> str:
    if not re.fullmatch(form, name, re.ASCII) or name in (".", ".."):
        raise CowError(f"{name!r} cannot be the name of a {what}. Wanted: {rule}.")
    return name
