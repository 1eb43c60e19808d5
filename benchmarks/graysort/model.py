"""How a measurement on one machine relates to the published GraySort run on fifty.

Published, with smallpond on 3FS: 110.5 TiB in 30 min 14 s on 50 compute nodes of 192 cores and one
200 Gbit/s network card, and 25 storage nodes of two 400 Gbit/s cards.

What the model says: how many core-seconds per GB that run had at its disposal, how many the sort
took here, and three times below which no such run can get: the processor time spread over all
cores, and the traffic of two passes (each reads and writes everything) through either side's
network cards, both directions at once.

What it does not say: how long a run there would take. Here is one disk with its page cache, and two
cores have the caches and the memory bandwidth that dozens share there. The client's own processor
time, the disks behind the storage nodes, replicas (each multiplies what storage receives), the
wait of the second pass for the last task of the first, and stragglers are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

DATA_GB = 110.5 * 2**40 / 1e9
WALL_S = 30 * 60 + 14
NUM_CORES = 50 * 192
CLIENT_GB_PER_S = 50 * 200 / 8
STORAGE_GB_PER_S = 25 * 2 * 400 / 8
_PASSES = 2


@dataclass(frozen=True, slots=True)
class Relation:
    """The published run beside a measurement.

    Attributes:
        published_core_s_per_gb: cores times wall time of that run, busy or not, per GB.
        measured_cpu_s_per_gb: processor time per GB here.
        cpu_bound_s: that run's data at the measured rate on all its cores, all of them busy.
        client_bound_s, storage_bound_s: two passes through the network cards of either side.
    """

    published_core_s_per_gb: float
    measured_cpu_s_per_gb: float
    cpu_bound_s: float
    client_bound_s: float
    storage_bound_s: float

    @property
    def bound_s(self) -> float:
        """The largest of the three; the published run took `WALL_S`."""
        return max(self.cpu_bound_s, self.client_bound_s, self.storage_bound_s)


def relate(measured_cpu_s_per_gb: float) -> Relation:
    """Returns the relation of a measurement to the published run."""
    return Relation(
        published_core_s_per_gb=NUM_CORES * WALL_S / DATA_GB,
        measured_cpu_s_per_gb=measured_cpu_s_per_gb,
        cpu_bound_s=measured_cpu_s_per_gb * DATA_GB / NUM_CORES,
        client_bound_s=_PASSES * DATA_GB / CLIENT_GB_PER_S,
        storage_bound_s=_PASSES * DATA_GB / STORAGE_GB_PER_S,
    )
