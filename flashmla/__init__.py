"""Multi-head latent attention for decoding, over a paged cache."""

from flashmla.decode import flash_mla_with_kvcache
from flashmla.dropin import install_as_flash_mla
from flashmla.metadata import FlashMLASchedMeta, get_mla_metadata

__all__ = [
    "FlashMLASchedMeta",
    "flash_mla_with_kvcache",
    "get_mla_metadata",
    "install_as_flash_mla",
]
