"""Where replicas can live: GPUs, the node of each, and how many experts fit on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Topology:
    """GPUs in nodes, each with room for some replicas of experts (slots).

    Slots are numbered GPU by GPU: GPU g has the slots `first_slots[g]` up to `first_slots[g + 1]`.
    A GPU that has failed keeps its number and has no slots.

    Attributes:
        slots: [num_gpus] how many replicas each GPU holds, per layer; 0 for one that has failed.
        node_of: [num_gpus] the node of each GPU, counted from 0.
        num_groups: into how many groups of neighbouring experts the router divides the experts
            (`n_group` of DeepSeek-V3); the hierarchical policy keeps a group inside one node.

    Raises:
        ValueError: if the lengths differ, a number is negative or no GPU has a slot.
    """

    slots: tuple[int, ...]
    node_of: tuple[int, ...]
    num_groups: int = 1

    def __post_init__(self) -> None:
        if len(self.node_of) != len(self.slots):
            raise ValueError(
                f"Topology: node_of must have one entry for each of the {len(self.slots)} GPUs in "
                f"slots, got {len(self.node_of)}"
            )
        for name, numbers in (("slots", self.slots), ("node_of", self.node_of)):
            if any(number < 0 for number in numbers):
                raise ValueError(f"Topology: {name} must not be negative, got {min(numbers)}")
        if sum(self.slots) == 0:
            raise ValueError("Topology: some GPU must have a slot, got none in slots")
        if self.num_groups < 1:
            raise ValueError(f"Topology: num_groups must be at least 1, got {self.num_groups}")

    @classmethod
    def regular(
        cls, num_gpus: int, num_replicas: int, num_nodes: int = 1, num_groups: int = 1
    ) -> Topology:
        """Equal nodes, and slots spread as evenly as they go: the first GPUs get what is over.

        >>> Topology.regular(num_gpus=3, num_replicas=8).slots
        (3, 3, 2)

        Raises:
            ValueError: if `num_gpus` is not a multiple of `num_nodes`, or a number is not positive.
        """
        sizes = {"num_gpus": num_gpus, "num_replicas": num_replicas, "num_nodes": num_nodes}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"Topology: {name} must be at least 1, got {value}")
        if num_gpus % num_nodes:
            raise ValueError(
                f"Topology: num_gpus must be a multiple of num_nodes, got {num_gpus} GPUs on "
                f"{num_nodes} nodes (give slots and node_of for nodes of different sizes)"
            )
        each, over = divmod(num_replicas, num_gpus)
        slots = tuple(each + (gpu < over) for gpu in range(num_gpus))
        gpus_per_node = num_gpus // num_nodes
        return cls(slots, tuple(gpu // gpus_per_node for gpu in range(num_gpus)), num_groups)

    @property
    def num_gpus(self) -> int:
        return len(self.slots)

    @property
    def num_slots(self) -> int:
        return sum(self.slots)

    @property
    def num_nodes(self) -> int:
        """How many nodes have a number, those without a working GPU included."""
        return 1 + max(self.node_of)

    @property
    def alive(self) -> tuple[int, ...]:
        """The GPUs that have slots."""
        return tuple(gpu for gpu, slots in enumerate(self.slots) if slots)

    @property
    def first_slots(self) -> tuple[int, ...]:
        """[num_gpus + 1] the first slot of each GPU, then the number of slots."""
        return (0, *accumulate(self.slots))

    @property
    def gpu_of_slot(self) -> tuple[int, ...]:
        """[num_slots] the GPU of each slot."""
        return tuple(gpu for gpu, slots in enumerate(self.slots) for _ in range(slots))

    def without(self, failed: Iterable[int]) -> Topology:
        """The same GPUs, where those in `failed` have no slots any more.

        Raises:
            ValueError: if a GPU does not exist, or none is left.
        """
        gone = set(failed)
        for gpu in gone:
            if not 0 <= gpu < self.num_gpus:
                raise ValueError(
                    f"Topology.without: failed must be GPUs from 0 to {self.num_gpus - 1}, "
                    f"got {gpu}"
                )
        slots = tuple(0 if gpu in gone else slots for gpu, slots in enumerate(self.slots))
        return replace(self, slots=slots)
