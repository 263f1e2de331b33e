"""Runs one module as Ansible does on a managed host: arguments from JSON on stdin, result as JSON on stdout.

A program of its own, started by `tests.support.ansible.run_module`: `python -P module_main.py FILE`.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import ansible.module_utils
from ansible.module_utils.testing import patch_module_args

ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "module_utils"))

with patch_module_args(json.load(sys.stdin)):
    runpy.run_path(sys.argv[1], run_name="__main__")
