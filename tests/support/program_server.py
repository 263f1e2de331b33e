"""Runs Python programs in processes of their own that have Ansible and this project loaded already.

A program of its own: `python -P program_server.py DESCRIPTOR` reads orders from that socket until it is closed. An
order is a message with the command line, the environment and the folder, as JSON, and four descriptors: standard input,
output and error of the process, and one that its id is written to, and then its status as waitpid(2) gives it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import ansible.module_utils

LARGEST_ORDER = 1 << 20
LOADED = ("ansible.module_utils.basic", "ansible.module_utils.testing", "ansible.module_utils.urls")


def load() -> None:
    """Import what takes long and is the same for all programs."""
    ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "module_utils"))
    for name in LOADED:
        importlib.import_module(name)
    package = importlib.import_module("ansible.module_utils.cow")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def serve(orders: socket.socket) -> None:
    """Take orders until nobody can give any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, LARGEST_ORDER, 4)
        if not message:
            return
        if not os.fork():
            orders.close()
            os._exit(_carry_out(json.loads(message), descriptors))
        for descriptor in descriptors:
            os.close(descriptor)


def _carry_out(order: dict[str, Any], descriptors: list[int]) -> int:
    """Run the program in a child, which may end in any way, and tell of its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, told = descriptors
    child = os.fork()
    if not child:
        os.close(told)
        os._exit(_be(order, streams))
    os.write(told, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(told, f"{status}\n".encode())
    return 0


def _be(order: dict[str, Any], streams: list[int]) -> int:
    """Be a Python that was started with the command line, and return its status."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv[:] = order["argv"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return _status(end.code)
    except BaseException:  # noqa: BLE001 - as Python itself ends on any
        traceback.print_exc()
        return 1
    else:
        return 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _status(code: object) -> int:
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
