"""`cow-session`: sessions of golden trees for services that make them at run time.

Prints one JSON document on standard output, also on failure ({"error": a word, "msg": a sentence}).
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import Busy, CowError
from .model import BACKENDS
from .refusals import InUse, Refusal
from .start import SERVED, first_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .model import Session
    from .store import Store

    Result = tuple[dict[str, Any], int]

CONFIGURATION = "/etc/cowherd/golden.json"
OPTIONS = ("store", "backend", "expect", "reserve", "keep", "volume_size", "grace")
"""What the configuration may set, and an option of the command line overrides."""
_NUMBERS, _SIZES = ("keep", "grace"), ("reserve", "volume_size")
_BACKENDS = {"backend": ("auto", *BACKENDS), "expect": BACKENDS}
STATUSES = """\
exit status:
  0  done, also where nothing was left to do
  1  refused or failed; "msg" says why
  2  the command line cannot be understood
  3  there is no such project, generation or session
  4  there is one already, or its path is taken
  5  it is in use: mounted and busy, has sessions, or another run is changing it
  6  the store has less free space than is to be kept
  7  garbage collection failed for some, and went on with the others
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Of one width: to ask how wide the terminal is takes longer than a clone, and parsers always ask."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=_Help)


@functools.cache
def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line, or of that with one command, which is ready sooner."""
    top = _Parser(
        prog="cow-session", description="Clones golden file trees for sessions. Prints JSON.", epilog=STATUSES
    )
    top.add_argument("--config", default=CONFIGURATION, metavar="FILE", help=f"JSON object of {', '.join(OPTIONS)}")
    top.add_argument("--store", help="folder, or ZFS dataset as POOL/NAME")
    top.add_argument("--backend", choices=_BACKENDS["backend"], help="how trees are kept (auto)")
    top.add_argument("--expect", choices=_BACKENDS["expect"], help="fail when it comes to another backend")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", prog="cow-session", parser_class=_Parser
    )
    for name, command in _COMMANDS.items():
        if only in (None, name):
            command.declare(commands.add_parser(name, help=command.text))
    return top


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Where it has a command and asks for no help, the parsers of others are not made."""
    word = None if {"-h", "--help"} & {*argv} else first_word(argv)
    return parser(word if word in _COMMANDS else None).parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parsed(sys.argv[1:] if argv is None else argv)
    try:
        settings = _settings(options)
        result, status = _COMMANDS[options.command].run(options, settings)
    except CowError as error:
        result, status = _failure(error)
    except OSError as error:
        result, status = {"error": "refused", "msg": f"The system refused: {error}"}, 1
    if sys.stdout:  # None when it was closed from the beginning
        sys.stdout.write(json.dumps(result) + "\n")
    return status


def _positional(command: argparse.ArgumentParser, *names: str, nargs: str | None = None) -> None:
    for name in names:
        command.add_argument(name, nargs=nargs)


def _clone_options(command: argparse.ArgumentParser) -> None:
    _positional(command, "project", "session")
    command.add_argument("--at", metavar="PATH", help="where to mount it: an empty folder, or nothing yet")
    command.add_argument("--generation", type=int, metavar="N", help="clone this generation and not the current one")
    command.add_argument("--reserve", metavar="SIZE", help="free space at or under which it is refused (2%%)")


def _clone(options: argparse.Namespace, settings: Mapping[str, Any]) -> Result:
    session = _store(settings).clone(
        options.project,
        options.session,
        path=options.at,
        generation=options.generation,
        reserve=settings["reserve"],
    )
    return {"project": options.project, **_session(session)}, 0


def _promote_options(command: argparse.ArgumentParser) -> None:
    _positional(command, "project")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("session", nargs="?")
    what.add_argument("--source", metavar="FOLDER")
    command.add_argument("--keep", type=int, metavar="N", help="complete generations to keep (3)")
    command.add_argument("--volume-size", metavar="SIZE", help="of the first volume with the backend zvol (100GiB)")


def _promote(options: argparse.Namespace, settings: Mapping[str, Any]) -> Result:
    from . import resource  # noqa: PLC0415

    asked = {"project": options.project, "state": "present", "generation": None, "keep": settings["keep"]}
    wanted = resource.WantedCache.of({**asked, "source": options.source, "session": options.session})
    store = _store(settings)
    # What is warned of is in not_removed.
    planned = resource.plan_cache(resource.observe_cache(store, wanted), wanted, store, warn=lambda _: None)
    for step in planned.steps:
        step.run()
    found = resource.describe_cache(resource.FoundCache(store.project(options.project)), store)
    done = {"changed": bool(planned.steps), "steps": planned.titles, **found, **planned.facts}
    return {"project": options.project, **done}, 0


def _destroy_options(command: argparse.ArgumentParser) -> None:
    _positional(command, "project", "session")


def _destroy(options: argparse.Namespace, settings: Mapping[str, Any]) -> Result:
    _store(settings).destroy(options.project, options.session)
    return {"project": options.project, "name": options.session, "destroyed": True}, 0


def _list_options(command: argparse.ArgumentParser) -> None:
    _positional(command, "project", nargs="?")
    command.add_argument("--no-sizes", action="store_true", help="do not measure, which looks at each file")


def _list(options: argparse.Namespace, settings: Mapping[str, Any]) -> Result:
    from . import views  # noqa: PLC0415

    return views.listed(_store(settings), options.project, sizes=not options.no_sizes), 0


def _collect_options(command: argparse.ArgumentParser) -> None:
    _positional(command, "project", nargs="?")
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    command.add_argument("--keep", type=int, metavar="N", help="complete generations to keep (3)")
    command.add_argument(
        "--grace", type=int, metavar="SECONDS", help="spare what was superseded, and sessions begun, within (3600)"
    )


def _collect(options: argparse.Namespace, settings: Mapping[str, Any]) -> Result:
    from . import collect  # noqa: PLC0415

    report = collect.collect(
        _store(settings),
        options.project,
        keep=settings["keep"],
        grace=settings["grace"],
        dry_run=options.dry_run,
    )
    return report, 7 if report["failed"] else 0


def _mount_options(command: argparse.ArgumentParser) -> None:
    _positional(command, "project", "session", nargs="?")


def _mount(options: argparse.Namespace, settings: Mapping[str, Any]) -> Result:
    """Mount one session, or all that are complete; a failure at one does not keep the others from being mounted."""
    store = _store(settings)
    if options.session:
        return {"mounted": [_session(store.mount(options.project, options.session))], "failed": []}, 0
    mounted, failed = [], []
    for project in [options.project] if options.project else store.backend.projects():
        try:
            sessions = [each.name for each in store.project(project).sessions if each.state == "complete"]
        except (CowError, OSError) as error:
            if options.project:
                raise
            failed.append({"what": f"project {project}", "msg": str(error)})
            continue
        for name in sessions:
            try:
                mounted.append(_session(store.mount(project, name)))
            except (CowError, OSError) as error:
                failed.append({"what": f"session {name} of {project}", "msg": str(error)})
    return {"mounted": mounted, "failed": failed}, 1 if failed else 0


def _trim(options: argparse.Namespace, settings: Mapping[str, Any]) -> Result:  # noqa: ARG001
    """Trim one after the other; a failure at one does not keep the others from being trimmed."""
    from .. import kernel  # noqa: PLC0415

    trimmed, failed = [], []
    for path in _store(settings).backend.trimmable():
        try:
            trimmed.append({"path": str(path), "bytes": kernel.trim(path)})
        except OSError as error:
            failed.append({"what": str(path), "msg": str(error)})
    return {"trimmed": trimmed, "failed": failed}, 1 if failed else 0


def _serve(options: argparse.Namespace, settings: Mapping[str, Any]) -> Result:  # noqa: ARG001
    """Load all that a command may need, and wait for commands."""
    import importlib  # noqa: PLC0415
    import pkgutil  # noqa: PLC0415

    from . import forkserver  # noqa: PLC0415

    package = __name__.removesuffix(".golden.cli")
    for part in pkgutil.walk_packages(sys.modules[package].__path__, f"{package}."):
        importlib.import_module(part.name)
    for library in ("shlex", "shutil", "subprocess"):  # which are loaded where they are needed
        importlib.import_module(library)
    for command in SERVED:
        parser(command)
    return {"asked": forkserver.serve(main)}, 0


@dataclass(frozen=True)
class _Command:
    """What it is, in a few words; what it is given; and what it does."""

    text: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Mapping[str, Any]], Result]


_COMMANDS = {
    "clone": _Command("make a session from the current generation", _clone_options, _clone),
    "promote": _Command("make a session or a folder the next generation", _promote_options, _promote),
    "destroy": _Command("unmount a session and destroy what was written in it", _destroy_options, _destroy),
    "list": _Command("list projects, generations and sessions, and what they take", _list_options, _list),
    "gc": _Command("finish what was interrupted, remove superseded generations", _collect_options, _collect),
    "mount": _Command("mount sessions again, as after a reboot", _mount_options, _mount),
    "serve": _Command("run clone and destroy for others, quicker; systemd starts it", _positional, _serve),
    "trim": _Command("have what was freed in the store's file systems given back to their devices", _positional, _trim),
}


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Combine what is usual, what the configuration says, and what the command line says."""
    settings: dict[str, Any] = {"config": options.config, "backend": "auto", "reserve": "2%", "keep": 3, "grace": 3600}
    settings.update(_configuration(options.config))
    given = {key: getattr(options, key, None) for key in OPTIONS}
    settings.update({key: value for key, value in given.items() if value is not None})
    return settings


def _configuration(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            read = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CowError(f"{path} is not JSON: {error}. Write an object of {', '.join(OPTIONS)}.") from error
    if not isinstance(read, dict) or (unknown := set(read) - set(OPTIONS)):
        what = f"has {', '.join(sorted(unknown))}" if isinstance(read, dict) else "is not an object"
        raise CowError(f"{path} {what}. Write an object of {', '.join(OPTIONS)}.")
    for key, value in read.items():
        _require_value(path, key, value)
    return read


def _require_value(path: str, key: str, value: object) -> None:
    """Refuse what an option of the command line could not be either."""
    if key in _NUMBERS:
        fits, wanted = type(value) is int, "a whole number, without quotes"
    elif key in _BACKENDS:
        fits, wanted = value in _BACKENDS[key], f"one of {', '.join(_BACKENDS[key])}"
    elif key in _SIZES:
        fits, wanted = isinstance(value, str) or type(value) is int, "a size, as a text in quotes"
    else:
        fits, wanted = isinstance(value, str), "a text in quotes"
    if not fits:
        raise CowError(f"{path} has {key}: {json.dumps(value)}. Write {wanted}.")


def _store(settings: Mapping[str, Any]) -> Store:
    if not settings.get("store"):
        raise CowError(f"Which store is not said. Give --store, or write it to {settings['config']}.")
    from .stores import opened  # noqa: PLC0415

    return opened(settings)


def _session(session: Session) -> dict[str, Any]:
    from .views import session as described  # noqa: PLC0415

    return described(session)


def _failure(error: CowError) -> Result:
    """Tell why in a word, a sentence and an exit status."""
    if isinstance(error, Busy):
        return {"error": InUse.reason, "msg": str(error)}, InUse.status
    if isinstance(error, Refusal):
        return {"error": error.reason, "msg": str(error)}, error.status
    return {"error": Refusal.reason, "msg": str(error)}, Refusal.status
