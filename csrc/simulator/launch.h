// A kernel with its arguments.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "memory.h"
#include "program.h"

namespace openweek::simulator {

using Dim3 = std::array<int, 3>;

inline int product(const Dim3& dims) { return dims[0] * dims[1] * dims[2]; }

struct MachineConfig {
  int num_devices = 1;
  int num_sms = 4;           // of a device: CTAs that are resident at a time
  std::uint64_t seed = 0;    // decides the order of all that has no order
  bool reduced_fp8 = false;  // tensor cores sum FP8 products with 14 bits
  std::uint64_t max_instructions = ~std::uint64_t{0};  // of all warps, in one run
  std::vector<Multicast> multicasts = {};
};

struct LaunchConfig {
  Dim3 grid = {1, 1, 1};
  Dim3 block = {1, 1, 1};
  Dim3 cluster = {1, 1, 1};
  std::int64_t dynamic_shared_bytes = 0;
  int device = 0;
  int registers_per_thread = 0;  // that a warp starts with; 0: as many as fit
  bool programmatic = false;     // may start before the launch before it has ended
  std::uint64_t number = 0;      // of this launch on its machine, from 1
};

struct alignas(64) ArgumentBlock {
  std::uint8_t bytes[64];
};

struct Launch {
  std::shared_ptr<const Program> program;
  LaunchConfig config;
  std::vector<ArgumentBlock> arguments;  // aligned as tensor maps have to be
  std::int64_t argument_bytes = 0;
  GlobalMemory memory;
  std::shared_ptr<void> owner;  // of the module's variables

  std::int64_t num_clusters() const {
    std::int64_t count = 1;  // a grid may have more CTAs than an int counts
    for (int axis = 0; axis < 3; ++axis) count *= config.grid[axis] / config.cluster[axis];
    return count;
  }
};

// Warps are the first agents of a cluster, CTA after CTA.
inline int num_warp_agents(const Launch& launch) {
  return (product(launch.config.block) + kLanes - 1) / kLanes * product(launch.config.cluster);
}

}  // namespace openweek::simulator
