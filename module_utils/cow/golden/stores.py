"""Which backend a store has: what it was begun with, or else what is best on what the store really is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .. import mounts, names
from ..errors import CowError
from .model import BACKENDS, BEGUN_WITH
from .refusals import NotThere
from .store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .backend import Backend

ARGUMENTS: dict[str, Any] = {
    "store": {"type": "str", "required": True},
    "backend": {"type": "str", "choices": ["auto", *BACKENDS], "default": "auto"},
    "expect": {"type": "str", "choices": [*BACKENDS]},
}
"""Of each module for golden trees; doc_fragments/golden.py says what they are."""
_NO_KINDS = "its folders do not tell kinds of entries (d_type), so container engines cannot have overlays on it"


@dataclass(frozen=True)
class Choice:
    """The backend in effect and why; location: a folder or a dataset."""

    backend: str
    why: str
    location: str


def opened(options: Mapping[str, Any]) -> Store:
    """Open the store that `store`, `backend` and `expect` of a module or the command line name. Writes nothing."""
    choice = choose(options["store"], options.get("backend") or "auto")
    require(choice, options.get("expect"))
    return Store(_backend(choice, options), choice.why)


def require(choice: Choice, expected: str | None) -> None:
    """Refuse a backend other than the one that is expected, where one is."""
    if expected and expected != choice.backend:
        raise CowError(
            f"The backend {expected} was expected, and it would be {choice.backend}: {choice.why}. "
            f"Name a store that {expected} works on, or leave out expect."
        )


def choose(store: str, backend: str) -> Choice:
    """Decide on the backend of a store."""
    if not store.startswith("/"):
        return _of_dataset(names.dataset(store), backend)
    choice = _of_folder(store, backend)
    if mounts.tells_kinds(Path(store)) is False:
        return replace(choice, why=f"{choice.why}; {_NO_KINDS}")
    return choice


def _of_dataset(dataset: str, backend: str) -> Choice:
    if backend not in ("auto", "zfs", "zvol"):
        raise CowError(
            f"The store {dataset} is a dataset, and the backend {backend} needs a folder. Name its path, from '/'."
        )
    from ..zfs import Zfs  # noqa: PLC0415

    found = Zfs().read([dataset], [BEGUN_WITH]).get(dataset, {}).get(BEGUN_WITH)
    begun = found.value if found and found.own else None
    _require_begun_with(dataset, begun, backend)
    if begun:
        return Choice(begun, f"{dataset} was begun with it", dataset)
    if backend != "auto":
        return Choice(backend, f"asked for, on the dataset {dataset}", dataset)
    return Choice("zfs", f"{dataset} names a dataset", dataset)


def _require_begun_with(store: str, begun: str | None, backend: str) -> None:
    if begun and backend not in ("auto", begun):
        raise CowError(
            f"The store {store} was begun with the backend {begun}, and {backend} is asked for. "
            f"Leave backend out, or name another store."
        )


def _of_folder(store: str, backend: str) -> Choice:
    folder = Path(names.absolute_path(store))
    if not folder.is_dir():
        raise NotThere(f"The folder {folder} does not exist. Create it, or name another store.")
    begun = _begun(folder)
    _require_begun_with(str(folder), begun, backend)
    if begun:
        return Choice(begun, f"{folder} was begun with it", store)
    found = _best(folder)
    if found.backend == "zfs" and backend in ("auto", "zfs", "zvol"):
        return replace(chosen := _of_dataset(found.location, backend), why=f"{found.why}; {chosen.why}")
    return found if backend == "auto" else _asked_for(folder, backend, found)


def _asked_for(folder: Path, backend: str, found: Choice) -> Choice:
    mount = mounts.under(folder)
    if backend in ("zfs", "zvol"):
        raise CowError(f"The backend {backend} needs a dataset, and {found.why}. Write the store as POOL/NAME.")
    if backend == "btrfs" and mount.fstype != "btrfs":
        raise CowError(f"The backend btrfs needs btrfs, and {found.why}. Choose another backend or store.")
    if backend == "reflink" and not (why := _reflinks(folder))[0]:
        raise CowError(f"The backend reflink needs files that share data: {why[1]}. Choose another backend or store.")
    return Choice(backend, f"asked for; {folder} is on {mount.fstype}", str(folder))


def _best(folder: Path) -> Choice:
    mount = mounts.under(folder)
    on = f"{folder} is on {mount.fstype} ({mount.source} at {mount.mount_point})"
    if mount.fstype in ("zfs", "fuse.zfs") and mount.inside(folder.resolve()) == Path("/"):
        return Choice("zfs", f"{folder} is where the dataset {mount.source} is mounted", mount.source)
    if mount.fstype == "btrfs":
        return Choice("btrfs", on, str(folder))
    works, said = _reflinks(folder)
    if works:
        return Choice("reflink", f"{on}{_zvol(mount.source)}, which can share data between files", str(folder))
    return Choice("copy", f"{on}, which cannot share data between files: {said}", str(folder))


def _reflinks(folder: Path) -> tuple[bool, str]:
    from .. import reflink  # noqa: PLC0415

    attempt = reflink.attempt(folder)
    return attempt.supported, attempt.why_not or ""


def _zvol(source: str) -> str:
    """Say that a device is a volume of ZFS, which has clones of its own."""
    device = os.path.realpath(source)  # noqa: PTH118, RUF100
    if not device.startswith("/dev/zd"):
        return ""
    return f" on the volume {source}; name a dataset with backend: zvol to clone volumes instead"


def _begun(folder: Path) -> str | None:
    """Return the backend that a store was begun with."""
    path = folder / ".cowherd" / "store.json"
    try:
        return str(json.loads(path.read_bytes())["backend"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CowError(f'{path} is damaged. Write {{"backend": "NAME"}} with the one that was used there.') from error


def _backend(choice: Choice, options: Mapping[str, Any]) -> Backend:
    """Make it; only what is used is loaded."""
    if choice.backend == "zfs":
        from .datasets import Datasets  # noqa: PLC0415

        return Datasets(choice.location)
    if choice.backend == "zvol":
        from .volumes import Volumes  # noqa: PLC0415

        return Volumes(choice.location, volume_size=options.get("volume_size") or "100GiB")
    if choice.backend == "btrfs":
        from .subvolumes import Subvolumes  # noqa: PLC0415

        return Subvolumes(choice.location)
    from .folders import Folders  # noqa: PLC0415

    return Folders(choice.location, name=choice.backend)
