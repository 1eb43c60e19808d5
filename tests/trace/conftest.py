"""Fixtures of the trace tests."""

from tests.trace.browser import chromium, open_page

__all__ = ["chromium", "open_page"]
