#include "matrix.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "errors.h"
#include "matrix_panels.h"

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace openweek::simulator {
namespace {

// As many lanes as the processor has in a register. One accumulator register of a warp (a row of 32
// lanes) holds 8 rows of 4 columns: lane 4 r + c has row r, so a vector takes whole rows.
#if defined(__AVX512F__)
constexpr int kVector = 16;
constexpr int kColumnsAtOnce = 2;  // in eights
constexpr int kHalvesAtOnce = 2;   // eights of rows
#else
constexpr int kVector = 8;
constexpr int kColumnsAtOnce = 1;
constexpr int kHalvesAtOnce = 1;
#endif
constexpr int kVectorsPerRow = 32 / kVector;

using F32xN __attribute__((vector_size(4 * kVector))) = float;
using S32xN __attribute__((vector_size(4 * kVector))) = std::int32_t;
using U32xN __attribute__((vector_size(4 * kVector))) = std::uint32_t;

// The compiler does not contract products and sums by itself in ISO C++. Fused or not, the result
// is the same: products are exact, unless they fall below the range of f32.
inline F32xN multiply_add(F32xN a, F32xN b, F32xN c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

// Four columns, for each row that the vector has.
inline F32xN repeat_quad(const float* from) {
#if defined(__AVX512F__)
  return _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(from));
#elif defined(__AVX__)
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(from));
#else
  return F32xN{from[0], from[1], from[2], from[3], from[0], from[1], from[2], from[3]};
#endif
}

inline F32xN load(const float* from) {
  F32xN value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// The accumulators of 16 rows by 16 columns (8 in the last block of an odd n / 8): row 4 j + 2 h +
// e holds columns 8 j + e + {0, 2, 4, 6} of rows 8 h to 8 h + 7.
using AccumulatorRows = float* const*;

// A tile of the block that fits the processor's registers.
template <int kColumns, int kHalves>
void sum_tile(const float* a, const float* b, int k, AccumulatorRows rows) {
  F32xN sums[kColumns][2][kHalves][kVectorsPerRow];
  for (int j = 0; j < kColumns; ++j) {
    for (int i = 0; i < 2 * kHalves * kVectorsPerRow; ++i) {
      const int e = i / kVectorsPerRow / kHalves, h = i / kVectorsPerRow % kHalves;
      sums[j][e][h][i % kVectorsPerRow] =
          load(rows[4 * j + 2 * h + e] + i % kVectorsPerRow * kVector);
    }
  }
  for (; k > 0; --k, a += 4 * kBlock, b += kBlock) {
    for (int j = 0; j < kColumns; ++j) {
      for (int e = 0; e < 2; ++e) {
        const F32xN columns = repeat_quad(b + 8 * j + 4 * e);
        for (int i = 0; i < kHalves * kVectorsPerRow; ++i) {
          F32xN& sum = sums[j][e][i / kVectorsPerRow][i % kVectorsPerRow];
          sum = multiply_add(load(a + i * kVector), columns, sum);
        }
      }
    }
  }
  for (int j = 0; j < kColumns; ++j) {
    for (int i = 0; i < 2 * kHalves * kVectorsPerRow; ++i) {
      const int e = i / kVectorsPerRow / kHalves, h = i / kVectorsPerRow % kHalves;
      std::memcpy(rows[4 * j + 2 * h + e] + i % kVectorsPerRow * kVector,
                  &sums[j][e][h][i % kVectorsPerRow], sizeof(F32xN));
    }
  }
}

void sum_f32(const float* a, const float* b, int k, int eights, AccumulatorRows rows) {
  for (int h = 0; h < 2; h += kHalvesAtOnce) {
    const float* a_half = a + h * 32;
    AccumulatorRows rows_half = rows + 2 * h;
    if (eights == 2 && kColumnsAtOnce == 2) {
      sum_tile<kColumnsAtOnce, kHalvesAtOnce>(a_half, b, k, rows_half);
    } else {
      for (int j = 0; j < eights; ++j) {
        sum_tile<1, kHalvesAtOnce>(a_half, b + 8 * j, k, rows_half + 4 * j);
      }
    }
  }
}

// One vector of accumulators by Summation::kFourteenBits.
F32xN sum_fourteen_bits(const float* a, const float* b, int k, F32xN accumulator) {
  constexpr int kFractionBits = 13;
  F32xN plain = accumulator;
  S32xN largest = std::bit_cast<S32xN>(accumulator) & 0x7fffffff;
  for (int i = 0; i < k; ++i) {
    const F32xN product = load(a + i * 4 * kBlock) * repeat_quad(b + i * kBlock);
    const S32xN magnitude = std::bit_cast<S32xN>(product) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
    plain += product;
  }
  // Powers of two: from the place of the lowest bit kept to 1, and back. Products of FP8 are never
  // as small as the bound that keeps the first one finite.
  const S32xN least = S32xN{} + (1 + kFractionBits);
  S32xN exponent = largest >> 23;
  exponent = exponent > least ? exponent : least;
  const F32xN up = std::bit_cast<F32xN>((254 + kFractionBits - exponent) << 23);
  const F32xN down = std::bit_cast<F32xN>((exponent - kFractionBits) << 23);
  S32xN sum = __builtin_convertvector(accumulator * up, S32xN);
  for (int i = 0; i < k; ++i) {
    const F32xN product = load(a + i * 4 * kBlock) * repeat_quad(b + i * kBlock);
    sum += __builtin_convertvector(product * up, S32xN);
  }
  const F32xN exact = __builtin_convertvector(sum, F32xN);
  const U32xN kept = std::bit_cast<U32xN>(exact) & ~((1u << (23 - kFractionBits)) - 1);
  const F32xN result = std::bit_cast<F32xN>(kept) * down;
  return largest >= 0x7f800000 ? plain : result;  // infinities and NaN spread as ever
}

void sum_fourteen_bits(const float* a, const float* b, int k, int eights, AccumulatorRows rows) {
  for (int index = 0; index < 4 * eights; ++index) {
    const int j = index / 4, h = index / 2 % 2, e = index % 2;
    for (int i = 0; i < kVectorsPerRow; ++i) {
      float* cell = rows[index] + i * kVector;
      const F32xN sum =
          sum_fourteen_bits(a + h * 32 + i * kVector, b + 8 * j + 4 * e, k, load(cell));
      std::memcpy(cell, &sum, sizeof(sum));
    }
  }
}

void sum_block(const MatrixOp& op, const float* a, const float* b, int k, int eights,
               AccumulatorRows rows) {
  const auto sum = op.summation == Summation::kF32
                       ? &sum_f32
                       : static_cast<decltype(&sum_f32)>(&sum_fourteen_bits);
  sum(a, b, k, eights, rows);
}

// Accumulators of one warp as f32 rows: registers themselves, or a copy of f16 pairs.
class Accumulators {
 public:
  static constexpr int kMaxRows = 128;

  // Takes n / 2 values per thread from `from`, or zeros.
  Accumulators(const MatrixOp& op, int n, const Rows& from, bool load) : f16_(op.f16_accumulator) {
    const int num_rows = n / 2;
    for (int i = 0; i < num_rows; ++i) {
      rows_[i] = f16_ ? copies_[i] : from.row<float>(i);
      if (!load) std::memset(rows_[i], 0, sizeof(copies_[i]));
    }
    if (!f16_ || !load) return;
    for (int i = 0; i < num_rows; i += 2) {
      widen_pairs(from.row(i / 2), copies_[i], copies_[i + 1]);
    }
  }

  AccumulatorRows block(int index) { return rows_ + 8 * index; }

  void store(int n, const Rows& to) {
    if (!f16_) return;
    for (int i = 0; i < n / 4; ++i) narrow_pairs(copies_[2 * i], copies_[2 * i + 1], to.row(i));
  }

 private:
  bool f16_;
  float* rows_[kMaxRows];
  alignas(64) float copies_[kMaxRows][32];
};

int element_bits(NumberType type) {
  switch (type) {
    case NumberType::kTF32:
      return 32;
    case NumberType::kF16:
    case NumberType::kBF16:
      return 16;
    case NumberType::kE4M3:
    case NumberType::kE5M2:
      return 8;
    default:
      throw UnsupportedError("matrix: elements must be f16, bf16, tf32, e4m3 or e5m2");
  }
}

// How many elements of k that many bytes hold.
int checked_k(const MatrixOp& op, int k_bytes) {
  const int bits = element_bits(op.a);
  if (bits != element_bits(op.b)) {
    throw UnsupportedError("matrix: elements of a and b must have the same size");
  }
  return k_bytes * 8 / bits;
}

void multiply(const MatrixOp& op, const PanelA& a, const Granules& b_source,
              const std::uint8_t* shared, bool accumulate, const WarpgroupRows& d) {
  const int k = checked_k(op, 32);
  if (b_source.mn_major && element_bits(op.b) != 16) {
    throw UnsupportedError("wgmma: only 16-bit elements can be MN-major");
  }
  const int n = b_source.rows;
  PanelB b;
  unpack_b(op, b_source, shared, b);
  for (int warp = 0; warp < 4; ++warp) {
    Accumulators sums(op, n, d[warp], accumulate);
    for (int column = 0; column < n; column += kBlock) {
      const int block = column / kBlock;
      sum_block(op, a.at[warp][0], b.at[block][0], k, std::min((n - column) / 8, 2),
                sums.block(block));
    }
    sums.store(n, d[warp]);
  }
}

}  // namespace

MatrixDescriptor decode_descriptor(std::uint64_t bits) {
  const auto field = [bits](int first) {
    return static_cast<std::uint32_t>(bits >> first & 0x3fff) << 4;
  };
  if (bits >> 49 & 7) throw UnsupportedError("wgmma: a descriptor with a base offset");
  constexpr Swizzle kByCode[] = {Swizzle::kNone, Swizzle::k128, Swizzle::k64, Swizzle::k32};
  return {field(0), field(16), field(32), kByCode[bits >> 62]};
}

Granules operand_granules(const MatrixDescriptor& descriptor, int rows, bool mn_major,
                          std::size_t shared_bytes) {
  const auto [start, leading, stride, swizzle] = descriptor;
  const std::uint32_t span = span_bytes(swizzle);
  const bool plain = swizzle == Swizzle::kNone;
  Granules granules{.rows = rows, .mn_major = mn_major, .addresses = {}};
  for (std::uint32_t i = 0; i < 2u * rows; ++i) {
    std::uint32_t offset = 0;
    if (mn_major) {
      const std::uint32_t k = i / (rows / 8), eight = i % (rows / 8);
      const std::uint32_t across = eight * 16 / span * (plain ? stride : leading);
      offset = across + k / 8 * (plain ? leading : stride) + k % 8 * span + eight * 16 % span;
    } else {
      const std::uint32_t row = i / 2;
      offset = row / 8 * stride + row % 8 * span + i % 2 * (plain ? leading : 16);
    }
    granules.addresses[i] = swizzled(start + offset, swizzle);
    if (granules.addresses[i] + std::size_t{16} > shared_bytes) {
      throw HazardError("out of bounds: wgmma reads 16 bytes at shared address " +
                        std::to_string(granules.addresses[i]) + " of " +
                        std::to_string(shared_bytes));
    }
  }
  return granules;
}

void wgmma(const MatrixOp& op, const Granules& a, const Granules& b, const std::uint8_t* shared,
           bool accumulate, const WarpgroupRows& d) {
  if (a.mn_major && element_bits(op.a) != 16) {
    throw UnsupportedError("wgmma: only 16-bit elements can be MN-major");
  }
  PanelA panel;
  unpack_a(op, a, shared, panel);
  multiply(op, panel, b, shared, accumulate, d);
}

void wgmma(const MatrixOp& op, const WarpgroupRows& a, const Granules& b,
           const std::uint8_t* shared, bool accumulate, const WarpgroupRows& d) {
  PanelA panel;
  unpack_a(op, a.data(), 4, kWordsPerK, panel);
  multiply(op, panel, b, shared, accumulate, d);
}

void mma(const MatrixOp& op, int k_bytes, const Rows& a, const Rows& b, const Rows& c,
         const Rows& d) {
  const int k = checked_k(op, k_bytes);
  PanelA panel_a;
  PanelB panel_b;
  unpack_a(op, &a, 1, k_bytes / 4, panel_a);
  unpack_b(op, b, k_bytes / 4, panel_b);
  // All sources are read before the first result is written: the sums have rows of their own.
  std::uint32_t cells[4][32];
  constexpr std::uint32_t kOffsets[] = {0, 128, 256, 384};
  const Rows sums_rows{reinterpret_cast<std::uint8_t*>(cells), kOffsets};
  const int num_registers = op.f16_accumulator ? 2 : 4;
  for (int i = 0; i < num_registers; ++i) std::memcpy(cells[i], c.row(i), sizeof(cells[i]));
  Accumulators sums(op, 8, sums_rows, true);
  sum_block(op, panel_a.at[0][0], panel_b.at[0][0], k, 1, sums.block(0));
  sums.store(8, sums_rows);
  for (int i = 0; i < num_registers; ++i) std::memcpy(d.row(i), cells[i], sizeof(cells[i]));
}

// Lane l has columns 2 (l % 4) and the next of row l / 4; transposed: rows of column l / 4.
void ldmatrix(int num_matrices, bool transposed, const std::uint8_t* const* rows, const Rows& d) {
  for (int matrix = 0; matrix < num_matrices; ++matrix) {
    std::uint16_t cells[8][8];
    for (int row = 0; row < 8; ++row) std::memcpy(cells[row], rows[8 * matrix + row], 16);
    for (int lane = 0; lane < 32; ++lane) {
      const int major = lane / 4, minor = lane % 4 * 2;
      const std::uint16_t low = transposed ? cells[minor][major] : cells[major][minor];
      const std::uint16_t high = transposed ? cells[minor + 1][major] : cells[major][minor + 1];
      d.row(matrix)[lane] = low | std::uint32_t{high} << 16;
    }
  }
}

void stmatrix(int num_matrices, bool transposed, std::uint8_t* const* rows, const Rows& source) {
  for (int matrix = 0; matrix < num_matrices; ++matrix) {
    std::uint16_t cells[8][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int major = lane / 4, minor = lane % 4 * 2;
      const std::uint32_t pair = source.row(matrix)[lane];
      for (int i = 0; i < 2; ++i) {
        const auto cell = static_cast<std::uint16_t>(pair >> (16 * i));
        (transposed ? cells[minor + i][major] : cells[major][minor + i]) = cell;
      }
    }
    for (int row = 0; row < 8; ++row) std::memcpy(rows[8 * matrix + row], cells[row], 16);
  }
}

}  // namespace openweek::simulator
