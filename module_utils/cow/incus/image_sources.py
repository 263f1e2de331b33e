"""Where images come from: remotes, downloads, files of the host, and packages of Debian."""

from __future__ import annotations

import io
import json
import secrets
import shutil
import tarfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import uname
from pathlib import Path
from urllib.parse import urlencode

from .. import debian, download, mounts
from ..errors import CowError
from ..size import Size
from . import image_files, image_store
from .client import Server
from .image_store import FILES, SOURCE, Image

_CHUNK = 1 << 20
_ROOM = 2
"""The daemon holds an upload twice for a moment."""


@dataclass(frozen=True)
class Look:
    """What a source holds, as far as it was needed to find out; nothing was imported or downloaded for it.

    token: tells its content from that of any other source; "" where an image is accepted without.
    fingerprint: that of its image, or how it begins; "" when only the import tells.
    files: the `image_files.signature` of the files that it is in.
    """

    token: str = ""
    fingerprint: str = ""
    files: str = ""

    @property
    def properties(self) -> dict[str, str]:
        """What its image gets as properties, so that a later run knows it again."""
        return {SOURCE: self.token, **({FILES: self.files} if self.files else {})}


class Source(ABC):
    """A place to import an image from."""

    @property
    @abstractmethod
    def words(self) -> str:
        """Where the image comes from, for people."""

    @abstractmethod
    def look(self, named: Image | None) -> Look:
        """Look at the source; `named` is the image that has the alias now. CowError when no image can come of it."""

    @abstractmethod
    def bring(self, server: Server, project: str, look: Look) -> str:
        """Import the image with its properties and return its fingerprint; no matter if the server has it already."""

    def accepts(self, image: Image, look: Look) -> bool:
        """Say whether an image is the one from here. One imported by hand is, unless a checksum differs."""
        if look.fingerprint:
            return image.fingerprint.startswith(look.fingerprint)
        return image.token in ("", look.token)


@dataclass(frozen=True)
class Remote(Source):
    """An image server. name: alias, or with `by_fingerprint` a fingerprint or how it begins. certificate: PEM."""

    server: str
    protocol: str
    name: str
    by_fingerprint: bool = False
    certificate: str = ""
    auto_update: bool | None = None

    @property
    def words(self) -> str:
        """The alias or fingerprint, and the server."""
        return f"{self.name} from {self.server}"

    def look(self, named: Image | None) -> Look:
        """Take it at its word: the server that imports it asks the remote."""
        del named
        return Look(
            token=image_store.remote_token(self.server, self.protocol, self.name),
            fingerprint=self.name if self.by_fingerprint else "",
        )

    def accepts(self, image: Image, look: Look) -> bool:
        """An automatic update brings a new image without our property, but with a record of where it came from."""
        return super().accepts(image, look) if look.fingerprint else (image.token or image.remote) in ("", look.token)

    def bring(self, server: Server, project: str, look: Look) -> str:
        """Have the server fetch it."""
        body = {
            "source": {
                "type": "image",
                "mode": "pull",
                "server": self.server,
                "protocol": self.protocol,
                "certificate": self.certificate,
                "image_type": "container",
                "fingerprint" if self.by_fingerprint else "alias": self.name,
            },
            "auto_update": bool(self.auto_update),
            "properties": look.properties,
        }
        return str(server.post("images", body=body, project=project)["fingerprint"])


@dataclass(frozen=True)
class Download(Source):
    """An image in one file, or its root file system with the metadata beside it, each with its SHA-256."""

    url: str
    sha256: str
    metadata_url: str = ""
    metadata_sha256: str = ""

    @property
    def words(self) -> str:
        """The address."""
        return self.url

    def look(self, named: Image | None) -> Look:
        """Know it by its checksums."""
        del named
        if self.metadata_url:
            return Look(token=image_store.token(kind="url", rootfs=self.sha256, metadata=self.metadata_sha256))
        return Look(token=image_store.token(fingerprint=self.sha256), fingerprint=self.sha256)

    def bring(self, server: Server, project: str, look: Look) -> str:
        """Download, check, import."""
        with _workshop(server) as folder:
            main, metadata = folder / "image", folder / "metadata"
            if not self.metadata_url:
                download.fetch(self.url, main, self.sha256)
                image_files.check_unified(main)
                return _upload(server, project, [main], look)
            download.fetch(self.metadata_url, metadata, self.metadata_sha256)
            image_files.check_metadata(metadata)
            download.fetch(self.url, main, self.sha256)
            image_files.check_rootfs(main)
            return _upload(server, project, [metadata, main], look)


@dataclass(frozen=True)
class Files(Source):
    """An image in files of the host: all in one, or metadata and root file system."""

    paths: tuple[Path, ...]

    @property
    def words(self) -> str:
        """The paths."""
        return " and ".join(map(str, self.paths))

    def look(self, named: Image | None) -> Look:
        """Read the beginnings; the whole only of files that the named image was not imported from."""
        if len(self.paths) == 1:
            image_files.check_unified(self.paths[0])
        else:
            image_files.check_metadata(self.paths[0])
            image_files.check_rootfs(self.paths[1])
        files = image_files.signature(self.paths)
        if named is not None and not named.token:
            return Look()
        if named is not None and named.properties.get(FILES) == files:
            return Look(token=named.token, fingerprint=named.fingerprint, files=files)
        fingerprint = image_files.sha256(*self.paths)
        return Look(token=image_store.token(fingerprint=fingerprint), fingerprint=fingerprint, files=files)

    def bring(self, server: Server, project: str, look: Look) -> str:
        """Import the files as they are."""
        return _upload(server, project, self.paths, look)


@dataclass(frozen=True)
class RootFileSystem(Source):
    """A root file system in a file of the host, that metadata is made for."""

    path: Path

    @property
    def words(self) -> str:
        """The path."""
        return str(self.path)

    def look(self, named: Image | None) -> Look:
        """Read the beginning; the whole only of a file that the named image was not imported from."""
        image_files.check_rootfs(self.path)
        files = image_files.signature([self.path])
        if named is not None and not named.token:
            return Look()
        if named is not None and named.properties.get(FILES) == files:
            return Look(token=named.token, files=files)
        return Look(token=image_store.token(kind="rootfs", sha256=image_files.sha256(self.path)), files=files)

    def bring(self, server: Server, project: str, look: Look) -> str:
        """Import the file with metadata beside it."""
        with _workshop(server) as folder:
            metadata = folder / "metadata.tar"
            created = int(self.path.stat().st_mtime)
            _write_metadata(metadata, uname().machine, created, {"description": self.path.name})
            return _upload(server, project, [metadata, self.path], look)


@dataclass(frozen=True)
class Debian(Source):
    """A system made on this host from packages."""

    system: debian.System

    @property
    def words(self) -> str:
        """The release and what is in it."""
        return f"{self.system.release} built on this host ({self.system.variant}{self._extra})"

    @property
    def _extra(self) -> str:
        return f", {', '.join(self.system.packages)}" if self.system.packages else ""

    def look(self, named: Image | None) -> Look:
        """Know it by what is asked for."""
        del named
        system = self.system
        return Look(
            token=image_store.token(
                kind="debian",
                release=system.release,
                packages=sorted(system.packages),
                variant=system.variant,
                recipe=debian.RECIPE,
            )
        )

    def bring(self, server: Server, project: str, look: Look) -> str:
        """Build and import it."""
        with _workshop(server) as folder:
            rootfs, metadata = folder / f"rootfs.tar.{'zst' if shutil.which('zstd') else 'gz'}", folder / "metadata.tar"
            debian.build(self.system, rootfs)
            properties = {"description": self.words, "os": "debian", "release": self.system.release}
            _write_metadata(metadata, debian.architecture(), int(time.time()), properties)
            return _upload(server, project, [metadata, rootfs], look)


@contextmanager
def _workshop(server: Server) -> Iterator[Path]:
    """Give a folder for what is to be imported. Runs take turns, so what is in it was left by one that was killed."""
    folder = Path(server.folder) / "cowherd" / "import"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_metadata(target: Path, architecture: str, created: int, properties: Mapping[str, str]) -> None:
    """Write the metadata part of an image; `created` is in seconds since 1970."""
    # JSON is YAML too.
    document = {"architecture": architecture, "creation_date": created, "properties": dict(properties)}
    text = json.dumps(document, indent=1).encode()
    member = tarfile.TarInfo("metadata.yaml")
    member.size, member.mtime = len(text), created
    with tarfile.open(target, "w") as archive:
        archive.addfile(member, io.BytesIO(text))


def _upload(server: Server, project: str, paths: Sequence[Path], look: Look) -> str:
    """Import an image in one file, or in two, metadata first."""
    fingerprint = look.fingerprint or image_files.sha256(*paths)
    if server.exists("images", fingerprint, project=project):
        image_store.set_properties(server, project, fingerprint, look.properties)
        return fingerprint
    boundary = secrets.token_hex(16)
    parts = [paths[0]] if len(paths) == 1 else list(_multipart(paths, boundary))
    length = sum(part.stat().st_size if isinstance(part, Path) else len(part) for part in parts)
    _refuse_no_room(server, length)
    server.upload(
        "images",
        chunks=_chunks(parts),
        length=length,
        headers={
            "Content-Type": f"multipart/form-data; boundary={boundary}"
            if len(paths) > 1
            else "application/octet-stream",
            "X-Incus-filename": paths[-1].name,
            "X-Incus-fingerprint": fingerprint,
            "X-Incus-properties": urlencode(look.properties),
        },
        project=project,
    )
    return fingerprint


def _multipart(paths: Sequence[Path], boundary: str) -> Iterator[Path | bytes]:
    for name, path in zip(("metadata", "rootfs"), paths, strict=True):
        disposition = f'form-data; name="{name}"; filename="{name}"'
        yield f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        yield path
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _chunks(parts: Sequence[Path | bytes]) -> Iterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
            continue
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def _refuse_no_room(server: Server, length: int) -> None:
    free = mounts.free(Path(server.folder))
    if free.bytes < _ROOM * length:
        raise CowError(
            f"To import an image of {Size(length).rounded()} takes {Size(_ROOM * length).rounded()} for a moment, but "
            f"{server.folder} has only {free.rounded()} free. Make room there."
        )
