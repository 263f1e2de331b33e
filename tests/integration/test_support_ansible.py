"""Modules and playbooks run as Ansible runs them, and the four-run pattern notices what it is there to notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.ansible import four_runs, run_module, run_playbook

MODULE = """\
from pathlib import Path
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.plan import Plan, Step, converge

module = AnsibleModule({"path": {"type": "path", "required": True}}, supports_check_mode=True)
path = Path(module.params["path"])
DECEIVE
converge(
    module,
    observe=path.exists,
    plan=lambda exists: Plan() if exists else Plan.of(Step(f"create {path}", path.touch, None, {"path": str(path)})),
)
"""

PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Say
      ansible.builtin.debug:
        msg: "{{ word }}"
    - name: Make
      ansible.builtin.file:
        path: "{{ folder }}"
        state: directory
"""


def library(folder: Path, deceive: str = "") -> Path:
    """A folder with the module "touch"."""
    (folder / "touch.py").write_text(MODULE.replace("DECEIVE", deceive))
    return folder


def test_four_runs_of_an_honest_module(tmp_path: Path) -> None:
    target = tmp_path / "file"
    runs = four_runs("touch", {"path": str(target)}, state=target.exists, library=library(tmp_path))
    assert runs.check["steps"] == [f"create {target}"]
    assert runs.again["steps"] == []
    assert target.exists()


@pytest.mark.parametrize(
    ("deceive", "noticed"),
    [
        ("if module.check_mode: path.touch()", "changed False"),
        ("if module.check_mode: path.with_name('other').touch()", "wrote in check mode"),
        ("path.unlink(missing_ok=True)", "changed True, wanted False"),
        ("if module.check_mode: path = path.with_name('else')", "other steps"),
        ("raise ValueError('a bug')", "a bug"),
    ],
)
def test_four_runs_of_a_deceiving_module(tmp_path: Path, deceive: str, noticed: str) -> None:
    target = tmp_path / "work" / "file"
    target.parent.mkdir()
    with pytest.raises(AssertionError, match=noticed):
        four_runs(
            "touch",
            {"path": str(target)},
            state=lambda: sorted(target.parent.iterdir()),
            library=library(tmp_path, deceive),
        )


def test_module_refuses_bad_input(tmp_path: Path) -> None:
    result = run_module("touch", {"path": "x", "pth": "x"}, library=library(tmp_path))
    assert result["failed"]
    assert "pth" in result["msg"]


def test_playbook_run_is_recorded(tmp_path: Path) -> None:
    playbook, inventory, folder = tmp_path / "play.yml", tmp_path / "hosts.ini", tmp_path / "made"
    playbook.write_text(PLAYBOOK)
    inventory.write_text("localhost ansible_connection=local\n")
    variables = {"word": "hello", "folder": str(folder)}
    check = run_playbook(playbook, inventory, variables=variables, check=True).succeeded()
    assert check.changed == {"localhost": 1}
    assert not folder.exists()
    run = run_playbook(playbook, inventory, variables=variables).succeeded()
    assert run.changed == {"localhost": 1}
    assert folder.is_dir()
    assert [(task.task, task.status) for task in run.tasks] == [("Say", "ok"), ("Make", "ok")]
    assert run.tasks[0].result["msg"] == "hello"
    assert run_playbook(playbook, inventory, variables=variables).changed == {"localhost": 0}
    assert run_playbook(playbook, inventory).status != 0
