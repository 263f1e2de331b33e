"""dm-verity: the hash tree of an image, its root hash, a signature of that, and whether an image is what a hash says.

All of it by veritysetup in user space; nothing here needs the device mapper.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from .. import names, tools
from ..errors import CowError
from ..process import CommandFailed
from . import workshop

BLOCK = 4096
ALGORITHM = "sha256"
_HASHES = BLOCK // 32
"""In one block of a hash tree."""
_MAGIC = b"verity\0\0"
_SUPERBLOCK = struct.Struct("<8s56xIIQ")
"""Of the hash tree: magic, bytes of a block of data and of hashes, and blocks of data. veritysetup goes by it alone."""
_ROOT_HASH = re.compile(r"[0-9a-f]{64}")
_OPENSSL_REASON = re.compile(r"^[0-9A-F]+:error:[^:]*:[^:]*:[^:]*:([^:]+):", re.MULTILINE)
"""What the lines of openssl's queue of errors say (ERR_print_errors(3)), without places in its source."""


@dataclass(frozen=True)
class Tree:
    """Parameters of a hash tree; `beside` is whether it is in a file of its own."""

    root_hash: str
    hash_offset: int
    data_blocks: int
    salt: str
    uuid: str
    beside: bool
    algorithm: str = ALGORITHM
    block_bytes: int = BLOCK

    def record(self) -> dict[str, Any]:
        """Return it for a record."""
        return asdict(self)


def root_hash(text: str) -> str:
    """Return a root hash in lower case, or refuse it."""
    if not _ROOT_HASH.fullmatch(text.lower()):
        raise CowError(f"{text!r} is not a root hash, which has 64 hexadecimal digits.")
    return text.lower()


def add(image: Path, beside: Path | None, salt: str, identity: UUID) -> Tree:
    """Append the hash tree to an image, or write it to a file beside it."""
    size = -(-image.stat().st_size // BLOCK) * BLOCK
    with image.open("r+b") as file:
        file.truncate(size)
    blocks, offset = size // BLOCK, 0 if beside else size
    made = [f"--hash={ALGORITHM}", f"--salt={salt}", f"--uuid={identity}"]
    finished = workshop.tool(["veritysetup", "format", *_parameters(blocks, offset), *made, image, beside or image])
    matched = re.search(r"^Root hash:\s+([0-9a-f]{64})$", finished.stdout, re.MULTILINE)
    if matched is None:
        raise CowError(f"veritysetup did not say the root hash: {finished.stdout.strip()!r}.")
    return Tree(matched[1], offset, blocks, salt, str(identity), beside is not None)


def verify(image: Path, tree_file: Path, tree: Tree, wanted: str) -> str:
    """Read an image whole, and say what is wrong with it; "" when it is what the root hash says.

    The parameters of the hash tree are not to be trusted: the root hash vouches for the blocks that the tree covers,
    and these have to be all that there is.
    """
    if misplaced := _misplaced(image, tree_file, tree):
        return misplaced
    try:
        workshop.tool(
            ["veritysetup", "verify", *_parameters(tree.data_blocks, tree.hash_offset), image, tree_file, wanted]
        )
    except CommandFailed as error:
        return error.finished.stderr.strip() or error.finished.stdout.strip() or "veritysetup gives no reason"
    return ""


def _misplaced(image: Path, tree_file: Path, tree: Tree) -> str:
    blocks, offset = tree.data_blocks, tree.hash_offset
    if not (isinstance(blocks, int) and isinstance(offset, int)):
        return "its record does not say in numbers where its hash tree is"
    data, end = blocks * BLOCK, offset + _tree_bytes(blocks)
    if offset != (0 if tree.beside else data):
        return f"its record has the hash tree at {offset} in {tree_file}, which is not where it belongs"
    for file, wanted in ((image, data if tree.beside else end), (tree_file, end)):
        if (size := file.stat().st_size) != wanted:
            return f"{file} has {size} bytes, and those that the hash tree accounts for are {wanted}"
    with tree_file.open("rb") as opened:
        opened.seek(offset)
        found = _SUPERBLOCK.unpack(opened.read(_SUPERBLOCK.size))
    if found != (_MAGIC, BLOCK, BLOCK, blocks):
        return f"the hash tree in {tree_file} covers something else than the {blocks} blocks that its record says"
    return ""


def _tree_bytes(blocks: int) -> int:
    """Return what a hash tree takes: the superblock, and levels of hashes up to the block that the root hash is of."""
    total = 1
    while blocks > 1:
        blocks = -(-blocks // _HASHES)
        total += blocks
    return total * BLOCK


def require_signing(key: Path, certificate: Path) -> None:
    """Refuse what a root hash cannot be signed with, before there is one."""
    for file in (key, certificate):
        names.absolute_path(str(file))
        if not file.is_file():
            raise CowError(f"{file} is not there. Give key and certificate in PEM form to sign the root hash.")
    tools.require("openssl")
    _sign(Path(os.devnull), key, certificate, Path(os.devnull))


def sign(digest: str, key: Path, certificate: Path, target: Path, work: Path) -> None:
    """Sign a root hash as the kernel checks it: PKCS#7, detached, of its text without a line end."""
    text = work / "root-hash"
    text.write_text(digest, encoding="ascii")
    _sign(text, key, certificate, target)


def _sign(text: Path, key: Path, certificate: Path, target: Path) -> None:
    argv: list[str | Path] = ["openssl", "smime", "-sign", "-nocerts", "-noattr", "-binary", "-in", text]
    argv += ["-passin", "pass:"]  # or it asks at a terminal
    try:
        workshop.tool([*argv, "-inkey", key, "-signer", certificate, "-outform", "der", "-out", target])
    except CommandFailed as error:
        said = error.finished.stderr.strip()
        reasons = "; ".join(dict.fromkeys(_OPENSSL_REASON.findall(said))) or said
        raise CowError(
            f"A root hash cannot be signed with {key} and {certificate}: openssl says {reasons!r}. Give a private key "
            f"in PEM form without a passphrase, and the certificate that belongs to it."
        ) from error


def _parameters(blocks: int, offset: int) -> list[str]:
    return [
        f"--data-blocks={blocks}",
        f"--hash-offset={offset}",
        f"--data-block-size={BLOCK}",
        f"--hash-block-size={BLOCK}",
    ]
