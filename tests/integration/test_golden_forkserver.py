"""The fork server of cow-session: it does what cow-session does by itself, for those who could."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow import lock
from ansible.module_utils.cow.golden.start import SOCKET

from tests.support import fork_server, golden, waiting
from tests.support.fork_server import ForkServer
from tests.support.golden import Place, Store
from tests.support.golden_trees import content


@pytest.fixture(scope="module", params=["btrfs", "zfs"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with golden.place(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def server(place: Place) -> Iterator[ForkServer]:
    with _server(place) as running:
        yield running


@contextmanager
def _server(place: Place) -> Iterator[ForkServer]:
    root = place.fuse.seen("/") if place.fuse else None
    with fork_server.running(place.program, within=place.fuse.within if place.fuse else (), root=root) as running:
        yield running


@pytest.fixture(scope="module")
def on_btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """For what has to do with the server, and not with the store."""
    with golden.place("btrfs", tmp_path_factory.mktemp("btrfs")) as made:
        yield made


@pytest.fixture
def folders(on_btrfs: Place) -> Iterator[Store]:
    with golden.store(on_btrfs) as made:
        made.begin()
        yield made


def asked(server: ForkServer, program: Path) -> int:
    """How often it was asked: it says so when the program is replaced, which it sees when it is asked next, by this."""
    replaced(program)
    subprocess.run([program, "--config=/nonexistent", "destroy", "p", "nobody"], capture_output=True, check=False)
    count: int = server.ended()["asked"]
    return count


def replaced(program: Path) -> None:
    draft = program.with_suffix(".new")
    draft.write_bytes(program.read_bytes())
    draft.chmod(0o755)
    draft.replace(program)


def test_sessions_come_and_go_by_it(store: Store, server: ForkServer) -> None:
    source = store.begin()
    alice, bob = store.clone("alice"), store.clone("bob")
    assert content(alice) == content(bob) == content(source)
    (alice / "text").write_text("changed\n")
    store.run("promote", "p", "alice")
    store.run("destroy", "p", "bob")
    assert [each["name"] for each in store.project()["sessions"]] == ["alice"]
    assert not bob.exists()
    if store.place.fuse:
        assert server.process.poll() is None
    else:
        assert asked(server, store.place.program) == 4


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["clone", "p", "new"], 0),
        (["clone", "p", "taken"], 4),
        (["clone", "q", "new"], 3),
        (["clone", "p", "-x"], 2),
        (["clone", "p"], 2),
        (["clone", "p", "new", "--reserve", "100%"], 6),
        (["clone", "p", "../new"], 1),
        (["destroy", "p", "nobody"], 3),
        (["destroy", "p", "taken"], 0),
        (["clone", "--help"], 0),
    ],
)
def test_what_it_says_is_what_the_program_says(folders: Store, argv: list[str], status: int) -> None:
    folders.run("clone", "p", "taken")
    alone = folders.execute(*argv)
    for name in ("new", "taken"):
        folders.execute("destroy", "p", name)
    folders.run("clone", "p", "taken")
    with _server(folders.place):
        served = folders.execute(*argv)
    assert alone.returncode == served.returncode == status
    assert served.stderr == alone.stderr
    assert _timeless(served.stdout) == _timeless(alone.stdout)


def _timeless(printed: str) -> object:
    try:
        answer = json.loads(printed)
    except ValueError:
        return printed
    return {key: value for key, value in answer.items() if key != "created"}


def test_it_runs_in_the_folder_and_with_the_mask_of_who_asks(folders: Store) -> None:
    at = folders.path("deep/alice")
    with _server(folders.place):
        argv = folders.command("clone", "p", "alice", "--at", at)
        subprocess.run(["sh", "-c", 'umask 027; exec "$@"', "sh", *argv], check=True, capture_output=True)
        assert at.parent.stat().st_mode & 0o777 == 0o750
        busy = subprocess.run(folders.command("destroy", "p", "alice"), cwd=at, capture_output=True, check=False)
        assert busy.returncode == 5


def test_many_ask_at_one_time(folders: Store) -> None:
    with _server(folders.place) as server:
        made = golden.together([folders.command("clone", "p", f"s{number}") for number in range(30)])
        assert [status for status, _ in made] == [0] * 30
        assert len(folders.project()["sessions"]) == 30
        gone = golden.together([folders.command("destroy", "p", f"s{number}") for number in range(30)])
        assert [status for status, _ in gone] == [0] * 30
        assert asked(server, folders.place.program) == 61


def test_who_may_not_mount_has_nothing_mounted(folders: Store) -> None:
    with _server(folders.place):
        argv = ["setpriv", "--bounding-set=-sys_admin", *folders.command("clone", "p", "a", "--at", folders.path("a"))]
        finished = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "mount" in json.loads(finished.stdout)["msg"]
    assert not os.path.ismount(folders.path("a"))


def test_who_sees_other_mounts_has_it_mounted_there(folders: Store) -> None:
    at = folders.path("alice")
    script = '"$@" >/dev/null && ls "$0"'
    with _server(folders.place):
        apart = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, at]
        argv = [*apart, *folders.command("clone", "p", "alice", "--at", at)]
        listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "text" in listed.split()
    assert not os.path.ismount(at)


ASK = f"""
import os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({SOCKET!r})
words = [sys.argv[1].encode(), b"6", *(os.fsencode(word) for word in sys.argv[3:])]
socket.send_fds(server, [b"\\0".join(words)], [os.open(".", os.O_PATH), 1, 2])
answer = server.recv(64).decode()
if answer:
    shown = {{"its own": answer.split()[1], "another": "self"}}.get(sys.argv[2])
    memory = [os.open(f"/proc/{{shown}}/mem", os.O_RDWR)] if shown else []
    socket.send_fds(server, [b"go"], memory)
    answer = server.recv(4).decode()
print(f"answer {{answer!r}}", file=sys.stderr)
"""


def _asked_by_hand(folders: Store, session: str, shown: str = "its own", **options: Any) -> str:
    """What the server answers who asks for a session as cow-session does, and shows the memory of a process."""
    program = folders.place.program
    files = [program.stat(), Path("/usr/bin/python3").stat()]
    told = " ".join(f"{each.st_dev} {each.st_ino} {each.st_size} {each.st_mtime_ns}" for each in files)
    words = folders.command("clone", "p", session)[1:]
    argv = ["/usr/bin/python3", "-IS", "-c", ASK, told, shown, *words]
    finished = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    return finished.stderr.strip().rpartition("\n")[2]


def test_who_shows_that_they_could_do_anything_is_served(folders: Store) -> None:
    """The kernel lets nobody open the memory of a process who is confined in what that one is not."""
    with _server(folders.place):
        assert _asked_by_hand(folders, "none", "nothing") == "answer ''"
        assert _asked_by_hand(folders, "other", "another") == "answer ''"
        assert folders.project()["sessions"] == []
        assert _asked_by_hand(folders, "alice") == "answer '0'"
    assert [each["name"] for each in folders.project()["sessions"]] == ["alice"]


def test_nobody_but_root_is_served(folders: Store) -> None:
    """Also where somebody let them come to the socket."""
    other: dict[str, Any] = {"user": 1234, "group": 1234, "extra_groups": [], "cwd": "/"}
    with _server(folders.place):
        assert "PermissionError" in _asked_by_hand(folders, "alice", **other)
        Path(SOCKET).chmod(0o666)
        assert _asked_by_hand(folders, "alice", **other) == "answer ''"
    assert folders.project()["sessions"] == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_who_has_closed_an_output_has_it_done(folders: Store, closed: str) -> None:
    with _server(folders.place):
        for session in ("alice", "bob"):
            argv = ["sh", "-c", f'"$@" {closed}', "sh", *folders.command("clone", "p", session)]
            assert subprocess.run(argv, capture_output=True, check=False).returncode == 0
    assert [each["name"] for each in folders.project()["sessions"]] == ["alice", "bob"]


def test_other_commands_are_run_by_themselves(folders: Store) -> None:
    with _server(folders.place) as server:
        folders.run("promote", "clone", "--source", folders.source("clone"))
        folders.run("list", "clone")
        assert asked(server, folders.place.program) == 1  # in asking


@contextmanager
def _waiting(folders: Store, server: ForkServer) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Ask for a session of which somebody has the lock; gives who asks, and who was forked for that."""
    locks = Path(folders.location, ".cowherd", "locks")
    with lock.held("p.session", member="alice", folder=locks):
        process = subprocess.Popen(folders.command("clone", "p", "alice"), stdout=subprocess.PIPE, text=True)
        # Before it comes to the lock, who asks may still do it by themselves.
        yield process, waiting.until(lambda: next((each for each in server.children() if _uses(each, locks)), 0))


def _uses(process: int, folder: Path) -> bool:
    """Whether a process has a file of a folder open."""
    with suppress(OSError):
        return any(each.readlink().is_relative_to(folder) for each in Path(f"/proc/{process}/fd").iterdir())
    return False


def test_who_asks_and_is_killed_ends_what_they_asked_for(folders: Store) -> None:
    with _server(folders.place) as server:
        with _waiting(folders, server) as (asking, forked):
            asking.kill()
            waiting.until(lambda: not _runs(forked))
            asking.wait()
        assert folders.project()["sessions"] == []
        folders.run("clone", "p", "alice")


def test_who_is_forked_and_killed_is_told_of(folders: Store) -> None:
    with _server(folders.place) as server:
        with _waiting(folders, server) as (asking, forked):
            os.kill(forked, signal.SIGKILL)
        output, _ = asking.communicate(timeout=60)
        assert asking.returncode == 1
        assert "was ended" in json.loads(output)["msg"]


def test_a_server_that_ends_leaves_those_that_it_forked(folders: Store) -> None:
    with _server(folders.place) as server:
        with _waiting(folders, server) as (asking, _):
            os.kill(server.process.pid, signal.SIGTERM)
            server.process.wait(timeout=60)
        output, _ = asking.communicate(timeout=60)
        assert json.loads(output)["state"] == "complete"


def test_a_program_that_was_replaced_is_run_by_itself(folders: Store) -> None:
    with _server(folders.place) as server:
        folders.run("clone", "p", "alice")
        replaced(folders.place.program)
        folders.run("clone", "p", "bob")
        assert server.ended() == {"asked": 2}
    assert [each["name"] for each in folders.project()["sessions"]] == ["alice", "bob"]


def test_another_program_does_not_use_it(folders: Store, tmp_path: Path) -> None:
    other = tmp_path / "cow-session"
    other.write_bytes(folders.place.program.read_bytes())
    other.chmod(0o755)
    with _server(folders.place) as server:
        argv = [str(other), *folders.command("clone", "p", "alice")[1:]]
        subprocess.run(argv, capture_output=True, check=True)
        assert server.process.poll() is None
    assert [each["name"] for each in folders.project()["sessions"]] == ["alice"]


def test_a_server_that_hangs_up_leaves_who_asks_to_themselves(folders: Store) -> None:
    """As systemd does when the server cannot be started."""
    with _server(folders.place) as server:
        server.process.kill()
        server.process.wait()
        server.listening.close()
        folders.run("clone", "p", "alice")
    assert [each["name"] for each in folders.project()["sessions"]] == ["alice"]


def test_it_is_started_by_systemd_alone(folders: Store) -> None:
    finished = folders.execute("serve")
    assert finished.returncode == 1
    assert "Start cow-session.socket" in json.loads(finished.stdout)["msg"]


def _runs(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
