"""Expert-parallel all-to-all: tokens travel to the ranks of their experts and back.

`Buffer(group)` on every rank, then `get_dispatch_layout`, `dispatch`, the experts, `combine`. CPU
tensors travel over any torch.distributed gloo group.
"""

import sys

from deepep import events
from deepep.buffer import Buffer
from deepep.config import Config, topk_idx_t
from deepep.events import EventHandle, EventOverlap

__all__ = [
    "Buffer",
    "Config",
    "EventHandle",
    "EventOverlap",
    "install_as_deep_ep",
    "topk_idx_t",
]


def install_as_deep_ep() -> None:
    """Make `import deep_ep` and `from deep_ep.utils import EventOverlap` mean this package.

    Call it before the importing code runs. A `deep_ep` that is imported already is replaced in
    `sys.modules`; names taken from it earlier stay what they are.
    """
    package = sys.modules[__name__]
    # `deep_ep.utils.EventOverlap` by attribute, too.
    package.utils = events  # type: ignore[attr-defined]
    sys.modules["deep_ep"] = package
    sys.modules["deep_ep.utils"] = events
