"""Cowherd's front end: runs the playbooks, shows what happens in words and one table, and runs the tests.

It adds no behaviour to the playbooks: `ansible-playbook site.yml` does the same without it.
"""
