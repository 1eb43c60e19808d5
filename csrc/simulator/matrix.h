// The matrix units: wgmma, mma.sync, ldmatrix and stmatrix over raw registers and shared memory.
//
// Products of two elements are exact. They are added to an f32 accumulator in the order of k, each
// sum rounded to nearest, or as Summation says.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "formats.h"
#include "swizzle.h"

namespace openweek::simulator {

// b32 registers of one warp, as rows of 32 lanes at byte offsets from its register file.
struct Rows {
  std::uint8_t* file = nullptr;
  const std::uint32_t* offsets = nullptr;

  template <class Cell = std::uint32_t>
  Cell* row(int index) const {
    return reinterpret_cast<Cell*>(file + offsets[index]);
  }
};
using WarpgroupRows = std::array<Rows, 4>;

// A wgmma operand in shared memory, as its 64-bit descriptor says; all in bytes.
struct MatrixDescriptor {
  std::uint32_t start = 0;
  std::uint32_t leading_offset = 0;
  std::uint32_t stride_offset = 0;
  Swizzle swizzle = Swizzle::kNone;
};

// Throws UnsupportedError for a base offset: no public document says where it enters.
MatrixDescriptor decode_descriptor(std::uint64_t bits);

// The 16-byte granules of shared memory that one instruction reads for an operand of `rows` rows
// (64 of A, n of B) by 32 bytes of k: absolute addresses, swizzle applied, each once.
// K-major: granule 2 * row + half. MN-major (16-bit elements): granule k * rows / 8 + row / 8.
struct Granules {
  int rows = 0;
  bool mn_major = false;
  std::array<std::uint32_t, 512> addresses;  // 2 * rows of them

  std::span<const std::uint32_t> all() const {
    return {addresses.data(), static_cast<std::size_t>(2 * rows)};
  }
};

// Throws HazardError if one of them is not within the first `shared_bytes`.
Granules operand_granules(const MatrixDescriptor& descriptor, int rows, bool mn_major,
                          std::size_t shared_bytes);

// How the products of one instruction are summed.
enum class Summation : std::uint8_t {
  kF32,
  // The FP8 units of Hopper, as published measurements describe them: all products of the
  // instruction and the accumulator are aligned to the largest of them, cut off (not rounded) below
  // the 13th bit after its leading one, and added; of the sum, too, 14 significant bits remain.
  kFourteenBits,
};

struct MatrixOp {
  NumberType a = NumberType::kBF16;  // kF16 kBF16 kTF32 kE4M3 kE5M2
  NumberType b = NumberType::kBF16;  // as wide as a
  bool f16_accumulator = false;      // two to a register; summed in f32, rounded once at the end
  bool negate = false;               // of one operand: imm-scale-a * imm-scale-b = -1
  Summation summation = Summation::kF32;

  // The same on a machine that sums products of FP8 with fewer bits, or does not.
  MatrixOp on(bool reduced_fp8) const {
    MatrixOp op = *this;
    const bool is_fp8 = a == NumberType::kE4M3 || a == NumberType::kE5M2;
    if (is_fp8 && reduced_fp8) op.summation = Summation::kFourteenBits;
    return op;
  }
};

// D = A * B + (accumulate ? D : 0) with A [64, k], B [k, n], k = 32 bytes.
// D has n / 2 registers per thread (n / 4 with f16 accumulators), A in registers has 4. The
// granules come from operand_granules, with `shared` as that shared memory.
void wgmma(const MatrixOp& op, const Granules& a, const Granules& b, const std::uint8_t* shared,
           bool accumulate, const WarpgroupRows& d);
void wgmma(const MatrixOp& op, const WarpgroupRows& a, const Granules& b,
           const std::uint8_t* shared, bool accumulate, const WarpgroupRows& d);

// mma.sync m16n8: D = A * B + C; k is 16 or 32 bytes: 2 or 4 registers of A, 1 or 2 of B, 4 of C
// and D (2 with f16 accumulators). D may be the same registers as any operand.
void mma(const MatrixOp& op, int k_bytes, const Rows& a, const Rows& b, const Rows& c,
         const Rows& d);

// ldmatrix / stmatrix m8n8.b16 of 1, 2 or 4 matrices: rows[8 * i + r] is where row r of matrix i
// (16 bytes) lies, the address that lane 8 * i + r gives; register i holds matrix i.
void ldmatrix(int num_matrices, bool transposed, const std::uint8_t* const* rows, const Rows& d);
void stmatrix(int num_matrices, bool transposed, std::uint8_t* const* rows, const Rows& source);

}  // namespace openweek::simulator
