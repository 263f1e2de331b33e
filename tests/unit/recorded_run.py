"""Events of a real run of a small playbook, in which hosts end in every way that there is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cowherd.playbooks import play
from cowherd.progress import Event

MODULE = """
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule({"refuse": {"type": "bool"}, "crash": {"type": "bool"}}, supports_check_mode=True)
module.warn("The pool is on dir. Make a second one.")
if module.params["refuse"]:
    module.fail_json(msg="The device /dev/sdx has ext4 on it. Name an empty one.")
if module.params["crash"]:
    raise ValueError("not foreseen")
module.exit_json(changed=True, steps=["create pool fast", "set size of fast"])
"""

PLAYBOOK = """
- name: Prepare hosts
  hosts: all
  tasks:
    - name: Make the pool
      make_pool:
    - block:
        - name: Try
          ansible.builtin.fail:
            msg: not so bad
      rescue:
        - name: Try in another way
          ansible.builtin.debug:
    - name: Do without
      ansible.builtin.command: "false"
      changed_when: false
      ignore_errors: true
    - name: Refuse
      make_pool:
        refuse: true
      when: inventory_hostname == "refusing"
    - name: Crash
      make_pool:
        crash: true
      when: inventory_hostname == "crashing"
    - name: Loop
      ansible.builtin.assert:
        that: item == "good"
        fail_msg: "{{ item }} is bad."
      loop: [one, good, two, two]
      when: inventory_hostname == "looping"
    - name: Look
      ansible.builtin.command: ls /nonexistent
      when: inventory_hostname == "looking"
    - name: Hide
      make_pool:
        refuse: true
      no_log: true
      when: inventory_hostname == "hiding"
    - name: Be silent
      ansible.builtin.command: "true"
    - name: Hand over what was found
      ansible.builtin.set_stats:
        data:
          cowherd: "{{ {inventory_hostname: found} }}"
      vars:
        found:
          driver: btrfs
          source: /var/lib/incus/disks/fast.img
          size_bytes: 5368709120
          used_bytes: null
          can_clone: true
          phases:
            - {name: create, ms: 65.2, target_ms: 1000}
            - {name: delete, ms: 80, target_ms: null}
          warnings: [Quotas can be escaped.]
      when: inventory_hostname == "good"
"""

INVENTORY = """
all:
  vars:
    ansible_connection: local
    ansible_python_interpreter: /usr/bin/python3
  hosts:
    good:
    plain:
    refusing:
    crashing:
    looping:
    looking:
    hiding:
    away:
      ansible_connection: ssh
      ansible_host: 127.0.0.1
      ansible_port: 1
      # With it, Ansible now and then writes to an ssh that is about to end, and then tells of that instead of why.
      ansible_ssh_pipelining: false
"""


@dataclass(frozen=True)
class Recording:
    """The events in their order, and the exit status."""

    events: tuple[Event, ...]
    status: int


def record(folder: Path, *arguments: str) -> Recording:
    """Run the playbook over all hosts."""
    (folder / "library").mkdir(exist_ok=True)
    for name, text in {"library/make_pool.py": MODULE, "site.yml": PLAYBOOK, "hosts.yml": INVENTORY}.items():
        (folder / name).write_text(text)
    events: list[Event] = []
    status = play(folder / "site.yml", ["--inventory", str(folder / "hosts.yml"), *arguments], events.append)
    return Recording(tuple(events), status)
