"""Debian machines for tests: a disk is built once, the booted machine saved, and each run resumes it in seconds.

    python -m tests.support.vm up FOLDER      prints how Ansible reaches the machine, as JSON
    python -m tests.support.vm down FOLDER

Needs root (mmdebstrap keeps owners) and what tests/packages.txt lists.
"""
