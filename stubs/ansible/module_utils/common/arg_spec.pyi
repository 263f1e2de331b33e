# What Cowherd's modules use of ansible.module_utils.common.arg_spec, typed.

from collections.abc import Mapping
from typing import Any

class ValidationResult:
    @property
    def error_messages(self) -> list[str]: ...
    @property
    def validated_parameters(self) -> dict[str, Any]: ...

class ArgumentSpecValidator:
    def __init__(self, argument_spec: Mapping[str, Mapping[str, Any]]) -> None: ...
    def validate(self, parameters: Mapping[str, Any]) -> ValidationResult: ...
