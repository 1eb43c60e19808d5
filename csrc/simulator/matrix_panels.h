// Operands of the matrix units, unpacked to floats in the order in which the sums read them.
//
// A panel is cut in blocks of 16: rows of A (those of one warp) or columns of B. First every
// operand becomes 32-bit words of k (a tf32, two 16-bit or four 8-bit elements), whatever its place
// and layout; then words become floats, one k after the other.
#pragma once

#include <cstdint>

#include "matrix.h"

namespace openweek::simulator {

inline constexpr int kWordsPerK = 8;  // 32 bytes
inline constexpr int kBlock = 16;
inline constexpr int kMaxK = 32;

// [block][word of k][16]; columns of B in the order 0 2 4 6 1 3 5 7, twice: the order in which the
// lanes and registers of an accumulator hold them.
template <int kBlocks>
struct alignas(64) Words {
  std::uint32_t at[kBlocks][kWordsPerK][kBlock];
};

// [block][k][16], of A every value 4 times, once for each lane that has its row.
template <int kBlocks, int kRepeat>
struct alignas(64) Panel {
  float at[kBlocks][kMaxK][kBlock * kRepeat];
};
using PanelA = Panel<4, 4>;
using PanelB = Panel<16, 1>;

void unpack_a(const MatrixOp& op, const Granules& source, const std::uint8_t* shared, PanelA& to);
void unpack_a(const MatrixOp& op, const Rows* source, int num_warps, int k_words, PanelA& to);
void unpack_b(const MatrixOp& op, const Granules& source, const std::uint8_t* shared, PanelB& to);
void unpack_b(const MatrixOp& op, const Rows& source, int k_words, PanelB& to);

// A row of f16 pairs, as accumulators lie in registers, to and from two rows of floats.
void widen_pairs(const std::uint32_t* pairs, float* low, float* high);
void narrow_pairs(const float* low, const float* high, std::uint32_t* pairs);

}  // namespace openweek::simulator
