"""The images that a server has, where they are unpacked, and what interrupted runs left of unpacking them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import CowError
from .client import ApiError, Server
from .locate import CLONING_DRIVERS

SOURCE = "cowherd.source"
"""Property of an image: the token of the source that it was imported from."""
IMPORTED = "cowherd.imported"
"""Property of an image: it came here by an import of ours, so that it may go when nothing names it any more."""
FILES = "cowherd.files"
"""Property of an image: sizes and times of the files that it was imported from, to save reading them again."""
PURPOSE = "user.cowherd.purpose"
"""Configuration key of an instance that was made to be deleted again: what for."""
UNPACKING = "unpack-image"
_OF_IMAGE = "user.cowherd.image"
_UNPACKING_PREFIX = "cowherd-unpack-"


@dataclass(frozen=True)
class Image:
    """An image as the server has it. remote: the token of the remote image that the server keeps it in step with."""

    fingerprint: str
    aliases: frozenset[str] = frozenset()
    properties: Mapping[str, str] = field(default_factory=dict)
    auto_update: bool = False
    remote: str = ""
    size: int = 0
    architecture: str = ""

    @property
    def token(self) -> str:
        """The token of its source, "" for one that was imported by hand and not taken over."""
        return self.properties.get(SOURCE, "")

    @property
    def imported(self) -> bool:
        """Whether it was imported here and can be again; one that was only taken over is somebody's own."""
        return IMPORTED in self.properties

    @property
    def short(self) -> str:
        """The fingerprint as Incus shortens it for people."""
        return self.fingerprint[:12]


@dataclass(frozen=True)
class Pool:
    """A storage pool, and the fingerprints of the images that are unpacked on it."""

    can_clone: bool
    unpacked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Leftover:
    """A container that an interrupted run made to have the image of an alias unpacked."""

    name: str
    alias: str


@dataclass(frozen=True)
class Store:
    """What a server has. images, leftovers: by project, as that project sees them. pools: by name."""

    images: Mapping[str, tuple[Image, ...]] = field(default_factory=dict)
    leftovers: Mapping[str, tuple[Leftover, ...]] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)

    def named(self, project: str, alias: str) -> Image | None:
        """Return the image that an alias names."""
        return next((image for image in self.images.get(project, ()) if alias in image.aliases), None)


def token(**description: Any) -> str:
    """Return a digest over what a source is."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def remote_token(server: str, protocol: str, alias: str) -> str:
    """Return the token of what an alias on an image server names, whatever image that is."""
    return token(kind="remote", server=server.rstrip("/"), protocol=protocol, alias=alias)


def read(server: Server, projects: Iterable[str]) -> Store:
    """Read what these projects have, in two requests for each and one for all pools."""
    each = sorted(set(projects))
    return Store(
        images={project: read_images(server, project) for project in each},
        leftovers={project: tuple(_leftovers(server, project)) for project in each},
        pools={body["name"]: _pool(body) for body in server.get("storage-pools", recursion=1)},
    )


def read_images(server: Server, project: str) -> tuple[Image, ...]:
    """Read the images of a project."""
    try:
        return tuple(_image(body) for body in server.get("images", recursion=1, project=project))
    except ApiError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            raise CowError(
                f"There is no project {project}. Create it first: incus project create {project}."
            ) from error
        raise


def set_properties(server: Server, project: str, fingerprint: str, properties: Mapping[str, str]) -> None:
    """Add these properties to an image; others stay."""
    body = {"properties": dict(properties)}
    server.patch("images", fingerprint, body=body, etag=_etag(server, project, fingerprint), project=project)


def set_auto_update(server: Server, project: str, fingerprint: str, *, wanted: bool) -> None:
    """Have the server keep the image in step with where it came from, or not."""
    body = {"auto_update": wanted}
    server.patch("images", fingerprint, body=body, etag=_etag(server, project, fingerprint), project=project)


def point(server: Server, project: str, alias: str, fingerprint: str) -> None:
    """Have an alias name an image, whether the alias is there already or not."""
    found = server.find("images", "aliases", alias, project=project)
    if found is None:
        server.post("images", "aliases", body={"name": alias, "target": fingerprint}, project=project)
    elif found.body["target"] != fingerprint:
        body = {"description": found.body["description"], "target": fingerprint}
        server.put("images", "aliases", alias, body=body, etag=found.etag, project=project)


def delete_unnamed(server: Server, project: str, fingerprint: str) -> None:
    """Delete an image, unless it has an alias or is gone."""
    found = server.find("images", fingerprint, project=project)
    if found is not None and not found.body["aliases"]:
        server.delete("images", fingerprint, project=project)


def unpack(server: Server, project: str, alias: str, pool: str) -> None:
    """Have the image of an alias unpacked on a pool.

    The API has no call for it (as of Incus 7.3), but making an instance does it. So one is made, never started, and
    deleted; what was unpacked stays until the image is deleted.
    """
    image = server.get("images", server.get("images", "aliases", alias, project=project)["target"], project=project)
    name = f"{_UNPACKING_PREFIX}{secrets.token_hex(4)}"
    body = {
        "name": name,
        "type": image["type"],
        "source": {"type": "image", "fingerprint": image["fingerprint"]},
        "profiles": [],
        "config": {PURPOSE: UNPACKING, _OF_IMAGE: alias},
        "devices": {"root": {"type": "disk", "path": "/", "pool": pool}},
    }
    server.post("instances", body=body, project=project)
    server.delete("instances", name, project=project)


def _leftovers(server: Server, project: str) -> Iterable[Leftover]:
    for url in server.get("instances", project=project):
        name = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
        found = server.find("instances", name, project=project) if name.startswith(_UNPACKING_PREFIX) else None
        if found is not None and found.body["config"].get(PURPOSE) == UNPACKING:
            yield Leftover(name, found.body["config"].get(_OF_IMAGE, ""))


def _image(body: Mapping[str, Any]) -> Image:
    source = body.get("update_source")
    return Image(
        fingerprint=body["fingerprint"],
        aliases=frozenset(alias["name"] for alias in body["aliases"]),
        properties=body["properties"] or {},
        auto_update=body["auto_update"],
        remote=remote_token(source["server"], source["protocol"], source["alias"]) if source else "",
        size=body["size"],
        architecture=body["architecture"],
    )


def _pool(body: Mapping[str, Any]) -> Pool:
    images = (url for url in body["used_by"] if url.startswith("/1.0/images/"))
    return Pool(
        can_clone=body["driver"] in CLONING_DRIVERS,
        unpacked=frozenset(urlsplit(url).path.rsplit("/", 1)[-1] for url in images),
    )


def _etag(server: Server, project: str, fingerprint: str) -> str:
    found = server.find("images", fingerprint, project=project)
    if found is None:
        raise CowError(f"Image {fingerprint[:12]} was removed by somebody while it was being changed. Run again.")
    return found.etag
