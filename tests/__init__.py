"""Cowherd's tests."""
