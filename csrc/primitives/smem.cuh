// Shared memory: addresses as instructions want them, the swizzle, and stores of 8x8 matrices.
#pragma once

#include <cstdint>

namespace openweek::primitives {

// The 32-bit address of a generic pointer into the shared memory of this CTA.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// How the 16-byte chunks of a row are permuted so that a column of chunks touches every bank. The
// numbers are those of bits 62-63 of a wgmma descriptor.
enum class Swizzle : uint32_t { kNone = 0, k128B = 1, k64B = 2, k32B = 3 };

// Bytes of a row of the pattern; a matrix without swizzle is made of rows of 16 bytes.
constexpr uint32_t swizzle_row_bytes(Swizzle swizzle) {
  return swizzle == Swizzle::kNone ? 16 : 256u >> static_cast<uint32_t>(swizzle);
}

// Where the byte of an unswizzled address lies: the chunk number is XORed with the row number, both
// taken from the address itself, so the pattern must begin at a multiple of its 8 rows.
template <Swizzle kSwizzle>
constexpr uint32_t swizzled(uint32_t address) {
  constexpr uint32_t kChunkMask = swizzle_row_bytes(kSwizzle) / 16 - 1;
  return address ^ (((address >> 7) & kChunkMask) << 4);
}

// Two floats rounded to bf16: what one lane holds of a row of an 8x8 matrix.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// Stores four 8x8 matrices of 16-bit elements. Of matrix i, lane l holds elements 2 (l % 4) and the
// next of row l / 4 in `matrices[i]`, and lane 8 i + r passes the address of row r (16 bytes).
__device__ __forceinline__ void store_matrices(uint32_t address, const uint32_t (&matrices)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared::cta.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(matrices[0]), "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
      : "memory");
}

// Stores two such matrices transposed: what lane l holds of row l / 4, it holds of column l / 4 in
// memory. Lane 8 i + r < 16 passes the address of row r of matrix i as it lies in memory.
__device__ __forceinline__ void store_matrices_transposed(uint32_t address,
                                                          const uint32_t (&matrices)[2]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared::cta.b16 [%0], {%1, %2};" ::"r"(address),
               "r"(matrices[0]), "r"(matrices[1])
               : "memory");
}

}  // namespace openweek::primitives
