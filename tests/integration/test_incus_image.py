"""incus_image against a private daemon: every source, what is recognised, and what is refused."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import images, needs
from tests.support.ansible import FourRuns, Result, four_runs, run_module
from tests.support.incusd import Incusd, running

MODULE = "incus_image"


class Web:
    """A web server for a folder. requests: the paths that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self, directory=str(folder)))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, web: Web, *arguments: Any, **options: Any) -> None:
        self.web = web
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        self.web.requests.append(self.path)
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    folder = tmp_path / "web"
    folder.mkdir()
    web = Web(folder)
    thread = threading.Thread(target=web.server.serve_forever)
    thread.start()
    yield web
    web.server.shutdown()
    thread.join()
    web.server.server_close()


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    return images.busybox_unified(tmp_path)


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def state(daemon: Incusd) -> list[Any]:
    """All that the module could change."""
    kinds = ("images?recursion=1", "images/aliases?recursion=1", "instances", "storage-pools?recursion=1")
    return [sorted(daemon.api("GET", f"/1.0/{kind}") or [], key=str) for kind in kinds]


def four(daemon: Incusd, **options: Any) -> FourRuns:
    return four_runs(MODULE, {"socket": str(daemon.socket), **options}, state=lambda: state(daemon))


def run(daemon: Incusd, **options: Any) -> Result:
    result = run_module(MODULE, {"socket": str(daemon.socket), **options})
    assert not result.get("failed"), result["msg"]
    return result


def refused(daemon: Incusd, **options: Any) -> str:
    """The message of a refusal that wrote nothing; check mode has to refuse too."""
    before = state(daemon)
    result = run_module(MODULE, {"socket": str(daemon.socket), "alias": "busybox", **options})
    assert result["failed"]
    assert state(daemon) == before
    assert list(daemon.dir.glob("cowherd/*")) == []
    return str(result["msg"])


def fingerprints(daemon: Incusd) -> list[str]:
    return [image["fingerprint"] for image in daemon.api("GET", "/1.0/images?recursion=1")]


def free_address() -> str:
    """An address of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def import_by_hand(daemon: Incusd, *files: Path, alias: str = "busybox") -> str:
    daemon.run("image", "import", *files, "--alias", alias)
    return str(daemon.api("GET", f"/1.0/images/aliases/{alias}")["target"])


def pool(daemon: Incusd, name: str, driver: str) -> str:
    daemon.run("storage", "create", name, driver, *(["size=512MiB"] if driver == "btrfs" else []))
    return name


def test_two_files_are_imported_and_unpacked_where_that_saves_a_copy(
    incusd: Incusd, busybox_image: tuple[Path, Path]
) -> None:
    metadata, rootfs = map(str, busybox_image)
    pools = [pool(incusd, "fast", "btrfs"), pool(incusd, "slow", "dir")]
    runs = four(incusd, alias="busybox", files={"metadata": metadata, "rootfs": rootfs}, pools=pools)
    assert [step.split(":")[0] for step in runs.do["steps"]] == [
        "import image busybox",
        "unpack image busybox on storage pool fast",
    ]
    assert runs.do["image"]["unpacked_on"] == ["fast"]
    assert runs.check["image"] is None
    assert incusd.api("GET", "/1.0/instances") == []
    assert list(incusd.dir.glob("cowherd/*")) == []
    incusd.run("launch", "busybox", "c1", "--storage", "fast")


def test_one_file_is_imported(incusd: Incusd, unified: Path) -> None:
    runs = four(incusd, alias="test/busybox", files={"path": str(unified)})
    assert f"sha256:{runs.do['image']['fingerprint']}" == checksum(unified)


def test_root_file_system_gets_metadata(incusd: Incusd, tmp_path: Path) -> None:
    rootfs = images.busybox_rootfs_tar(tmp_path)
    image = four(incusd, alias="busybox", rootfs={"path": str(rootfs)}).do["image"]
    assert image["architecture"] == images.ARCHITECTURE
    assert image["properties"]["description"] == "rootfs.tar"
    incusd.run("launch", "busybox", "c1", "--storage", pool(incusd, "fast", "btrfs"))


def test_download_is_checked_and_not_repeated(incusd: Incusd, web: Web, unified: Path) -> None:
    unified.rename(web.folder / "image")
    source = {"url": f"{web.address}/moved/image", "checksum": checksum(web.folder / "image")}
    four(incusd, alias="busybox", url=source)
    assert web.requests == ["/moved/image", "/image"]
    run(incusd, alias="other", url=source)
    assert len(web.requests) == 2
    assert len(fingerprints(incusd)) == 1


def test_download_in_two_files(incusd: Incusd, web: Web, busybox_image: tuple[Path, Path]) -> None:
    for path in busybox_image:
        (web.folder / path.name).write_bytes(path.read_bytes())
    metadata, rootfs = busybox_image
    source = {
        "url": f"{web.address}/{rootfs.name}",
        "checksum": checksum(rootfs),
        "metadata_url": f"{web.address}/{metadata.name}",
        "metadata_checksum": checksum(metadata),
    }
    four(incusd, alias="busybox", url=source)
    assert web.requests == [f"/{metadata.name}", f"/{rootfs.name}"]


@pytest.fixture
def remote(unified: Path) -> Iterator[tuple[Incusd, dict[str, str]]]:
    """Another daemon with the public image "shared", and how to reach it as a remote."""
    with running() as daemon:
        address = free_address()
        daemon.api("PUT", "/1.0", {"config": {"core.https_address": address}})
        share(daemon, import_by_hand(daemon, unified, alias="shared"))
        certificate = daemon.api("GET", "/1.0")["environment"]["certificate"]
        yield daemon, {"server": f"https://{address}", "protocol": "incus", "certificate": certificate}


def share(daemon: Incusd, fingerprint: str) -> None:
    daemon.api("PATCH", f"/1.0/images/{fingerprint}", {"public": True})


def test_image_of_another_incus_by_fingerprint(incusd: Incusd, remote: tuple[Incusd, dict[str, str]]) -> None:
    daemon, server = remote
    (fingerprint,) = fingerprints(daemon)
    runs = four(incusd, alias="busybox", remote={**server, "fingerprint": fingerprint[:12]})
    assert runs.do["image"]["fingerprint"] == fingerprint


def test_image_of_another_incus_by_alias_is_known_after_an_automatic_update(
    incusd: Incusd, remote: tuple[Incusd, dict[str, str]], busybox_image: tuple[Path, Path]
) -> None:
    daemon, server = remote
    source = {**server, "alias": "shared"}
    first = four(incusd, alias="busybox", remote=source).do["image"]["fingerprint"]
    four(incusd, alias="busybox", remote={**source, "auto_update": True})
    daemon.run("image", "alias", "delete", "shared")
    share(daemon, import_by_hand(daemon, *busybox_image, alias="shared"))
    incusd.run("image", "refresh", "busybox")
    again = run(incusd, alias="busybox", remote={**source, "auto_update": True})
    assert again["image"]["fingerprint"] != first
    assert not again["changed"]


def test_new_content_takes_the_alias_and_the_old_image_goes(incusd: Incusd, tmp_path: Path) -> None:
    rootfs = images.busybox_rootfs_tar(tmp_path)
    options = {"alias": "busybox", "rootfs": {"path": str(rootfs)}, "pools": [pool(incusd, "fast", "btrfs")]}
    first = run(incusd, **options)["image"]
    with tarfile.open(rootfs, "a") as archive:
        archive.addfile(tarfile.TarInfo("./etc/new"), io.BytesIO())
    runs = four(incusd, **options)
    assert runs.do["steps"] == [
        f"import image busybox: {rootfs}, in place of {first['fingerprint'][:12]}",
        f"delete image {first['fingerprint'][:12]}, which no alias names any more",
        "unpack image busybox on storage pool fast",
    ]
    assert fingerprints(incusd) == [runs.do["image"]["fingerprint"]]


def test_old_image_stays_while_another_alias_names_it(incusd: Incusd, unified: Path, tmp_path: Path) -> None:
    old = run(incusd, alias="busybox", files={"path": str(unified)})["image"]["fingerprint"]
    incusd.run("image", "alias", "create", "kept", old)
    four(incusd, alias="busybox", rootfs={"path": str(images.busybox_rootfs_tar(tmp_path))})
    assert old in fingerprints(incusd)
    assert incusd.api("GET", "/1.0/images/aliases/kept")["target"] == old


def test_touched_file_is_not_imported_again(incusd: Incusd, unified: Path) -> None:
    run(incusd, alias="busybox", files={"path": str(unified)})
    unified.touch()
    assert not run(incusd, alias="busybox", files={"path": str(unified)})["changed"]


def test_image_imported_by_hand_is_accepted(incusd: Incusd, unified: Path, tmp_path: Path) -> None:
    import_by_hand(incusd, unified)
    for source in (
        {"rootfs": {"path": str(images.busybox_rootfs_tar(tmp_path))}},
        {"remote": {"server": "https://images.example", "alias": "busybox"}},
        {"debian": {"release": "trixie"}},
        {},
    ):
        assert not run(incusd, alias="busybox", **source)["changed"]


def test_image_imported_by_hand_with_another_checksum_loses_the_alias_and_stays(
    incusd: Incusd, web: Web, busybox_image: tuple[Path, Path], unified: Path
) -> None:
    by_hand = import_by_hand(incusd, *busybox_image)
    unified.rename(web.folder / "image")
    four(incusd, alias="busybox", url={"url": f"{web.address}/image", "checksum": checksum(web.folder / "image")})
    assert by_hand in fingerprints(incusd)
    assert incusd.api("GET", "/1.0/images/aliases/busybox")["target"] != by_hand


def test_image_that_is_there_already_is_not_imported_twice(incusd: Incusd, unified: Path) -> None:
    fingerprint = import_by_hand(incusd, unified, alias="by-hand")
    runs = four(incusd, alias="busybox", files={"path": str(unified)})
    assert runs.do["steps"] == [f"give alias busybox to image {fingerprint[:12]}, which is here already"]


@pytest.mark.parametrize("source", ["files", "remote"])
def test_image_of_somebody_else_stays_when_the_source_changes(
    incusd: Incusd, remote: tuple[Incusd, dict[str, str]], unified: Path, tmp_path: Path, source: str
) -> None:
    by_hand = import_by_hand(incusd, unified)
    incusd.run("image", "alias", "delete", "busybox")
    sources: dict[str, Any] = {"files": {"path": str(unified)}, "remote": {**remote[1], "alias": "shared"}}
    taken_over = run(incusd, alias="busybox", **{source: sources[source]})["image"]
    assert taken_over["fingerprint"] == by_hand
    (folder := tmp_path / "new").mkdir()
    four(incusd, alias="busybox", rootfs={"path": str(images.busybox_rootfs_tar(folder))})
    assert by_hand in fingerprints(incusd)


def test_image_in_a_project(incusd: Incusd, unified: Path) -> None:
    incusd.run("project", "create", "own", "--config", "features.images=true", "--config", "features.profiles=false")
    pools = [pool(incusd, "fast", "btrfs")]
    four(incusd, alias="busybox", project="own", files={"path": str(unified)}, pools=pools)
    assert fingerprints(incusd) == []
    four(incusd, alias="busybox", project="own", state="absent")


def test_leftover_of_an_interrupted_unpacking_goes(incusd: Incusd, unified: Path) -> None:
    options = {"alias": "busybox", "files": {"path": str(unified)}, "pools": [pool(incusd, "fast", "btrfs")]}
    run(incusd, **options)
    marks = ("-c", "user.cowherd.purpose=unpack-image", "-c", "user.cowherd.image=busybox")
    incusd.run("init", "busybox", "cowherd-unpack-0", "--storage", "fast", *marks)
    incusd.run("init", "busybox", "cowherd-unpack-mine", "--storage", "fast")
    four(incusd, **options)
    assert incusd.api("GET", "/1.0/instances") == ["/1.0/instances/cowherd-unpack-mine"]


def test_absent(incusd: Incusd, unified: Path) -> None:
    import_by_hand(incusd, unified)
    incusd.run("image", "alias", "create", "second", fingerprints(incusd)[0])
    four(incusd, alias="busybox", state="absent")
    assert len(fingerprints(incusd)) == 1
    four(incusd, alias="second", state="absent")
    assert fingerprints(incusd) == []


def test_host_without_a_daemon_in_check_mode(tmp_path: Path) -> None:
    options = {"alias": "base", "pools": ["fast"], "socket": str(tmp_path / "unix.socket"), "pending": True}
    steps = run_module(MODULE, options, check=True)["steps"]
    assert [step.split(":")[0] for step in steps] == ["import image base", "unpack image base on storage pool fast"]
    assert run_module(MODULE, {**options, "state": "absent"}, check=True)["steps"] == []


def test_debian_is_built_and_boots_with_network(incusd: Incusd) -> None:
    needs.program("mmdebstrap")
    runs = four(incusd, alias="base", pools=[pool(incusd, "fast", "btrfs")])
    assert runs.do["image"]["properties"]["os"] == "debian"
    nic = {"eth0": {"type": "nic", "network": incusd.make_bridge()}}
    probe = {"image": "base", "pool": "fast", "devices": nic, "command": ["test", "-s", "/etc/machine-id"]}
    launched = run_module("incus_launch_probe", {"socket": str(incusd.socket), **probe})
    assert launched["address"], launched


def test_files_that_are_no_image_are_refused(incusd: Incusd, tmp_path: Path, unified: Path) -> None:
    text, rootfs = tmp_path / "text", images.busybox_rootfs_tar(tmp_path)
    text.write_text("not an image" * 100)
    missing = {"files": {"path": str(tmp_path / "none")}}
    assert "No such file" in refused(incusd, **missing)
    assert "not an image in one file" in refused(incusd, files={"path": str(text)})
    assert "give it as `rootfs`" in refused(incusd, files={"path": str(rootfs)})
    assert "no metadata.yaml" in refused(incusd, files={"metadata": str(rootfs), "rootfs": str(rootfs)})
    assert "not a root file system" in refused(incusd, rootfs={"path": str(text)})
    assert "Is a directory" in refused(incusd, rootfs={"path": str(tmp_path)})
    assert "not an absolute path" in refused(incusd, rootfs={"path": f"{tmp_path}/../x"})
    assert "more than one source" in refused(incusd, files={"path": str(unified)}, rootfs={"path": str(rootfs)})


def test_downloads_that_cannot_be_had_are_refused(incusd: Incusd, web: Web, unified: Path) -> None:
    unified.rename(web.folder / "image")
    (web.folder / "text").write_text("not an image" * 100)
    good, zeros = checksum(web.folder / "image"), f"sha256:{'0' * 64}"
    assert "has the checksum" in refused(incusd, url={"url": f"{web.address}/image", "checksum": zeros})
    assert "404" in refused(incusd, url={"url": f"{web.address}/none", "checksum": good})
    assert "cannot be downloaded" in refused(incusd, url={"url": "http://127.0.0.1:1/image", "checksum": good})
    assert "cannot be downloaded" in refused(incusd, url={"url": "file:///etc/passwd", "checksum": good})
    assert "not a checksum" in refused(incusd, url={"url": f"{web.address}/image", "checksum": "md5:0"})
    text = {"url": f"{web.address}/text", "checksum": checksum(web.folder / "text")}
    assert "not an image in one file" in refused(incusd, url=text)


def test_names_and_wishes_that_cannot_be_are_refused(incusd: Incusd, unified: Path) -> None:
    files = {"path": str(unified)}
    assert "cannot be the name" in refused(incusd, alias="-x", files=files)
    assert "no pool here" in refused(incusd, files=files, pools=["none"])
    assert "no project" in refused(incusd, files=files, project="none")
    assert "not a fingerprint" in refused(incusd, remote={"server": "https://images.example", "fingerprint": "xyz"})
    assert "not the code name" in refused(incusd, debian={"release": "../x"})
    assert "name of a package" in refused(incusd, debian={"release": "trixie", "packages": ["--x"]})


def test_missing_mmdebstrap_is_named(incusd: Incusd, tmp_path: Path) -> None:
    result = run_module(MODULE, {"socket": str(incusd.socket), "alias": "base"}, environment={"PATH": str(tmp_path)})
    assert "Install the package mmdebstrap" in result["msg"]
