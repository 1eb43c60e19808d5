#include "matrix_panels.h"

#include <bit>
#include <cstring>
#include <utility>

#include "errors.h"

namespace openweek::simulator {
namespace {

using U32x4 __attribute__((vector_size(16))) = std::uint32_t;
using U32x16 __attribute__((vector_size(64))) = std::uint32_t;
using F32x16 __attribute__((vector_size(64))) = float;

template <class Vector>
Vector load(const void* from) {
  Vector value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// Where in its block of 16 a row of A, or a column of B, is kept.
template <bool kColumns>
constexpr int place(int index) {
  return kColumns ? (index & 8) + (index & 1) * 4 + (index & 6) / 2 : index;
}
// The first of the 16 at places 4 * quad to 4 * quad + 3, and how far they are apart.
template <bool kColumns>
constexpr int quad_start(int quad) {
  return kColumns ? (quad / 2) * 8 + quad % 2 : 4 * quad;
}

// Four words of four rows -> four rows of the same word.
inline void transpose(U32x4 (&x)[4]) {
  const U32x4 even = {0, 4, 1, 5}, odd = {2, 6, 3, 7}, low = {0, 1, 4, 5}, high = {2, 3, 6, 7};
  const U32x4 a = __builtin_shuffle(x[0], x[1], even), b = __builtin_shuffle(x[2], x[3], even);
  const U32x4 c = __builtin_shuffle(x[0], x[1], odd), d = __builtin_shuffle(x[2], x[3], odd);
  x[0] = __builtin_shuffle(a, b, low);
  x[1] = __builtin_shuffle(a, b, high);
  x[2] = __builtin_shuffle(c, d, low);
  x[3] = __builtin_shuffle(c, d, high);
}

template <bool kColumns, int kBlocks>
void gather_k_major(const Granules& source, const std::uint8_t* shared, Words<kBlocks>& to) {
  constexpr int kStep = kColumns ? 2 : 1;
  for (int quad = 0; quad < source.rows / 4; ++quad) {
    const int first = quad / 4 * kBlock + quad_start<kColumns>(quad % 4);
    for (int half = 0; half < 2; ++half) {
      U32x4 x[4];
      for (int i = 0; i < 4; ++i) {
        x[i] = load<U32x4>(shared + source.addresses[2 * (first + i * kStep) + half]);
      }
      transpose(x);
      for (int i = 0; i < 4; ++i) {
        std::memcpy(&to.at[quad / 4][4 * half + i][4 * (quad % 4)], &x[i], sizeof(U32x4));
      }
    }
  }
}

// A granule is 8 rows of one k; a word is made of two of them.
template <bool kColumns, int kBlocks>
void gather_mn_major(const Granules& source, const std::uint8_t* shared, Words<kBlocks>& to) {
  const int eights = source.rows / 8;
  for (int word = 0; word < kWordsPerK; ++word) {
    for (int eight = 0; eight < eights; ++eight) {
      std::uint16_t even[8], odd[8];
      std::memcpy(even, shared + source.addresses[2 * word * eights + eight], sizeof(even));
      std::memcpy(odd, shared + source.addresses[(2 * word + 1) * eights + eight], sizeof(odd));
      std::uint32_t* out = to.at[eight / 2][word];
      for (int i = 0; i < 8; ++i) {
        out[place<kColumns>(eight % 2 * 8 + i)] = even[i] | std::uint32_t{odd[i]} << 16;
      }
    }
  }
}

template <bool kColumns, int kBlocks>
void gather(const Granules& source, const std::uint8_t* shared, Words<kBlocks>& to) {
  if (source.rows % kBlock != 0) std::memset(to.at[source.rows / kBlock], 0, sizeof(to.at[0]));
  if (source.mn_major) {
    gather_mn_major<kColumns>(source, shared, to);
  } else {
    gather_k_major<kColumns>(source, shared, to);
  }
}

// Floats of the elements in the low bits; no step has a subnormal float, which would be slow.
template <class Format>
F32x16 widen(U32x16 bits) {
  constexpr int kShift = 23 - Format::kMantissaBits;
  constexpr std::uint32_t kRebias = (127 - Format::kBias) << 23;
  const U32x16 magnitude = bits & std::uint32_t{Format::kMagnitudeMask};
  const U32x16 normal = (magnitude << kShift) + kRebias;
  const std::uint32_t one_up = kRebias + (1u << 23);
  const F32x16 subnormal =
      std::bit_cast<F32x16>((magnitude << kShift) + one_up) - std::bit_cast<float>(one_up);
  U32x16 result =
      magnitude > std::uint32_t{Format::kMantissaMask} ? normal : std::bit_cast<U32x16>(subnormal);
  result |= magnitude >= std::uint32_t{Format::kInfinity} ? U32x16{} + 0x7f800000u : U32x16{};
  if (!Format::kHasInfinity) {
    result |= magnitude >= std::uint32_t{Format::kInfinity} ? U32x16{} + 0x7fffffffu : U32x16{};
  }
  return std::bit_cast<F32x16>(result | (bits >> Format::kSignBit << 31));
}

// f16 in the low bits, rounded to nearest even; as in widen, no step has a subnormal float.
U32x16 narrow(F32x16 values) {
  const U32x16 bits = std::bit_cast<U32x16>(values);
  const U32x16 magnitude = bits & 0x7fffffffu;
  constexpr std::uint32_t kRebias = (127 - F16::kBias) << 23, kDropped = 23 - F16::kMantissaBits;
  // Half of what is dropped, less one where the bit above is even, carries as rounding does.
  const U32x16 rounded = magnitude - kRebias + 0xfff + (magnitude >> kDropped & 1);
  const U32x16 infinity = U32x16{} + std::uint32_t{F16::kInfinity};
  U32x16 normal = rounded >> kDropped;
  normal = normal > infinity ? infinity : normal;
  // A sum with 0.5 has the step of f16's subnormals, 2^-24.
  const F32x16 sum = std::bit_cast<F32x16>(magnitude) + 0.5f;
  const U32x16 subnormal = std::bit_cast<U32x16>(sum) - std::bit_cast<std::uint32_t>(0.5f);
  const U32x16 least_normal = U32x16{} + (kRebias + (1u << 23));
  U32x16 result = magnitude < least_normal ? subnormal : normal;
  result |= bits >> 31 << F16::kSignBit;
  return magnitude > 0x7f800000u ? U32x16{} + std::uint32_t{F16::kNaN} : result;
}

struct ElementTF32 {
  static constexpr int kBits = 32;
  static F32x16 decode(U32x16 words, int) { return std::bit_cast<F32x16>(words & 0xffffe000u); }
};
struct ElementBF16 {
  static constexpr int kBits = 16;
  static F32x16 decode(U32x16 words, int index) {
    return std::bit_cast<F32x16>(index ? words & 0xffff0000u : words << 16);
  }
};
template <class Format>
struct Element {
  static constexpr int kBits = Format::kSignBit + 1;
  static F32x16 decode(U32x16 words, int index) {
    return widen<Format>((words >> (index * kBits)) & ((1u << kBits) - 1));
  }
};

// Writes the values of one k; of A (4 in a row) each four times.
template <int kRepeat>
void store(F32x16 values, float* to) {
  if constexpr (kRepeat == 1) {
    std::memcpy(to, &values, sizeof(values));
  } else {
    const U32x16 first = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    for (std::uint32_t quad = 0; quad < 4; ++quad) {
      const F32x16 repeated = __builtin_shuffle(values, first + 4 * quad);
      std::memcpy(to + 16 * quad, &repeated, sizeof(repeated));
    }
  }
}

template <class Element, int kBlocks, int kRepeat>
void expand(const Words<kBlocks>& words, int num_blocks, int k_words, bool negate,
            Panel<kBlocks, kRepeat>& to) {
  constexpr int kPerWord = 32 / Element::kBits;
  const std::uint32_t sign = negate ? 0x80000000u : 0;
  for (int block = 0; block < num_blocks; ++block) {
    for (int word = 0; word < k_words; ++word) {
      const U32x16 packed = load<U32x16>(words.at[block][word]);
      for (int i = 0; i < kPerWord; ++i) {
        const U32x16 bits = std::bit_cast<U32x16>(Element::decode(packed, i)) ^ sign;
        store<kRepeat>(std::bit_cast<F32x16>(bits), to.at[block][word * kPerWord + i]);
      }
    }
  }
}

template <int kBlocks, int kRepeat>
void expand(NumberType type, const Words<kBlocks>& words, int num_blocks, int k_words, bool negate,
            Panel<kBlocks, kRepeat>& to) {
  switch (type) {
    case NumberType::kTF32:
      return expand<ElementTF32>(words, num_blocks, k_words, negate, to);
    case NumberType::kBF16:
      return expand<ElementBF16>(words, num_blocks, k_words, negate, to);
    case NumberType::kF16:
      return expand<Element<F16>>(words, num_blocks, k_words, negate, to);
    case NumberType::kE4M3:
      return expand<Element<E4M3>>(words, num_blocks, k_words, negate, to);
    case NumberType::kE5M2:
      return expand<Element<E5M2>>(words, num_blocks, k_words, negate, to);
    default:
      throw UnsupportedError("matrix: elements must be f16, bf16, tf32, e4m3 or e5m2");
  }
}

}  // namespace

void widen_pairs(const std::uint32_t* pairs, float* low, float* high) {
  for (int lane = 0; lane < 32; lane += 16) {
    const U32x16 both = load<U32x16>(pairs + lane);
    const F32x16 first = widen<F16>(both & 0xffffu), second = widen<F16>(both >> 16);
    std::memcpy(low + lane, &first, sizeof(first));
    std::memcpy(high + lane, &second, sizeof(second));
  }
}

void narrow_pairs(const float* low, const float* high, std::uint32_t* pairs) {
  for (int lane = 0; lane < 32; lane += 16) {
    const U32x16 both = narrow(load<F32x16>(low + lane)) | narrow(load<F32x16>(high + lane)) << 16;
    std::memcpy(pairs + lane, &both, sizeof(both));
  }
}

void unpack_a(const MatrixOp& op, const Granules& source, const std::uint8_t* shared, PanelA& to) {
  Words<4> words;
  gather<false>(source, shared, words);
  expand(op.a, words, source.rows / kBlock, kWordsPerK, op.negate, to);
}

void unpack_b(const MatrixOp& op, const Granules& source, const std::uint8_t* shared, PanelB& to) {
  Words<16> words;
  gather<true>(source, shared, words);
  expand(op.b, words, (source.rows + kBlock - 1) / kBlock, kWordsPerK, false, to);
}

// Register j of lane l holds word 4 (j / 2) + l % 4 of row l / 4 + 8 (j % 2).
void unpack_a(const MatrixOp& op, const Rows* source, int num_warps, int k_words, PanelA& to) {
  Words<4> words;
  for (int warp = 0; warp < num_warps; ++warp) {
    for (int j = 0; j < k_words / 2; ++j) {
      const std::uint32_t* row = source[warp].row(j);
      for (int lane = 0; lane < 32; ++lane) {
        words.at[warp][j / 2 * 4 + lane % 4][lane / 4 + j % 2 * 8] = row[lane];
      }
    }
  }
  expand(op.a, words, num_warps, k_words, op.negate, to);
}

// Register j of lane l holds word 4 j + l % 4 of column l / 4.
void unpack_b(const MatrixOp& op, const Rows& source, int k_words, PanelB& to) {
  Words<16> words;
  std::memset(words.at[0], 0, sizeof(words.at[0]));
  for (int j = 0; j < k_words / 4; ++j) {
    const std::uint32_t* row = source.row(j);
    for (int lane = 0; lane < 32; ++lane) {
      words.at[0][4 * j + lane % 4][place<true>(lane / 4)] = row[lane];
    }
  }
  expand(op.b, words, 1, k_words, false, to);
}

}  // namespace openweek::simulator
