"""Downloads that are checked before anybody uses them."""

from __future__ import annotations

import hashlib
import http.client
import re
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import build_opener

from . import mounts
from .errors import CowError
from .size import Size

TIMEOUT = 60.0
"""Seconds without a byte after which the other side counts as gone."""
_CHUNK = 1 << 20


def checked_url(url: str) -> str:
    """Return a URL that can be downloaded from."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CowError(f"{url!r} cannot be downloaded. Give an address that begins with https:// or http://.")
    return url


def checked_sha256(checksum: str) -> str:
    """Return the 64 hexadecimal digits of a checksum written as sha256:DIGITS."""
    matched = re.fullmatch(r"sha256:([0-9a-f]{64})", checksum.lower())
    if matched is None:
        raise CowError(
            f"{checksum!r} is not a checksum that is known here. Write sha256: and its 64 hexadecimal digits."
        )
    return matched[1]


def fetch(url: str, target: Path, sha256: str) -> None:
    """Download to `target`, which is only there when its content has the checksum."""
    part = target.with_name(f"{target.name}.part")
    try:
        found = _download(url, part)
        if found != sha256:
            raise CowError(
                f"What {url} gave has the checksum sha256:{found}, wanted is sha256:{sha256}. It was thrown away."
            )
        part.rename(target)
    except (OSError, http.client.HTTPException) as error:
        raise CowError(f"{url} cannot be downloaded: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _download(url: str, target: Path) -> str:
    with build_opener().open(url, timeout=TIMEOUT) as response, target.open("wb") as file:
        _refuse_too_big(url, target, int(response.headers.get("Content-Length") or 0))
        return _copy(response, file)


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := source.read(_CHUNK):
        target.write(block)
        digest.update(block)
    return digest.hexdigest()


def _refuse_too_big(url: str, target: Path, length: int) -> None:
    free = mounts.free(target.parent)
    if length > free.bytes:
        raise CowError(
            f"{url} is {Size(length).rounded()}, but {target.parent} has only {free.rounded()} free. Make room there."
        )
