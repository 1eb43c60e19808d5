// Small kernels that ask the machine one question each: what silicon answers, the simulator has to.
//
// A question whose answer might be "it waits for ever" is asked with a way out, wherever there is
// one.
#include "primitives/memory_order.cuh"
#include "primitives/wgmma.cuh"
#include "silicon_probe.cuh"

namespace openweek::tests {

using namespace openweek::primitives;

// ---- shared memory of a cluster ----

// Per CTA: its own address of a word, and what mapa makes of it for ranks 0
// to 3.
PROBE(shared_addresses) {
  __shared__ uint32_t word;
  const uint32_t rank = cluster_rank(), own = shared_address(&word);
  if (threadIdx.x == 0) {
    out[5 * rank] = own;
    for (uint32_t peer = 0; peer < 4; ++peer)
      out[5 * rank + 1 + peer] = address_in_cluster(own, peer);
  }
}

// Each of two CTAs writes to its own address with bit 24 flipped. What does
// each find?
PROBE(peer_by_bit_24) {
  __shared__ uint32_t word;
  const uint32_t rank = cluster_rank();
  if (threadIdx.x == 0) word = 0;
  __syncwarp();
  cluster_sync();
  if (threadIdx.x == 0) {
    const uint32_t peer = shared_address(&word) ^ 1u << 24;
    asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(peer), "r"(rank + 1) : "memory");
  }
  __syncwarp();
  cluster_sync();
  if (threadIdx.x == 0) out[rank] = word;
}

// ---- mbarriers ----

__device__ uint32_t has_ended(const Mbarrier& barrier, uint32_t parity) {
  uint32_t ended;
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
      "selp.b32 %0, 1, 0, ended;\n"
      "}"
      : "=r"(ended)
      : "r"(barrier.address()), "r"(parity)
      : "memory");
  return ended;
}

// Waits for the phase, but not for ever.
__device__ uint32_t ends_in_time(const Mbarrier& barrier, uint32_t parity) {
  for (int turn = 0; turn < 1000; ++turn) {
    uint32_t ended;
    asm volatile(
        "{\n"
        ".reg .pred ended;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
        "selp.b32 %0, 1, 0, ended;\n"
        "}"
        : "=r"(ended)
        : "r"(barrier.address()), "r"(parity)
        : "memory");
    if (ended) return 1;
  }
  return 0;
}

__device__ void expect_bytes(const Mbarrier& barrier, uint32_t num_bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier.address()),
               "r"(num_bytes)
               : "memory");
}

__device__ void complete_bytes(const Mbarrier& barrier, uint32_t num_bytes) {
  asm volatile(
      "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier.address()),
      "r"(num_bytes)
      : "memory");
}

// Which parities does a new barrier pass?
PROBE(fresh_mbarrier) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  barrier.init(1);
  out[0] = has_ended(barrier, 0);
  out[1] = has_ended(barrier, 1);
  out[2] = ends_in_time(barrier, 1);
}

// Bytes land, then the only arrival comes, then the bytes are announced: when
// does the phase end?
PROBE(bytes_before_they_are_expected) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  barrier.init(1);
  complete_bytes(barrier, 64);
  out[0] = has_ended(barrier, 0);
  barrier.arrive();
  out[1] = has_ended(barrier, 0);
  expect_bytes(barrier, 64);
  out[2] = has_ended(barrier, 0);
}

// Bytes land when a phase has just ended: are they counted in the next one?
PROBE(bytes_at_a_phase_edge) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  barrier.init(1);
  barrier.arrive();
  complete_bytes(barrier, 64);
  out[0] = has_ended(barrier, 0);
  out[1] = has_ended(barrier, 1);
  barrier.arrive_and_expect(64);
  out[2] = has_ended(barrier, 1);
  out[3] = has_ended(barrier, 0);
}

// ---- barriers of a CTA ----

__device__ void sleep() {
  for (int turn = 0; turn < 200; ++turn) __nanosleep(10000);
}

// Warp 1 is gone when warp 0 comes to a barrier of all threads.
PROBE(exited_threads_at_syncthreads) {
  if (threadIdx.x >= 32) return;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = 1;
}

// Warp 1 is gone when warp 0 comes to a barrier of 64 threads: does it pass? If
// not, warp 2 comes to help.
PROBE(exited_threads_at_a_counted_barrier) {
  __shared__ uint32_t passed;
  const uint32_t warp = threadIdx.x / 32;
  if (threadIdx.x == 0) passed = 0;
  __syncthreads();
  if (warp == 0) {
    named_barrier_sync(1, 64);
    if (threadIdx.x == 0) atomicExch(&passed, 1);
  } else if (warp == 2) {
    sleep();
    const uint32_t seen = atomicAdd(&passed, 0);
    if (threadIdx.x == 64) out[0] = seen;
    if (__any_sync(~0u, !seen)) named_barrier_arrive(1, 64);
  }
}

// Half of warp 0, and warp 1, come to a barrier of 64 threads: do they pass
// before the other half comes?
PROBE(half_a_warp_at_a_counted_barrier) {
  __shared__ uint32_t passed;
  if (threadIdx.x == 0) passed = 0;
  __syncthreads();
  if (threadIdx.x >= 32) {
    asm volatile("barrier.sync 1, 64;" ::: "memory");
    if (threadIdx.x == 32) atomicExch(&passed, 1);
  } else if (threadIdx.x < 16) {
    asm volatile("barrier.sync 1, 64;" ::: "memory");
  } else {
    sleep();
    const uint32_t seen = atomicAdd(&passed, 0);
    if (threadIdx.x == 16) out[0] = seen;
    if (!__shfl_sync(0xffff0000u, seen, 16)) asm volatile("barrier.sync 1, 64;" ::: "memory");
  }
}

// ---- TMA ----

extern __shared__ __align__(1024) uint8_t memory[];

struct Arrival {
  Mbarrier barrier;
  uint32_t came;
};

// in: x, y, where in shared memory, bytes to expect, words to show. out:
// whether the bytes came, and the words.
PROBE(load_box) {
  auto* words = reinterpret_cast<uint32_t*>(memory);
  auto& [barrier, came] = *reinterpret_cast<Arrival*>(memory + 4 * in[4]);
  for (uint32_t i = threadIdx.x; i < in[4]; i += blockDim.x) words[i] = 0xa5a5a5a5;
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    barrier.init(1);
    fence_mbarrier_init();
    barrier.arrive_and_expect(in[3]);
    tma_load(memory + in[2], map, barrier, in[0], in[1]);
    came = ends_in_time(barrier, 0);
  }
  __syncthreads();
  if (threadIdx.x == 0) out[0] = came;
  for (uint32_t i = threadIdx.x; i < in[4]; i += blockDim.x) out[1 + i] = words[i];
}

// Adds 64 words of `in` to the box of the map, in the map's type.
PROBE(add_box) {
  auto* words = reinterpret_cast<uint32_t*>(memory);
  for (uint32_t i = threadIdx.x; i < 64; i += blockDim.x) words[i] = in[i];
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile."
        "bulk_group [%0, {%1, %1}], [%2];" ::"l"(&map),
        "r"(0), "r"(shared_address(memory))
        : "memory");
    tma_store_commit();
    tma_store_wait<0>();
  }
}

// ---- wgmma ----

// d = a b^T or d += a b^T: 64 x 16, k = 16.
template <int kNegateA, int kNegateB, int kTransposeA>
__device__ void multiply(float (&d)[8], uint64_t a, uint64_t b, bool accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.ne.b32 keep, %10, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, "
      "%4, %5, %6, %7}, %8, %9, keep, %11, %12, %13, 0;\n"
      "}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7])
      : "l"(a), "l"(b), "r"(static_cast<uint32_t>(accumulate)), "n"(kNegateA), "n"(kNegateB),
        "n"(kTransposeA));
}

template <int kNegateA, int kNegateB, int kTransposeA>
__device__ void multiply_and_wait(float (&d)[8], uint64_t a, uint64_t b, bool accumulate) {
  for (float& sum : d)  // the compiler must not set it behind the fence
    asm volatile("" : "+f"(sum)::"memory");
  wgmma_fence();
  multiply<kNegateA, kNegateB, kTransposeA>(d, a, b, accumulate);
  wgmma_commit();
  wgmma_wait_all(d);
}

constexpr uint32_t kTileRows = 64;
constexpr uint32_t kTileBytes = kTileRows * 128;

// Elements (row, k) of bf16, K-major with a swizzle of 128 bytes, of which k <
// 16 is used.
template <typename Value>
__device__ void fill_tile(uint8_t* tile, Value value) {
  for (uint32_t i = threadIdx.x; i < kTileRows * 16; i += blockDim.x) {
    const uint32_t row = i / 16, k = i % 16;
    const uint32_t offset = swizzled<Swizzle::k128B>(row * 128 + 2 * k);
    *reinterpret_cast<uint16_t*>(tile + offset) =
        static_cast<uint16_t>(pack_bf16(value(row, k), 0));
  }
}

// What the immediates of wgmma do to an accumulator of 100 and a product of 32.
PROBE(scales) {
  uint8_t* b_tile = memory + kTileBytes;
  fill_tile(memory, [](uint32_t, uint32_t) { return 1.0f; });
  fill_tile(b_tile, [](uint32_t, uint32_t) { return 2.0f; });
  fence_async_proxy();
  __syncthreads();
  const uint64_t a = k_major_descriptor<Swizzle::k128B>(shared_address(memory));
  const uint64_t b = k_major_descriptor<Swizzle::k128B>(shared_address(b_tile));
  float d[6][8];
  for (auto& sums : d)
    for (float& sum : sums) sum = 100;
  multiply_and_wait<1, 1, 0>(d[0], a, b, true);
  multiply_and_wait<-1, 1, 0>(d[1], a, b, true);
  multiply_and_wait<1, -1, 0>(d[2], a, b, true);
  multiply_and_wait<-1, -1, 0>(d[3], a, b, true);
  multiply_and_wait<1, 1, 0>(d[4], a, b, false);
  multiply_and_wait<-1, 1, 0>(d[5], a, b, false);
  for (int i = 0; i < 6; ++i)
    if (threadIdx.x == 0) out[i] = __float_as_uint(d[i][0]);
}

// Which element of shared memory wgmma takes for (row, k) of A. `in`: start,
// leading and stride offset, code of the swizzle, base offset, whether
// MN-major. Element i of the memory holds i % 256, and another time i / 256;
// B is the identity, so that D shows A. out: 64 x 16 for each, and how the
// memory is aligned.
PROBE(operand_places) {
  constexpr uint32_t kProbedElements = 16384;
  uint8_t* identity = memory + 2 * kProbedElements;
  auto* elements = reinterpret_cast<uint16_t*>(memory);
  const uint32_t address = shared_address(memory);
  const uint64_t start = (address + in[0] & 0x3FFFF) >> 4;
  const uint64_t a = start | uint64_t{in[1]} >> 4 << 16 | uint64_t{in[2]} >> 4 << 32 |
                     uint64_t{in[4]} << 49 | uint64_t{in[3]} << 62;
  const uint64_t b = k_major_descriptor<Swizzle::k128B>(shared_address(identity));
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  fill_tile(identity, [](uint32_t row, uint32_t k) { return row == k ? 1.0f : 0.0f; });
  for (uint32_t shift = 0; shift <= 8; shift += 8) {
    for (uint32_t i = threadIdx.x; i < kProbedElements; i += blockDim.x)
      elements[i] = static_cast<uint16_t>(pack_bf16(static_cast<float>(i >> shift & 255), 0));
    fence_async_proxy();
    __syncthreads();
    float d[8];
    if (in[5])
      multiply_and_wait<1, 1, 1>(d, a, b, false);
    else
      multiply_and_wait<1, 1, 0>(d, a, b, false);
    for (uint32_t i = 0; i < 8; ++i) {
      const uint32_t row = 16 * warp + lane / 4 + i / 2 % 2 * 8;
      const uint32_t column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      out[shift * 128 + row * 16 + column] = static_cast<uint32_t>(d[i]);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) out[2048] = address % 1024;
}

// D = A B^T, then D += A' B'^T, of e4m3; `in` has the four matrices, 64 rows
// of 32 bytes each.
PROBE(sums_of_e4m3) {
  auto* words = reinterpret_cast<uint32_t*>(memory);
  for (uint32_t i = threadIdx.x; i < 4 * kTileRows * 8; i += blockDim.x) {
    const uint32_t tile = i / 512, row = i / 8 % kTileRows, word = i % 8;
    const uint32_t offset = swizzled<Swizzle::k128B>(row * 128 + 4 * word);
    words[(tile * kTileBytes + offset) / 4] = in[i];
  }
  fence_async_proxy();
  __syncthreads();
  float d[32];
  const auto descriptor = [](int tile) {
    return k_major_descriptor<Swizzle::k128B>(shared_address(memory + tile * kTileBytes));
  };
  wgmma_fence();
  wgmma<Element::kE4m3, 64>(d, descriptor(0), descriptor(1), false);
  wgmma<Element::kE4m3, 64>(d, descriptor(2), descriptor(3), true);
  wgmma_commit();
  wgmma_wait_all(d);
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t row = 16 * warp + lane / 4 + i / 2 % 2 * 8;
    const uint32_t column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    out[row * 64 + column] = __float_as_uint(d[i]);
  }
}

}  // namespace openweek::tests
