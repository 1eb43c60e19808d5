"""Where prefill leaves the pages of the latent cache, and decode finds them."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from benchmarks.end_to_end.run_folder import RunFolder


class PageStore(Protocol):
    """Pages by key; what is put can be read by every process."""

    def put(self, key: str, page: Tensor) -> None:
        """Keeps a contiguous bf16 tensor."""

    def get(self, key: str) -> Tensor:
        """The tensor that was put, flat. Raises KeyError if there is none."""


class FilePageStore:
    """One plain file per page in a run's folder."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def put(self, key: str, page: Tensor) -> None:
        """Writes the page; a reader sees all of it or none."""
        raw = page.contiguous().view(torch.uint8).numpy()
        self._folder.write(f"{key}.page", lambda file: file.write(raw.data))

    def get(self, key: str) -> Tensor:
        """Reads the page."""
        path = self._folder.path / f"{key}.page"
        try:
            raw = bytearray(path.read_bytes())
        except FileNotFoundError:
            raise KeyError(key) from None
        return torch.frombuffer(raw, dtype=torch.bfloat16)


def page_key(model_key: str, tokens: Sequence[int]) -> str:
    """The key of the page that ends with these tokens.

    A row of the cache depends on all tokens before it, so the key does too; requests that begin
    alike then share pages.
    """
    return hashlib.sha256(model_key.encode() + b"/" + bytes(tokens)).hexdigest()
