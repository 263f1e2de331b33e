"""Files that hold an image or a part of one: what they are, told from how they begin, and their checksums."""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import CowError

_BEGINNING = 1 << 20
"""Bytes that are looked at, of the file and of what comes out of decompressing them."""
_TAR_MAGIC = slice(257, 262)
_SQUASHFS = b"hsqs"
_ZSTD = b"\x28\xb5\x2f\xfd"
_DECOMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda data: zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _BEGINNING),
    b"\xfd7zXZ\0": lambda data: lzma.LZMADecompressor().decompress(data, _BEGINNING),
    b"\x5d\0\0": lambda data: lzma.LZMADecompressor().decompress(data, _BEGINNING),
    b"BZh": lambda data: bz2.BZ2Decompressor().decompress(data, _BEGINNING),
}


def check_unified(path: Path) -> None:
    """Refuse a file that is no tar of metadata.yaml and rootfs/, as far as its beginning tells."""
    tar = _tar_beginning(path)
    if tar is None:
        raise CowError(f"{path} is not an image in one file, which is a tar, plain or compressed.")
    names = _names(tar)
    if names and not any(name.split("/")[0] in ("metadata.yaml", "rootfs", "templates") for name in names):
        raise CowError(
            f"{path} begins with {names[0]!r} and has neither metadata.yaml nor rootfs/: it is not an image. "
            f"If it is a root file system, give it as `rootfs`."
        )


def check_metadata(path: Path) -> None:
    """Refuse a file that is no tar with metadata.yaml in it."""
    tar = _tar_beginning(path)
    if tar is None:
        raise CowError(f"{path} is not the metadata of an image, which is a tar.")
    names = _names(tar)
    if names and "metadata.yaml" not in names:
        raise CowError(f"{path} has no metadata.yaml in it: it is not the metadata of an image.")


def check_rootfs(path: Path) -> None:
    """Refuse a file that is neither a tar nor a squashfs."""
    if not _head(path, len(_SQUASHFS)).startswith(_SQUASHFS) and _tar_beginning(path) is None:
        raise CowError(f"{path} is not a root file system, which is a squashfs, or a tar, plain or compressed.")


def sha256(*paths: Path) -> str:
    """Return the checksum of the files one after the other, which for all files of an image is its fingerprint."""
    digest = hashlib.sha256()
    for path in paths:
        with _opened(path) as file:
            while block := file.read(_BEGINNING):
                digest.update(block)
    return digest.hexdigest()


def signature(paths: Sequence[Path]) -> str:
    """Return what changes when a file is replaced or written to: sizes in bytes and modification times in ns."""
    return " ".join(f"{status.st_size}:{status.st_mtime_ns}" for status in (path.stat() for path in paths))


def _tar_beginning(path: Path) -> bytes | None:
    """Return how the tar in the file begins, b"" for one that cannot be looked into here, None when there is no tar."""
    data = _head(path, _BEGINNING)
    if data.startswith(_ZSTD):
        return b""
    for magic, decompress in _DECOMPRESSORS.items():
        if data.startswith(magic):
            try:
                data = decompress(data)
            except (OSError, zlib.error, lzma.LZMAError):
                return None
    return data if data[_TAR_MAGIC] == b"ustar" else None


def _names(tar: bytes) -> list[str]:
    names: list[str] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r|") as archive:
            names.extend(member.name.removeprefix("./") for member in archive)
    except (tarfile.TarError, EOFError):
        return names  # cut off where the beginning ends
    return names


def _head(path: Path, length: int) -> bytes:
    with _opened(path) as file:
        return file.read(length)


def _opened(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise CowError(f"The file {path} cannot be read on this host: {error.strerror}.") from error
