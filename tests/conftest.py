"""Makes the modules importable as Ansible imports them: our module_utils are part of ansible.module_utils."""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).parents[1] / "module_utils"))
