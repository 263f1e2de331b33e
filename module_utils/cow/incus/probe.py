"""How fast a container is there: a throw-away one is launched, each phase is timed, and nothing of it stays."""

from __future__ import annotations

import http.client
import secrets
import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from .. import names
from ..errors import CowError
from . import instances, pools, profiles, settings
from .client import ApiError, Server, parts
from .image_store import PURPOSE
from .profiles import Devices, Key

LAUNCH_PROBE = "launch-probe"
PHASES = ("create", "start", "network", "push", "reload", "http", "delete")
SUMS = {"launch": PHASES[:2], "total": PHASES[:-1]}
"""What an operator waits for: until the container runs, and until it does what it is for."""
_POLL = 0.02
"""Seconds between two looks."""
_DELETE_TIMEOUT = 60.0
_RANDOM_BYTES = 3
"""In the name of each container."""


@dataclass(frozen=True)
class File:
    """A file that is pushed into the container. mode: octal digits."""

    path: str
    content: str
    mode: str = "0644"


@dataclass(frozen=True)
class Http:
    """A request that the container has to answer. url: with {address} where its address belongs."""

    url: str
    status: int = 200
    timeout: float = 30.0


@dataclass(frozen=True)
class Wanted:
    """The container that is launched, and what is done with it."""

    image: str
    pool: str = ""
    profiles: tuple[str, ...] = ("default",)
    prefix: str = "cowherd-probe"
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    files: tuple[File, ...] = ()
    command: tuple[str, ...] = ("true",)
    http: Http | None = None
    network_timeout: float = 30.0
    runs: int = 1
    targets: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the options of incus_launch_probe and check it."""
        _refuse_bad_targets(params["targets"])
        if params["runs"] < 1:
            raise CowError(f"runs is {params['runs']}; at least one launch is needed to time one.")
        return cls(
            image=names.image_alias(params["image"]),
            pool=names.pool(params["pool"]) if params["pool"] else "",
            profiles=tuple(names.profile(name) for name in params["profiles"]),
            prefix=_prefix(params["name_prefix"]),
            config=settings.as_text(params["config"], "the probe"),
            devices=profiles.checked_devices(params["devices"], "the probe"),
            files=tuple(_file(options) for options in params["files"]),
            command=tuple(params["command"]),
            http=_http(params["http"]) if params["http"] else None,
            network_timeout=params["network_timeout"],
            runs=params["runs"],
            targets=params["targets"],
        )


@dataclass(frozen=True)
class Run:
    """One launch. phases: milliseconds by name, for those that took place."""

    phases: Mapping[str, float]
    address: str
    pool: str


def read(server: Server, wanted: Wanted) -> dict[str, Any]:
    """Launch as often as wanted and return the figures as return values of the module."""
    fingerprint = _fingerprint(server, wanted.image)
    with _interruptible():
        _delete_leftovers(server, wanted.prefix)
        runs = [_launch(server, wanted) for _ in range(wanted.runs)]
    medians = _with_sums(_medians(runs))
    rows = [_row(name, medians, wanted) for name in (*PHASES, *SUMS)]
    return {
        "phases": rows,
        "ok": all(row["ok"] for row in rows),
        "address": runs[-1].address or None,
        "image": fingerprint,
        "storage_pool": pools.describe(pools.read(server, runs[0].pool))["pool"],
        "runs": len(runs),
    }


def nothing_launched(wanted: Wanted) -> dict[str, Any]:
    """Return the values of the module where nothing may be launched."""
    return {"skipped": True, "msg": f"In check mode no container of {wanted.image} is launched, so nothing is timed."}


def _refuse_bad_targets(targets: Mapping[str, Any]) -> None:
    unknown = sorted({*targets} - {*PHASES, *SUMS})
    if unknown:
        raise CowError(
            f"There is no phase {', '.join(unknown)} to have a target. There are {', '.join((*PHASES, *SUMS))}."
        )
    for name, target in targets.items():
        if not isinstance(target, int | float) or target <= 0:
            raise CowError(f"The target of {name} is {target!r}. Wanted is a number of milliseconds.")


def _prefix(prefix: str) -> str:
    names.instance(f"{prefix}-{'0' * 2 * _RANDOM_BYTES}")
    return prefix


def _file(options: Mapping[str, Any]) -> File:
    return File(names.absolute_path(options["path"]), options["content"], options["mode"])


def _http(options: Mapping[str, Any]) -> Http:
    return Http(options["url"], options["status"], options["timeout"])


def _fingerprint(server: Server, alias: str) -> str:
    found = server.find("images", "aliases", alias)
    if found is None:
        raise CowError(f"There is no image {alias} to launch a container of. Import it first, with incus_image say.")
    return str(found.body["target"])


def _medians(runs: Sequence[Run]) -> dict[str, float]:
    return {name: statistics.median(run.phases[name] for run in runs) for name in runs[0].phases}


def _with_sums(medians: Mapping[str, float]) -> dict[str, float]:
    sums = {name: sum(medians.get(part, 0.0) for part in parts) for name, parts in SUMS.items()}
    return {**medians, **sums}


def _row(name: str, medians: Mapping[str, float], wanted: Wanted) -> dict[str, Any]:
    target = wanted.targets.get(name)
    if name not in medians:
        return {"name": name, "ms": None, "target_ms": target, "ok": target is None, "reason": _REASONS[name]}
    ms = medians[name]
    return {"name": name, "ms": round(ms, 1), "target_ms": target, "ok": _meets(ms, target), "reason": ""}


_REASONS = {
    "network": "the container has no NIC",
    "push": "there are no files to push",
    "http": "no request was asked for",
}


def _meets(ms: float, target: float | None) -> bool:
    return target is None or ms <= target


class _Interrupted(BaseException):
    """A signal asked for the end."""


_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have signals that would end the process raise, where `_listening`; elsewhere they wait."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise _Interrupted(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
        with _listening():
            pass  # what came last is heard here
    except _Interrupted as interrupted:
        raise CowError(f"The probe was ended by {interrupted}. Its container was deleted.") from interrupted
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _listening() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _launch(server: Server, wanted: Wanted) -> Run:
    name = f"{wanted.prefix}-{secrets.token_hex(_RANDOM_BYTES)}"
    phases: dict[str, float] = {}
    address = ""
    try:
        with _timed(phases, "create"):
            server.post("instances", body=_body(server, name, wanted))
        with _timed(phases, "start"):
            server.put("instances", name, "state", body={"action": "start", "timeout": -1}, etag="")
        devices = server.get("instances", name)["expanded_devices"]
        with _listening():
            if families := _families(server, devices):
                with _timed(phases, "network"):
                    address = _wait_for_address(server, name, families, wanted.network_timeout)
            if wanted.files:
                with _timed(phases, "push"):
                    _push(server, name, wanted.files)
            with _timed(phases, "reload"):
                instances.execute(server, Key("default", name), wanted.command)
            if wanted.http is not None:
                with _timed(phases, "http"):
                    _wait_for_answer(wanted.http, address)
    finally:
        server.close()  # an interrupted request leaves its answer on the connection
        with _timed(phases, "delete"):
            _delete(server, name)
    pool = next(device["pool"] for device in devices.values() if profiles.is_root(device))
    return Run(phases, address, pool)


@contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    phases[name] = (time.perf_counter() - begun) * 1000


def _body(server: Server, name: str, wanted: Wanted) -> dict[str, Any]:
    return {
        "name": name,
        "source": {"type": "image", "alias": wanted.image},
        "profiles": list(wanted.profiles),
        "config": {**wanted.config, PURPOSE: LAUNCH_PROBE},
        "devices": _devices(server, wanted),
    }


def _devices(server: Server, wanted: Wanted) -> Devices:
    """Put the root disk on the wanted pool, as what it otherwise is in the devices or in a profile."""
    if not wanted.pool:
        return wanted.devices
    found = profiles.read_all(server)
    used = [found[key] for name in wanted.profiles if (key := Key("default", name)) in found]
    inherited = {name: options for profile in used for name, options in profile.devices.items()}
    both = {**inherited, **wanted.devices}
    root = next((name for name, options in both.items() if options.get("path") == "/"), "root")
    return {**wanted.devices, root: {"type": "disk", "path": "/", **both.get(root, {}), "pool": wanted.pool}}


def _families(server: Server, devices: Devices) -> frozenset[str]:
    """Say which addresses count: IPv4 where a network has it, IPv6 where that is all it has; none without a NIC."""
    nics = [device for device in devices.values() if device["type"] == "nic"]
    found = [server.find("networks", nic["network"]) if "network" in nic else None for nic in nics]
    return frozenset(_family(network.body["config"]) if network else "inet" for network in found)


def _family(network: Mapping[str, str]) -> str:
    has_only_ipv6 = network.get("ipv4.address") == "none" and network.get("ipv6.address") not in (None, "none")
    return "inet6" if has_only_ipv6 else "inet"


def _wait_for_address(server: Server, name: str, families: frozenset[str], timeout: float) -> str:
    deadline = time.monotonic() + timeout
    while not (address := _address(server.get("instances", name, "state"), families)):
        if time.monotonic() > deadline:
            raise CowError(
                f"The container got no address within {timeout:g} s. Look at the network that its NIC is on, "
                f"and whether the image asks for one by DHCP."
            )
        time.sleep(_POLL)
    return address


def _address(state: Mapping[str, Any], families: frozenset[str]) -> str:
    interfaces = (state["network"] or {}).values()
    addresses = (one for interface in interfaces for one in interface["addresses"] if one["scope"] == "global")
    return next((str(one["address"]) for one in addresses if one["family"] in families), "")


def _push(server: Server, name: str, files: Sequence[File]) -> None:
    for file in files:
        content = file.content.encode()
        server.upload(
            *("instances", name, "files"),
            chunks=[content],
            length=len(content),
            headers={"X-Incus-type": "file", "X-Incus-mode": file.mode, "X-Incus-uid": "0", "X-Incus-gid": "0"},
            path=file.path,
        )


def _wait_for_answer(wanted: Http, address: str) -> None:
    if "{address}" in wanted.url and not address:
        raise CowError(f"The request to {wanted.url} needs the address of the container, which has no NIC.")
    url = wanted.url.replace("{address}", f"[{address}]" if ":" in address else address)
    deadline = time.monotonic() + wanted.timeout
    while (answer := _ask(url, wanted.timeout)) != str(wanted.status):
        if time.monotonic() > deadline:
            raise CowError(f"{url} did not answer {wanted.status} within {wanted.timeout:g} s; last: {answer}.")
        time.sleep(_POLL)


def _ask(url: str, timeout: float) -> str:
    """Return the status of the answer, or what went wrong."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=timeout) as response:
            return str(response.status)
    except HTTPError as error:
        return str(error.code)
    except (OSError, http.client.HTTPException) as error:
        return str(error)


def _delete_leftovers(server: Server, prefix: str) -> None:
    for url in server.get("instances"):
        name = parts(url)[-1]
        found = server.find("instances", name) if name.startswith(f"{prefix}-") else None
        if found is not None and found.body["config"].get(PURPOSE) == LAUNCH_PROBE:
            _delete(server, name)


def _delete(server: Server, name: str) -> None:
    """Stop and delete; what the server is still doing with the container is waited for."""
    deadline = time.monotonic() + _DELETE_TIMEOUT
    while (found := server.find("instances", name)) is not None:
        try:
            if found.body["status"] != "Stopped":
                server.put("instances", name, "state", body={"action": "stop", "force": True, "timeout": -1}, etag="")
            server.delete("instances", name)
        except ApiError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL)
        else:
            return
