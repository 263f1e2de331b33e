"""Golden file trees of projects, in generations, and sessions that are writable clones of them.

The rules (what is done in which order, and what is refused) are in `store.py`, once; how a tree is kept and cloned is
in a backend for each technology.
"""
