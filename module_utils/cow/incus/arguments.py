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
IMAGE: dict[str, Any] = {
    "alias": {"type": "str", "required": True},
    "project": {"type": "str", "default": "default"},
    "pools": {"type": "list", "elements": "str", "default": []},
    "remote": {
        "type": "dict",
        "options": {
            "server": {"type": "str", "required": True},
            "protocol": {"type": "str", "choices": ["simplestreams", "incus"], "default": "simplestreams"},
            "alias": {"type": "str"},
            "fingerprint": {"type": "str"},
            "certificate": {"type": "str"},
            "auto_update": {"type": "bool"},
        },
        "mutually_exclusive": [["alias", "fingerprint"]],
        "required_one_of": [["alias", "fingerprint"]],
    },
    "url": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "checksum": {"type": "str", "required": True},
            "metadata_url": {"type": "str"},
            "metadata_checksum": {"type": "str"},
        },
        "required_together": [["metadata_url", "metadata_checksum"]],
    },
    "files": {
        "type": "dict",
        "options": {"path": {"type": "path"}, "metadata": {"type": "path"}, "rootfs": {"type": "path"}},
        "mutually_exclusive": [["path", "metadata"], ["path", "rootfs"]],
        "required_together": [["metadata", "rootfs"]],
        "required_one_of": [["path", "metadata"]],
    },
    "rootfs": {"type": "dict", "options": {"path": {"type": "path", "required": True}}},
    "debian": {
        "type": "dict",
        "options": {
            "release": {"type": "str"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "variant": {"type": "str", "choices": ["minbase", "important", "standard"], "default": "important"},
            "mirror": {"type": "str"},
        },
    },
}
