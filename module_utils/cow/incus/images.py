"""Images under an alias: imported from where the inventory says, and unpacked on pools before the first launch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .. import debian, download, names
from ..errors import CowError
from ..plan import Plan, Step
from . import image_store
from .client import Server
from .image_sources import Debian, Download, Files, Look, Remote, RootFileSystem, Source
from .image_store import IMPORTED, SOURCE, Image, Pool, Store


@dataclass(frozen=True, order=True)
class Key:
    """Which image: aliases repeat across projects."""

    project: str
    alias: str

    def __str__(self) -> str:
        """Name it for people; the project only when it is not the default one."""
        return self.alias if self.project == "default" else f"{self.project}:{self.alias}"


@dataclass(frozen=True)
class Wanted:
    """The image that is to be had under an alias. pools: where it is to be unpacked."""

    key: Key
    source: Source
    pools: tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the options of incus_image and check it."""
        return cls(key=key(params), source=_source(params), pools=tuple(dict.fromkeys(params.get("pools") or ())))


@dataclass(frozen=True)
class Found:
    """What planning images needs to know: what the server has, and what each wanted source turned out to hold."""

    store: Store = field(default_factory=Store)
    looks: Mapping[Key, Look] = field(default_factory=dict)


def key(params: Mapping[str, Any]) -> Key:
    """Take which image is meant from the options of incus_image and check it."""
    return Key(names.project(params.get("project") or "default"), names.image_alias(params["alias"]))


def observe(server: Server, wanted: Sequence[Wanted]) -> Found:
    """Read what planning these images needs. Files are only read whole when they are new or have changed."""
    store = image_store.read(server, (one.key.project for one in wanted))
    return Found(store, {one.key: one.source.look(store.named(one.key.project, one.key.alias)) for one in wanted})


def observe_absent(server: Server, which: Key) -> Found:
    """Read what planning the removal of an image needs."""
    return Found(image_store.read(server, [which.project]))


def plan(server: Server, found: Found, wanted: Wanted, fresh_pools: frozenset[str] = frozenset()) -> Plan:
    """Plan what makes the alias name an image from the wanted source, unpacked where it is wanted.

    fresh_pools: pools that clone, and that an earlier part of the same plan makes or makes again.
    """
    _refuse_unknown_pools(found.store, wanted, fresh_pools)
    look = found.looks[wanted.key]
    named = found.store.named(*_place(wanted.key))
    accepted = named if named is not None and wanted.source.accepts(named, look) else None
    here = accepted or _known(found.store.images.get(wanted.key.project, ()), look)
    return Plan.of(
        *_remove_leftovers(server, found.store, wanted.key),
        *_named_rightly(server, wanted, look, named, here),
        *_kept_in_step(server, wanted, here),
        *_unpacked(server, found.store, wanted, here, fresh_pools),
    )


def plan_absent(server: Server, found: Found, which: Key) -> Plan:
    """Plan the removal of an alias, and of its image when it has no other."""
    named = found.store.named(*_place(which))
    leftovers = tuple(_remove_leftovers(server, found.store, which))
    if named is None:
        return Plan.of(*leftovers)
    if named.aliases != {which.alias}:
        step = Step(
            title=f"delete alias {which} of image {named.short}, which has others",
            run=lambda: server.delete("images", "aliases", which.alias, project=which.project),
            before=_state(which, named),
        )
    else:
        step = Step(
            title=f"delete image {which} ({named.short})",
            run=lambda: server.delete("images", named.fingerprint, project=which.project),
            before=_state(which, named),
            destroys="" if named.imported else f"image {named.short}, which was not imported from a source",
            permit="state",
        )
    return Plan.of(*leftovers, step)


def describe(found: Found, which: Key) -> dict[str, Any]:
    """Give an image as return value of a module."""
    named = found.store.named(*_place(which))
    if named is None:
        return {"image": None}
    pools = {name: pool for name, pool in found.store.pools.items() if pool.can_clone}
    return {
        "image": {
            "alias": which.alias,
            "project": which.project,
            "fingerprint": named.fingerprint,
            "architecture": named.architecture,
            "size_bytes": named.size,
            "auto_update": named.auto_update,
            "aliases": sorted(named.aliases),
            "properties": dict(named.properties),
            "unpacked_on": sorted(name for name, pool in pools.items() if named.fingerprint in pool.unpacked),
        }
    }


def _source(params: Mapping[str, Any]) -> Source:
    makers = {"remote": _remote, "url": _download, "files": _files, "rootfs": _rootfs, "debian": _debian}
    given = [option for option in makers if params.get(option) is not None]
    if len(given) > 1:
        raise CowError(f"Image {params['alias']} has more than one source: {', '.join(given)}. Give one.")
    return makers[given[0]](params[given[0]]) if given else _debian({})


def _remote(options: Mapping[str, Any]) -> Remote:
    fingerprint = options.get("fingerprint")
    if fingerprint and not _is_fingerprint(fingerprint):
        raise CowError(f"{fingerprint!r} is not a fingerprint. Give 12 to 64 hexadecimal digits.")
    return Remote(
        server=download.checked_url(options["server"]),
        protocol=options.get("protocol") or "simplestreams",
        name=(fingerprint or options["alias"]),
        by_fingerprint=bool(fingerprint),
        certificate=options.get("certificate") or "",
        auto_update=options.get("auto_update"),
    )


def _is_fingerprint(text: str) -> bool:
    return 12 <= len(text) <= 64 and set(text) <= set("0123456789abcdef")


def _download(options: Mapping[str, Any]) -> Download:
    metadata_url = options.get("metadata_url")
    return Download(
        url=download.checked_url(options["url"]),
        sha256=download.checked_sha256(options["checksum"]),
        metadata_url=download.checked_url(metadata_url) if metadata_url else "",
        metadata_sha256=download.checked_sha256(options["metadata_checksum"]) if metadata_url else "",
    )


def _files(options: Mapping[str, Any]) -> Files:
    given = (options.get(part) for part in ("path", "metadata", "rootfs"))
    return Files(tuple(Path(names.absolute_path(path)) for path in given if path))


def _rootfs(options: Mapping[str, Any]) -> RootFileSystem:
    return RootFileSystem(Path(names.absolute_path(options["path"])))


def _debian(options: Mapping[str, Any]) -> Debian:
    return Debian(
        debian.System(
            release=options.get("release") or debian.default_release(),
            packages=tuple(options.get("packages") or ()),
            variant=options.get("variant") or "important",
            mirror=download.checked_url(options["mirror"]) if options.get("mirror") else "",
        )
    )


def _place(which: Key) -> tuple[str, str]:
    return which.project, which.alias


def _refuse_unknown_pools(store: Store, wanted: Wanted, fresh_pools: frozenset[str]) -> None:
    unknown = [name for name in wanted.pools if name not in store.pools and name not in fresh_pools]
    if unknown:
        raise CowError(
            f"Image {wanted.key} is to be unpacked on {', '.join(unknown)}, which is no pool here. "
            f"There is {', '.join(sorted(store.pools)) or 'none'}: create it first, or correct the name."
        )


def _known(images: Iterable[Image], look: Look) -> Image | None:
    """Find the image that the source would give, imported before under another alias or by an interrupted run."""
    return next((image for image in images if _is_of(image, look)), None)


def _is_of(image: Image, look: Look) -> bool:
    if look.fingerprint:
        return image.fingerprint.startswith(look.fingerprint)
    return bool(look.token) and image.token == look.token


def _remove_leftovers(server: Server, store: Store, which: Key) -> Iterable[Step]:
    for leftover in store.leftovers.get(which.project, ()):
        if leftover.alias == which.alias:
            yield Step(
                title=f"delete container {leftover.name}, left by an interrupted unpacking of image {which}",
                run=partial(server.delete, "instances", leftover.name, project=which.project),
                before={"container": leftover.name},
            )


def _named_rightly(
    server: Server, wanted: Wanted, look: Look, named: Image | None, here: Image | None
) -> Iterable[Step]:
    if here is not None and here is named:
        return
    which = wanted.key
    before = _state(which, named) if named else None
    if here is not None:
        yield Step(
            title=f"{'move' if named else 'give'} alias {which} to image {here.short}, which is here already",
            run=partial(_adopt, server, which, here.fingerprint, look),
            before=before,
            after=_state(which, here) | {"source": look.token},
        )
    else:
        yield Step(
            title=f"import image {which}: {wanted.source.words}{f', in place of {named.short}' if named else ''}",
            run=partial(_import, server, wanted, look),
            before=before,
            after={"alias": str(which), "fingerprint": look.fingerprint or "known afterwards", "source": look.token},
        )
    if named is not None and named.imported and named.aliases == {which.alias}:
        yield Step(
            title=f"delete image {named.short}, which no alias names any more",
            run=partial(image_store.delete_unnamed, server, which.project, named.fingerprint),
            before={"fingerprint": named.fingerprint},
        )


def _import(server: Server, wanted: Wanted, look: Look) -> None:
    project = wanted.key.project
    there = image_store.read_images(server, project)
    # Another alias may have brought it a step ago.
    here = _known(there, look)
    fingerprint = here.fingerprint if here else wanted.source.bring(server, project, look)
    # A source may turn out to hold an image that somebody imported by hand.
    if fingerprint not in {image.fingerprint for image in there}:
        image_store.set_properties(server, project, fingerprint, {IMPORTED: "true"})
    image_store.point(server, *_place(wanted.key), fingerprint)


def _adopt(server: Server, which: Key, fingerprint: str, look: Look) -> None:
    image_store.set_properties(server, which.project, fingerprint, look.properties)
    image_store.point(server, *_place(which), fingerprint)


def _kept_in_step(server: Server, wanted: Wanted, here: Image | None) -> Iterable[Step]:
    auto_update = wanted.source.auto_update if isinstance(wanted.source, Remote) else None
    if here is not None and auto_update is not None and here.auto_update != auto_update:
        yield Step(
            title=f"set auto_update of image {wanted.key}",
            run=partial(image_store.set_auto_update, server, wanted.key.project, here.fingerprint, wanted=auto_update),
            before={"auto_update": here.auto_update},
            after={"auto_update": auto_update},
        )


def _unpacked(
    server: Server, store: Store, wanted: Wanted, here: Image | None, fresh_pools: frozenset[str]
) -> Iterable[Step]:
    for name in wanted.pools:
        pool = Pool(can_clone=True) if name in fresh_pools else store.pools[name]
        if pool.can_clone and (here is None or here.fingerprint not in pool.unpacked):
            yield Step(
                title=f"unpack image {wanted.key} on storage pool {name}",
                run=partial(image_store.unpack, server, *_place(wanted.key), name),
                before={"unpacked": "no"},
                after={"unpacked": "yes"},
            )


def _state(which: Key, image: Image) -> dict[str, str]:
    return {"alias": str(which), "fingerprint": image.fingerprint, "source": image.properties.get(SOURCE, "")}
