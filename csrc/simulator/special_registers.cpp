#include "special_registers.h"

#include <array>
#include <cstring>
#include <utility>

#include "errors.h"
#include "lanes.h"
#include "world.h"

namespace openweek::simulator {
namespace {

// Shared memory of a CTA is given in steps, and the system keeps a kilobyte of it (CUDA
// programming guide, compute capability 9.0).
constexpr std::int64_t kSharedStep = 128, kReservedShared = 1024;
constexpr int kMaxWarpsOfSm = 64;

// Where a thread is, counted from the launch's first CTA.
struct ThreadPosition {
  ThreadPosition(Cta& cta, int warp, int lane) : ctaid(cta.index()), launch(cta.launch().config) {
    const int thread = warp * kLanes + lane;
    const Dim3& block = launch.block;
    tid = {thread % block[0], thread / block[0] % block[1], thread / block[0] / block[1]};
    for (int axis = 0; axis < 3; ++axis) {
      in_cluster[axis] = ctaid[axis] % launch.cluster[axis];
      clusters[axis] = launch.grid[axis] / launch.cluster[axis];
      cluster[axis] = ctaid[axis] / launch.cluster[axis];
    }
  }
  // CTAs go to SMs in turn.
  std::uint64_t sm(int rank, int num_sms) const {
    const std::uint64_t number =
        (std::uint64_t(cluster[2]) * clusters[1] + cluster[1]) * clusters[0] + cluster[0];
    return (number * product(launch.cluster) + rank) % num_sms;
  }

  const Dim3& ctaid;
  const LaunchConfig& launch;
  Dim3 tid, in_cluster, clusters, cluster;
};

std::optional<std::uint64_t> component(const std::string& name, const ThreadPosition& at) {
  const std::pair<const char*, const Dim3*> triples[] = {
      {"%tid.", &at.tid},
      {"%ntid.", &at.launch.block},
      {"%ctaid.", &at.ctaid},
      {"%nctaid.", &at.launch.grid},
      {"%clusterid.", &at.cluster},
      {"%nclusterid.", &at.clusters},
      {"%cluster_ctaid.", &at.in_cluster},
      {"%cluster_nctaid.", &at.launch.cluster},
  };
  for (const auto& [prefix, values] : triples) {
    if (name.size() != std::strlen(prefix) + 1 || !name.starts_with(prefix)) continue;
    const int axis = name.back() - 'x';
    if (axis >= 0 && axis < 3) return static_cast<std::uint64_t>((*values)[axis]);
  }
  return std::nullopt;
}

std::optional<std::uint64_t> lane_mask(const std::string& name, int lane) {
  const Mask here = Mask{1} << lane, below = here - 1;
  if (name == "%lanemask_eq") return here;
  if (name == "%lanemask_lt") return below;
  if (name == "%lanemask_le") return below | here;
  if (name == "%lanemask_gt") return ~(below | here);
  if (name == "%lanemask_ge") return ~below;
  return std::nullopt;
}

std::optional<std::uint64_t> shared_size(const std::string& name, Cta& cta) {
  const std::int64_t dynamic = cta.launch().config.dynamic_shared_bytes;
  const std::int64_t all = cta.launch().program->shared_bytes + dynamic;
  const std::int64_t total = (all + kSharedStep - 1) / kSharedStep * kSharedStep;
  if (name == "%dynamic_smem_size") return dynamic;
  if (name == "%total_smem_size") return total;
  if (name == "%aggr_smem_size") return total + kReservedShared;
  return std::nullopt;
}

// ---- clocks: they count the instructions that all warps have run ----

// The time of day at which every run begins, in nanoseconds.
constexpr std::uint64_t kBeginning = 1'700'000'000'000'000'000;

template <class Word, int kShift, std::uint64_t kOffset>
Step read_clock(Warp& warp, const Inst& inst, Mask lanes) {
  const std::uint64_t now = kOffset + warp.cta().cluster().world().report().num_instructions;
  auto* dst = warp.row<Word>(inst.dst);
  for_lanes(lanes, [&](int i) { dst[i] = static_cast<Word>(now >> kShift); });
  return Step::kNext;
}

struct ClockRegister {
  const char* name;
  Handler narrow, wide;
};
constexpr std::array<ClockRegister, 6> kClocks = {{
    {"%clock", read_clock<std::uint32_t, 0, 0>, read_clock<std::uint64_t, 0, 0>},
    {"%clock64", read_clock<std::uint32_t, 0, 0>, read_clock<std::uint64_t, 0, 0>},
    {"%clock_hi", read_clock<std::uint32_t, 32, 0>, read_clock<std::uint64_t, 32, 0>},
    {"%globaltimer", read_clock<std::uint32_t, 0, kBeginning>,
     read_clock<std::uint64_t, 0, kBeginning>},
    {"%globaltimer_lo", read_clock<std::uint32_t, 0, kBeginning>,
     read_clock<std::uint64_t, 0, kBeginning>},
    {"%globaltimer_hi", read_clock<std::uint32_t, 32, kBeginning>,
     read_clock<std::uint64_t, 32, kBeginning>},
}};

}  // namespace

std::uint64_t special_register(const LateRow& late, Cta& cta, int warp, int lane) {
  const std::string& name = late.name;
  const ThreadPosition at(cta, warp, lane);
  if (const auto value = component(name, at)) return *value;
  if (const auto value = lane_mask(name, lane)) return *value;
  if (const auto value = shared_size(name, cta)) return *value;
  const int cluster_size = product(at.launch.cluster);
  const int num_sms = cta.cluster().world().config().num_sms;
  if (name == "%laneid") return lane;
  if (name == "%warpid") return warp;
  if (name == "%nwarpid") return kMaxWarpsOfSm;
  if (name == "%smid") return at.sm(cta.rank(), num_sms);
  if (name == "%nsmid") return num_sms;
  if (name == "%gridid") return at.launch.number;
  if (name == "%cluster_ctarank") return cta.rank();
  if (name == "%cluster_nctarank") return cluster_size;
  if (name == "%is_explicit_cluster") {
    const bool is = cluster_size > 1 || !cta.launch().program->required_cluster.empty();
    return is ? kAllLanes : 0;
  }
  if (name == "%current_graph_exec") return 0;  // not in a graph
  if (name == "WARP_SZ") return kLanes;
  throw UnsupportedError("line " + std::to_string(late.value) + ": " + name +
                         ": the simulator does not know this special register");
}

Handler clock_reader(const std::string& name, int width) {
  for (const ClockRegister& clock : kClocks) {
    if (name == clock.name) return width == 8 ? clock.wide : clock.narrow;
  }
  return nullptr;
}

}  // namespace openweek::simulator
