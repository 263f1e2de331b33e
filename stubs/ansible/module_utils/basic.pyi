# What Cowherd's modules use of ansible.module_utils.basic, typed.

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

class AnsibleModule:
    params: dict[str, Any]
    check_mode: bool
    tmpdir: str
    def __init__(
        self,
        argument_spec: Mapping[str, Mapping[str, Any]],
        *,
        supports_check_mode: bool = ...,
        mutually_exclusive: Sequence[Sequence[str]] | None = ...,
        required_together: Sequence[Sequence[str]] | None = ...,
        required_one_of: Sequence[Sequence[str]] | None = ...,
        required_if: Sequence[Sequence[Any]] | None = ...,
        required_by: Mapping[str, str | Sequence[str]] | None = ...,
    ) -> None: ...
    def warn(self, warning: str) -> None: ...
    def exit_json(self, **result: Any) -> NoReturn: ...
    def fail_json(self, msg: str, **result: Any) -> NoReturn: ...
