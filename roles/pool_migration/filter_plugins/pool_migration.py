"""What a migration would do and has done, as tables for people and as records for programs.

Each filter is a pure function from what the modules returned to a dictionary with

    title, columns, rows    the table, all of it text
    records                 the same as values, one dictionary for each row
    lines                   the table as lines of text
    work                    of a plan: name and project of the instances to do something about, in this order
    protected               of a plan: names of the instances that must not be touched
    refused                 of a plan: sentences that say why nothing may be done at all; empty when it may
"""

from __future__ import annotations

import re
import time
from calendar import timegm
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_HOUR = 3600.0
_PIN = re.compile(r"pin the root disk of (\S+) to pool ")
"""How incus_profile_pool calls the step that gives a protected instance a root disk of its own."""
_DIGITS_OF_DIGEST = 12
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")

_PLAN = ("Instance", "State", "Size", "Snapshots", "Down about", "What happens", "Not carried")
_RESULT = ("Instance", "Down", "Comparing", "Total", "Bytes", "Manifest", "Outcome")
_ROLLBACK = ("Instance", "Moved", "From", "To", "What happens")
_CLEANUP = ("Instance", "Set aside", "Move ended", "What happens")

ASK_HOW = (
    "List it in pool_migration_protected, list what is to be moved in pool_migration_names, or set "
    "pool_migration_skip_refused to move the others."
)


class FilterModule:
    """The filters, by the names that tasks use."""

    def filters(self) -> dict[str, Any]:
        """Return them."""
        return {
            "pool_migration_plan": plan,
            "pool_migration_result": result,
            "pool_migration_rollback": rollback,
            "pool_migration_cleanup": cleanup,
            "pool_migration_touched": touched,
        }


def plan(seen: Row, pool: str, from_pool: str, names: Sequence[str] = (), skip_refused: bool = False) -> dict[str, Any]:
    """Plan a migration from what incus_instance_info returned: unfinished moves first, then the smallest instances."""
    aside = {(move["project"], name): _called(move) for move in seen["moves"] for name in move["aside"]}
    active = {_key(move): move for move in seen["moves"] if _is_active(move)}
    listed = [row for row in seen["instances"] if row["pool"] == from_pool or _key(row) in active]
    records = [_planned(row, active.get(_key(row)), aside.get(_key(row), ""), pool) for row in listed]
    gone = set(active) - {_key(row) for row in listed}
    records += [_unfinished(active[key], pool) for key in sorted(gone) if _is_named(active[key], names)]
    todo = sorted((one for one in records if one["verdict"] in ("moves", "goes on")), key=_order)
    refused = [*_why_nothing(records, names, skip_refused=skip_refused), *_why_no_room(seen["space"], pool)]
    rows = [_row_of_plan(one) for one in sorted(records, key=_order)]
    title = f"{len(todo)} of {len(records)} instances would move from pool {from_pool} to {pool}"
    return {**_table(title, _PLAN, rows, records), **_of_plan(seen, todo, refused)}


def result(results: Iterable[Row]) -> dict[str, Any]:
    """Say what moves, rollbacks or removals came to, from the results of the loop over incus_instance_pool."""
    records = [_outcome(one) for one in results if "item" in one]
    rows = [
        [
            one["instance"],
            _seconds(one["downtime_seconds"]),
            _seconds(one["verify_seconds"]),
            _seconds(one["total_seconds"]),
            _size(one["bytes"]),
            one["digest"][:_DIGITS_OF_DIGEST],
            one["outcome"],
        ]
        for one in records
    ]
    return _table("What came of it", _RESULT, rows, records)


def rollback(seen: Row, names: Sequence[str] = ()) -> dict[str, Any]:
    """Plan what is put back: every move that is not undone yet and whose source is there.

    The plan has one more key: `ways`, from which pool to which the profiles go back.
    """
    moves = [move for move in seen["moves"] if _is_named(move, names)]
    records = [_to_undo(move) for move in moves]
    todo = [one for one in records if one["verdict"] == "undone"]
    rows = [[one["instance"], one["ended"], one["from_pool"], one["to_pool"], one["says"]] for one in records]
    title = f"{len(todo)} of {len(records)} moves would be undone"
    refused = _why_not_there(names, moves, "undone")
    # Part of the instances may go back while the others, and new ones, stay on the pool that they are on.
    ways = [] if names else sorted({(one["to_pool"], one["from_pool"]) for one in todo})
    back = [{"to_pool": to, "from_pool": from_pool} for to, from_pool in ways]
    return {**_table(title, _ROLLBACK, rows, records), **_of_plan(seen, todo, refused), "ways": back}


def cleanup(seen: Row, retention: float, names: Sequence[str] = (), now: float | None = None) -> dict[str, Any]:
    """Plan what is removed for good: what moves have put aside at least `retention` hours ago."""
    moves = [move for move in seen["moves"] if _is_named(move, names)]
    records = [_to_remove(move, retention, time.time() if now is None else now) for move in moves]
    todo = [one for one in records if one["verdict"] == "removed"]
    rows = [[one["instance"], ", ".join(one["aside"]), one["ended"], one["says"]] for one in records]
    title = f"What {len(todo)} of {len(records)} moves have set aside would be removed for good"
    refused = _why_not_there(names, moves, "cleaned up")
    return {**_table(title, _CLEANUP, rows, records), **_of_plan(seen, todo, refused)}


def touched(before: Sequence[Row], after: Sequence[Row], steps: Sequence[str] = ()) -> dict[str, list[str]]:
    """Compare the fingerprints of protected instances.

    Return sentences: `touched` for what nobody may have done, `said` for what a running instance does to its own files.
    steps: what was done to profiles; it pins root disks where that was asked for, which changes the configuration.
    """
    later = {_key(row): row for row in after}
    pinned = {match[1] for step in steps if (match := _PIN.match(step))}
    wrong: list[str] = []
    said: list[str] = []
    for row in before:
        name, now = _called(row), later.get(_key(row))
        if now is None:
            wrong.append(f"{name} is gone.")
            continue
        then, here = row["fingerprint"], now["fingerprint"]
        if then["configuration"] != here["configuration"] and name in pinned:
            said.append(f"{name} has a root disk of its own now, as was asked for, and so another configuration.")
        elif then["configuration"] != here["configuration"]:
            wrong.append(f"The configuration or the snapshots of {name} were changed.")
        if then["power"] != here["power"]:
            wrong.append(f"{name} was started, stopped or restarted.")
        if then["tree"] != here["tree"]:
            its_own = row["status"] == now["status"] == "Running"
            (said if its_own else wrong).append(f"The files of {name} were changed{', as it runs' if its_own else ''}.")
    return {"touched": wrong, "said": said}


def _planned(row: Row, move: Row | None, aside_of: str, pool: str) -> dict[str, Any]:
    verdict, says = _verdict(row, move, aside_of, pool)
    return {
        "instance": _called(row),
        "name": row["name"],
        "project": row["project"],
        "verdict": verdict,
        "says": says,
        "status": row["status"],
        "size_bytes": row["size_bytes"],
        "snapshots": len(row["snapshots"]),
        "snapshot_bytes": sum(one["size_bytes"] or 0 for one in row["snapshots"]),
        "expected_downtime_seconds": row["expected_downtime_seconds"],
        "not_carried": list(row["not_carried"]) if verdict in ("moves", "goes on") else [],
        "refused": list(row["refused"]),
    }


def _verdict(row: Row, move: Row | None, aside_of: str, pool: str) -> tuple[str, str]:
    """Return one of moves, goes on, stays, aside, refused, and it in words."""
    if aside_of:
        return "aside", f"stays: set aside by a move of {aside_of}"
    if row["protected"]:
        return "stays", "stays, as it is protected"
    if move is not None:
        return _verdict_of_move(move, pool)
    if row["refused"]:
        return "refused", f"refused: {' '.join(row['refused'])}"
    return "moves", "moves"


def _verdict_of_move(move: Row, pool: str) -> tuple[str, str]:
    if move["to_pool"] != pool:
        where = f"a move to pool {move['to_pool']} is not finished ({move['phase']})"
        return "refused", f"refused: {where}. Finish or undo that first."
    return "goes on", f"goes on: an earlier run was interrupted ({move['phase']})"


def _unfinished(move: Row, pool: str) -> dict[str, Any]:
    """A move whose instance has another name just now, as its run ended between two renames."""
    verdict, says = _verdict_of_move(move, pool)
    return {
        "instance": _called(move),
        "name": move["name"],
        "project": move["project"],
        "verdict": verdict,
        "says": says,
        "status": "",
        "size_bytes": move["bytes"],
        "snapshots": len(move["snapshot_digests"]),
        "snapshot_bytes": 0,
        "expected_downtime_seconds": None,
        "not_carried": [],
        "refused": [] if verdict == "goes on" else [says],
    }


def _row_of_plan(one: Row) -> list[str]:
    snapshots = f"{one['snapshots']}, {_size(one['snapshot_bytes'])}" if one["snapshots"] else ""
    down = _seconds(one["expected_downtime_seconds"]) if one["verdict"] == "moves" else ""
    return [
        one["instance"],
        one["status"],
        _size(one["size_bytes"]),
        snapshots,
        down,
        one["says"],
        "; ".join(one["not_carried"]),
    ]


def _order(one: Row) -> tuple[int, int, str]:
    """What an interrupted run has left comes first, and what stays last."""
    rank = {"goes on": 0, "moves": 1}.get(one["verdict"], 2)
    return rank, (one["size_bytes"] or 0) + one["snapshot_bytes"], one["instance"]


def _why_nothing(records: Sequence[Row], names: Sequence[str], *, skip_refused: bool) -> list[str]:
    if names:
        return [f"{one['instance']} {one['says']}" for one in records if one["verdict"] not in ("moves", "goes on")]
    refused = [one for one in records if one["verdict"] == "refused"]
    if skip_refused or not refused:
        return []
    reasons = dict.fromkeys(reason for one in refused for reason in one["refused"] or [one["says"]])
    return [*reasons, ASK_HOW]


def _why_no_room(space: Row | None, pool: str) -> list[str]:
    if space is None:
        return []
    free = min(space["free_bytes"], space["free_bytes"] if (host := space["host_free_bytes"]) is None else host)
    if space["needed_bytes"] <= free:
        return []
    need = f"All of them together need up to {_size(space['needed_bytes'])}, with {_size(free)} free for pool {pool}."
    return [f"{need} Make room there, or list some of them in pool_migration_names."]


def _why_not_there(names: Sequence[str], moves: Sequence[Row], what: str) -> list[str]:
    missing = [name for name in names if not any(_is_named(move, [name]) for move in moves)]
    return [f"There is no move of {name} that could be {what}: no journal on this host knows it." for name in missing]


def _outcome(one: Row) -> dict[str, Any]:
    move = one.get("move") or {}
    measured = move if move.get("phase") == "moved" else {}
    return {
        "instance": _called(one["item"]),
        "failed": bool(one.get("failed")),
        "changed": bool(one.get("changed")),
        "downtime_seconds": measured.get("downtime_seconds"),
        "verify_seconds": measured.get("verify_seconds"),
        "total_seconds": measured.get("total_seconds"),
        "bytes": measured.get("bytes"),
        "digest": measured.get("digest") or "",
        "kept": move.get("kept") or "",
        "outcome": _outcome_in_words(one, move),
    }


def _outcome_in_words(one: Row, move: Row) -> str:
    if one.get("failed"):
        return f"failed: {one.get('msg', '')}"
    if move.get("phase") == "moved" and move["kept"]:
        return f"moved; the source is kept as {move['kept']} on pool {move['from_pool']}"
    if move.get("phase") == "rolled_back":
        kept = f"; what ran meanwhile is kept as {', '.join(move['aside'])}" if move["aside"] else ""
        return f"back on pool {move['from_pool']}{kept}"
    return "; ".join(one.get("steps") or ()) or "nothing to do"


def _to_undo(move: Row) -> dict[str, Any]:
    verdict, says = "undone", f"goes back to pool {move['from_pool']}"
    if move["phase"] == "rolled_back":
        verdict, says = "stays", "is undone already"
    elif move["phase"] == "moved" and not move["kept"]:
        verdict, says = "stays", "cannot: its source was removed"
    elif move["phase"] == "moved":
        says += f" as it was at {move['ended']}; what was written since is kept aside"
    return {**_of_move(move), "verdict": verdict, "says": says}


def _to_remove(move: Row, retention: float, now: float) -> dict[str, Any]:
    verdict, says = "removed", "is removed for good, with snapshots and backups"
    age = (now - _parsed(move["ended"])) / _HOUR if move["ended"] else 0.0
    if _is_active(move):
        verdict, says = "stays", f"stays: its move is not finished ({move['phase']})"
    elif not move["aside"]:
        says = "its journal is forgotten"
    elif age < retention:
        verdict, says = "stays", f"stays for {retention - age:.1f} hours more (pool_migration_retention)"
    return {**_of_move(move), "verdict": verdict, "says": says}


def _of_move(move: Row) -> dict[str, Any]:
    return {
        "instance": _called(move),
        "name": move["name"],
        "project": move["project"],
        **{key: move[key] for key in ("phase", "from_pool", "to_pool", "aside", "ended")},
    }


def _of_plan(seen: Row, todo: Iterable[Row], refused: list[str]) -> dict[str, Any]:
    """What a plan has besides its table."""
    return {
        "work": [{"name": one["name"], "project": one["project"]} for one in todo],
        "protected": [_called(row) for row in seen["instances"] if row["protected"]],
        "refused": refused,
    }


def _is_active(move: Row) -> bool:
    return move["phase"] not in ("moved", "rolled_back")


def _is_named(row: Row, names: Sequence[str]) -> bool:
    return not names or _called(row) in names or f"{row['project']}/{row['name']}" in names


def _key(row: Row) -> tuple[str, str]:
    return row["project"], row["name"]


def _called(row: Row) -> str:
    return str(row["name"]) if row["project"] == "default" else f"{row['project']}/{row['name']}"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], records: Sequence[Row]) -> dict[str, Any]:
    widths = [max(len(line[number]) for line in (columns, *rows)) for number in range(len(columns))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in (columns, *rows)] if rows else []
    return {
        "title": title,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "records": [dict(one) for one in records],
        "lines": [f"{title}.", *lines],
    }


def _parsed(text: str) -> float:
    return timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def _seconds(amount: float | None) -> str:
    return "" if amount is None else f"{amount:.1f} s"


def _size(size: int | None) -> str:
    if size is None:
        return ""
    amount, unit = float(size), "B"
    for larger in _UNITS:
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.3g} {unit}"
