"""The roots of an image: trees, each in a subvolume of its own, of which one may begin as a snapshot of another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import manifest, names
from ..errors import CowError
from ..image import sources
from ..image.purge import Purge
from ..image.sources import Look, Source
from ..manifest import Manifest
from ..tree import Tree

NOTHING = Purge(())


@dataclass(frozen=True)
class Root:
    """name: of its subvolume.  base: the earlier root that it begins as a snapshot of, "" for none."""

    name: str
    src: str
    incus: Mapping[str, Any]
    base: str = ""

    def source(self) -> Source:
        """Return where its tree comes from."""
        return sources.of_incus(self.incus) if self.incus else sources.of_path(Path(self.src))


def of(params: Iterable[Mapping[str, Any]]) -> tuple[Root, ...]:
    """Take them from the parameter of the module, and refuse what cannot be meant."""
    roots: list[Root] = []
    for each in params:
        name = names.subvolume(each["name"])
        earlier = [root.name for root in roots]
        if name in earlier:
            raise CowError(f"Two roots are called {name}. Give each a name of its own.")
        if each["from"] and each["from"] not in earlier:
            there = names.shortened(earlier) or "none"
            raise CowError(
                f"Root {name} is to begin as a snapshot of {each['from']}, which is not a root before it in the list. "
                f"Before it there is: {there}."
            )
        roots.append(Root(name, each["src"] or "", each["incus"] or {}, each["from"] or ""))
    if not roots:
        raise CowError("An image without a root has nothing in it. Give one root or more in `roots`.")
    return tuple(roots)


@dataclass(frozen=True)
class Seen:
    """A root, its source, and what that is now."""

    root: Root
    source: Source
    look: Look

    @property
    def identity(self) -> str:
        """What changes when the root is to be another: it is part of the image's fingerprint."""
        return f"{self.look.identity} from {self.root.base}" if self.root.base else self.look.identity


@dataclass(frozen=True)
class Shown:
    """A root whose tree is visible as a folder.

    whole: all that is there, with all contents.  content: what is to be in the image, without what is purged.
    """

    root: Root
    words: str
    whole: Manifest
    content: Manifest

    @property
    def tree(self) -> Tree:
        """What is to be in the image, as the file system that is copied has it."""
        return self.content.tree


@contextmanager
def shown(seen: Seen, purge: Purge, work: Path) -> Iterator[Shown]:
    """Show the tree of a root, from which nothing is purged yet, and read what is not known of its contents."""
    with seen.source.tree(seen.look, NOTHING, work) as visible:
        if seen.look.whole:
            whole = replace(seen.look.whole, tree=replace(seen.look.whole.tree, root=visible.root))
        else:
            whole = manifest.of_tree(visible.tree)
        yield Shown(seen.root, seen.source.words, whole, purge.applied_to_manifest(whole))


def looked_at(root: Root, known: sources.Known, purge: Purge) -> Seen:
    """Read of a root's source what may have changed."""
    source = root.source()
    return Seen(root, source, source.look(known, purge))
