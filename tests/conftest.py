"""Makes the modules importable as Ansible imports them: our module_utils are part of ansible.module_utils.

No example of Hypothesis fails for the time that it takes: the machine may have other work. In CI the examples are the
same each time, so that a change fails for what it does; elsewhere they are new ones.
"""

from __future__ import annotations

import os
from pathlib import Path

import ansible.module_utils
import hypothesis

ansible.module_utils.__path__.append(str(Path(__file__).parents[1] / "module_utils"))

hypothesis.settings.register_profile("cowherd", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("cowherd")
