"""Fixtures of the report's tests."""

from tests.trace.browser import chromium

__all__ = ["chromium"]
