"""With this folder on PYTHONPATH, every Python imports our module_utils as part of ansible.module_utils.

ansible-lint checks the options of a module by running its argument spec, and passes over modules that it cannot import.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

with contextlib.suppress(ImportError):
    import ansible.module_utils

    ansible.module_utils.__path__.append(str(Path(__file__).parents[3] / "module_utils"))
