// Which tile of D a cluster computes next: one walk for dense and for grouped products.
//
// The grid is persistent: cluster c takes turns c, c + number of clusters, ... Producer and
// consumers each walk by themselves and see the same tiles, for nobody changes what the walk reads.
#pragma once

#include "deepgemm/params.h"

namespace openweek::deepgemm {

// How the groups of a grouped product lie; `layout` is the problem's.
enum class Grouping {
  kDense,   // one product, no layout
  kRowMap,  // layout[row]: the group of a row of A and D, or -1; one group in kGroupAlignment rows
  kPrefixSum,  // layout[g]: the row behind group g; the next begins at a multiple of
               // kGroupAlignment
  kMasked,     // A [groups, m, k] and D [groups, m, n]: layout[g] rows of a group count
  kAlongK,     // D [groups, m, n]: the columns of A and B are split, layout[g] for each
};
constexpr int kGroupAlignment = 128;

// What the two CTAs of a cluster load for both.
enum class Share {
  kNothing,  // no cluster
  kA,        // they compute neighbours along n
  kB,        // along m
};
constexpr int cluster_size(Share share) { return share == Share::kNothing ? 1 : 2; }

// For extent >= 0; extent + block could overflow.
constexpr int32_t num_blocks(int32_t extent, int32_t block) {
  return extent / block + (extent % block != 0);
}

struct Place {
  int32_t row;
  int32_t column;
};

// The order of the places in a grid: bands of 8 rows run along the rows, then on to the next
// column, so that what all clusters read at one time stays in L2.
constexpr Place place_of_turn(int32_t turn, int32_t num_rows, int32_t num_columns) {
  constexpr int32_t kBand = 8;
  const int32_t first = turn / (kBand * num_columns) * kBand;
  const int32_t height = num_rows - first < kBand ? num_rows - first : kBand;
  const int32_t within = turn - first * num_columns;
  return {first + within % height, within / height};
}

struct Tile {
  int32_t group;    // of all that has groups; -1: of no row here, D is zero
  int32_t row;      // the first of A and D, within the group where those have groups
  int32_t column;   // the first of D
  int32_t first_k;  // where the columns of the group begin in those of all groups
  int32_t size_k;   // columns of A and B to sum over; 0 for group -1
};

// Whether a row of D that the tensor has holds a sum; else it is padding, and zero.
template <Grouping kGrouping>
__device__ bool is_of_group(const Problem& problem, const Tile& tile, int32_t row) {
  if (row >= problem.m) return true;  // nobody stores it
  if constexpr (kGrouping == Grouping::kRowMap) return problem.layout[row] >= 0;
  if constexpr (kGrouping == Grouping::kPrefixSum) {
    return tile.group >= 0 && row < problem.layout[tile.group];
  }
  return true;
}

// The last tiles may reach beyond m or n, and of a cluster one CTA's wholly: TMA reads zeros there
// and stores nothing.
template <Grouping kGrouping, int kBlockM, int kBlockN, Share kShare>
class TileScheduler {
  static_assert(kGrouping == Grouping::kDense || kShare != Share::kB ||
                    kGrouping == Grouping::kMasked || kGrouping == Grouping::kAlongK,
                "neighbours along m may be of two groups");

 public:
  // `ctas_per_turn`: of a cluster that works on the same tile together, if it shares nothing.
  __device__ explicit TileScheduler(const Problem& problem, uint32_t rank = 0,
                                    uint32_t ctas_per_turn = cluster_size(kShare))
      : problem_(problem),
        rank_(static_cast<int32_t>(rank)),
        turn_(blockIdx.x / ctas_per_turn),
        turns_at_a_time_(gridDim.x / ctas_per_turn),
        num_columns_(num_blocks(problem.n, kBlockN * (kShare == Share::kA ? 2 : 1))) {}

  __device__ bool next(Tile& tile) {
    const int32_t turn = turn_;
    turn_ += turns_at_a_time_;
    int32_t rows = problem_.m;
    if constexpr (kCountsGroups) {
      for (;; ++group_) {
        if (group_ == problem_.num_groups) return false;
        rows = rows_of(group_);
        const int32_t end = group_begin_ + num_rows(rows) * num_columns_;
        if (turn < end) break;
        group_begin_ = end;
        if constexpr (kGrouping == Grouping::kAlongK) first_k_ += problem_.layout[group_];
      }
    } else if (turn >= num_rows(rows) * num_columns_) {
      return false;
    }
    const Place place = place_of_turn(turn - group_begin_, num_rows(rows), num_columns_);
    tile.row = (kShare == Share::kB ? 2 * place.row + rank_ : place.row) * kBlockM;
    tile.column = (kShare == Share::kA ? 2 * place.column + rank_ : place.column) * kBlockN;
    tile.group = kCountsGroups ? group_ : group_of_row(tile.row);
    tile.first_k = first_k_;
    tile.size_k = kGrouping == Grouping::kAlongK ? problem_.layout[tile.group]
                  : tile.group >= 0              ? problem_.k
                                                 : 0;
    return true;
  }

 private:
  // Each group has tiles of its own, one group after the other.
  static constexpr bool kCountsGroups =
      kGrouping == Grouping::kMasked || kGrouping == Grouping::kAlongK;

  __device__ static int32_t num_rows(int32_t rows) {
    return num_blocks(rows, kBlockM * (kShare == Share::kB ? 2 : 1));
  }

  // A group along k that is empty has its rows of D all the same.
  __device__ int32_t rows_of(int32_t group) const {
    return kGrouping == Grouping::kMasked ? problem_.layout[group] : problem_.m;
  }

  __device__ int32_t group_of_row(int32_t row) const {
    if constexpr (kGrouping == Grouping::kRowMap) return problem_.layout[row];
    if constexpr (kGrouping == Grouping::kPrefixSum) {
      // The first group that ends behind the row; it begins at the aligned end of the one before.
      int32_t low = 0, high = problem_.num_groups;
      while (low < high) {
        const int32_t middle = (low + high) / 2;
        problem_.layout[middle] > row ? high = middle : low = middle + 1;
      }
      if (low == problem_.num_groups) return -1;
      const int32_t begin =
          low == 0 ? 0 : num_blocks(problem_.layout[low - 1], kGroupAlignment) * kGroupAlignment;
      return row >= begin ? low : -1;
    }
    return 0;
  }

  const Problem& problem_;
  int32_t rank_;
  int32_t turn_;
  int32_t turns_at_a_time_;
  int32_t num_columns_;
  int32_t group_ = 0;
  int32_t group_begin_ = 0;  // the first turn of the group
  int32_t first_k_ = 0;
};

}  // namespace openweek::deepgemm
