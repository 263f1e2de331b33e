"""The options that describe each kind of resource: those of its own module, and of an entry in a preseed."""

from __future__ import annotations

from typing import Any

NETWORK: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "choices": ["bridge", "macvlan", "sriov", "ovn", "physical"], "default": "bridge"},
    "config": {"type": "dict", "default": {}},
    "description": {"type": "str"},
}
STORAGE_POOL: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "driver": {"type": "str", "default": "auto"},
    "source": {"type": "str"},
    "device": {"type": "path"},
    "path": {"type": "path"},
    "dataset": {"type": "str"},
    "size": {"type": "str"},
    "config": {"type": "dict", "default": {}},
    "description": {"type": "str"},
    "recreate_empty": {"type": "bool", "default": False},
    "drift": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
}
PROFILE: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "project": {"type": "str", "default": "default"},
    "config": {"type": "dict", "default": {}},
    "devices": {"type": "dict", "default": {}},
    "fallback_devices": {"type": "dict", "default": {}},
    "remove_devices": {"type": "list", "elements": "str", "default": []},
    "description": {"type": "str"},
    "drift": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
}
