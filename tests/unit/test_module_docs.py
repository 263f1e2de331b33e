"""Each module's documentation says what its code does: options, examples and return values."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import add_fragments

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "library").glob("*.py"))
ATTRIBUTES = {"check_mode", "diff_mode", "idempotent", "platform"}
COMPARED = {"required": False, "default": None, "choices": None, "elements": None, "aliases": []}
"""What documentation and specification have to agree on besides the type, and what leaving it out stands for."""

fragment_loader.add_directory(str(ROOT / "doc_fragments"))
pytestmark = pytest.mark.parametrize("module", [pytest.param(path, id=path.stem) for path in FILES], indirect=True)


@pytest.fixture
def module(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param)


def load(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification
    assert specification.loader
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    return loaded


def documentation(module: ModuleType) -> dict[str, Any]:
    """With what it takes from fragments, as ansible-doc shows it."""
    parsed = yaml.safe_load(module.DOCUMENTATION)
    assert isinstance(parsed, dict)
    add_fragments(parsed, str(module.__file__), fragment_loader, is_module=True)
    return parsed


def test_documentation_is_complete(module: ModuleType) -> None:
    documented = documentation(module)
    assert documented["module"] == module.__name__
    assert documented["short_description"]
    assert not documented["short_description"].endswith(".")
    assert documented["description"]
    assert documented["author"]


def test_attributes(module: ModuleType) -> None:
    attributes = documentation(module)["attributes"]
    assert set(attributes) == ATTRIBUTES
    for name, attribute in attributes.items():
        assert attribute["support"] in {"full", "partial", "none", "N/A"}, name
        assert attribute["description"], name


def test_options_are_those_of_the_specification(module: ModuleType) -> None:
    documented = documentation(module).get("options", {})
    assert outline(documented, "suboptions") == outline(module.ARGUMENTS, "options")


def test_options_are_described(module: ModuleType) -> None:
    for name, option in nested(documentation(module).get("options", {}), "suboptions"):
        assert option.get("description"), name
        assert option.get("type"), name


def test_secrets_stay_out_of_logs(module: ModuleType) -> None:
    for name, option in nested(module.ARGUMENTS, "options"):
        if any(word in name.lower() for word in ("password", "secret", "token", "passphrase")):
            assert "no_log" in option, f"{name}: say whether it is a secret"


def test_examples_pass_the_specification(module: ModuleType) -> None:
    tasks = yaml.safe_load(module.EXAMPLES)
    own = [task[module.__name__] for task in tasks if module.__name__ in task]
    assert own, "no example of the module itself"
    for task in tasks:
        assert task.get("name"), task
    for arguments in own:
        assert errors_of(module, arguments) == []


def test_examples_use_the_other_modules_as_they_are(module: ModuleType) -> None:
    by_name = {path.stem: path for path in FILES if path.stem != module.__name__}
    for task in yaml.safe_load(module.EXAMPLES):
        for name in by_name.keys() & task.keys():
            assert errors_of(load(by_name[name]), task[name]) == []


def test_return_values_are_described(module: ModuleType) -> None:
    documented = yaml.safe_load(module.RETURN)
    assert documented
    for name, value in nested(documented, "contains"):
        missing = {"type", "returned", "description"} - set(value)
        assert not missing, f"{name} lacks {', '.join(sorted(missing))}"
        assert "sample" in value or "contains" in value, f"{name} lacks a sample"
        assert value["type"] != "list" or "elements" in value, f"{name}: a list of what?"
    if "converge" in vars(module):
        assert "steps" in documented


def test_samples_have_the_type_they_are_documented_with(module: ModuleType) -> None:
    types = {"str": str, "int": int, "bool": bool, "float": (float, int), "list": list, "dict": dict}
    for name, value in nested(yaml.safe_load(module.RETURN), "contains"):
        sample = value.get("sample")
        assert sample is None or isinstance(sample, types[value["type"]]), name


def outline(options: Mapping[str, Any], inner: str) -> dict[str, Any]:
    """The options as both sides have to agree on them, nested ones under `inner`."""
    return {
        name: {
            "type": option.get("type", "str"),
            **{key: option.get(key, absent) for key, absent in COMPARED.items()},
            "inner": outline(option.get(inner) or {}, inner),
        }
        for name, option in options.items()
    }


def nested(options: Mapping[str, Any], inner: str, above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each option or return value with its full name, and those inside it."""
    for name, option in options.items():
        yield above + name, option
        yield from nested(option.get(inner) or {}, inner, f"{above}{name}.")


def errors_of(module: ModuleType, arguments: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with the arguments of a task; templates in them count as any text would."""
    rules = getattr(module, "RULES", {})
    messages: list[str] = (
        ArgumentSpecValidator(module.ARGUMENTS, **rules).validate(dict(arguments or {})).error_messages
    )
    return messages
