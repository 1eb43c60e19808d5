// Planted races on global memory: between warps, between clusters, with flags that order too
// little.
#include "planted.cuh"

namespace openweek::tests {

// Names the source for the compiler; all other kernels are instances of templates.
__global__ void global_races() {}

enum class Order { kRelaxed, kOrdered, kVolatile };

template <Order kOrder>
__device__ __forceinline__ void raise(uint32_t* flag) {
  if (kOrder == Order::kOrdered) {
    asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(flag) : "memory");
  } else if (kOrder == Order::kRelaxed) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], 1;" ::"l"(flag) : "memory");
  } else {
    asm volatile("st.volatile.global.u32 [%0], 1;" ::"l"(flag) : "memory");
  }
}

template <Order kOrder>
__device__ __forceinline__ void await(const uint32_t* flag, uint32_t wanted = 1) {
  uint32_t value = 0;
  while (value < wanted) {
    if (kOrder == Order::kOrdered) {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    } else if (kOrder == Order::kRelaxed) {
      asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    } else {
      asm volatile("ld.volatile.global.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
    }
  }
}

// Where words lie that kernels use: data, flags, results.
constexpr int kData = 0, kFlag = 1024, kFlag2 = 1056, kResult = 2048;

// ---- one flag from CTA 0 to CTA 1 ----

template <Order kWriter, Order kReader, bool kWriterFences = false, bool kReaderFences = false>
__device__ __forceinline__ void publish(const Args& args) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    args.words[kData] = 1;  // written
    if (kWriterFences) __threadfence();
    raise<kWriter>(args.words + kFlag);
  } else {
    await<kReader>(args.words + kFlag);
    if (kReaderFences) __threadfence();
    args.words[kResult] = args.words[kData];  // read
  }
}

template <bool kRepaired>
__global__ void relaxed_flag(const __grid_constant__ Args args) {
  constexpr Order kOrder = kRepaired ? Order::kOrdered : Order::kRelaxed;
  publish<kOrder, kOrder>(args);  // [one] [other]
}
OPENWEEK_PLANTED(relaxed_flag)

template <bool kRepaired>
__global__ void volatile_flag(const __grid_constant__ Args args) {
  constexpr Order kOrder = kRepaired ? Order::kOrdered : Order::kVolatile;
  publish<kOrder, kOrder>(args);  // [one] [other]
}
OPENWEEK_PLANTED(volatile_flag)

template <bool kRepaired>
__global__ void release_missing(const __grid_constant__ Args args) {
  constexpr Order kOrder = kRepaired ? Order::kOrdered : Order::kRelaxed;
  publish<kOrder, Order::kOrdered>(args);  // [one] [other]
}
OPENWEEK_PLANTED(release_missing)

template <bool kRepaired>
__global__ void acquire_missing(const __grid_constant__ Args args) {
  constexpr Order kOrder = kRepaired ? Order::kOrdered : Order::kRelaxed;
  publish<Order::kOrdered, kOrder>(args);  // [one] [other]
}
OPENWEEK_PLANTED(acquire_missing)

template <bool kRepaired>
__global__ void fence_of_the_writer_missing(const __grid_constant__ Args args) {
  publish<Order::kRelaxed, Order::kRelaxed, kRepaired, true>(args);  // [one] [other]
}
OPENWEEK_PLANTED(fence_of_the_writer_missing)

template <bool kRepaired>
__global__ void fence_of_the_reader_missing(const __grid_constant__ Args args) {
  publish<Order::kRelaxed, Order::kRelaxed, true, kRepaired>(args);  // [one] [other]
}
OPENWEEK_PLANTED(fence_of_the_reader_missing)

// A flag that is itself written and read plainly.
template <bool kRepaired>
__global__ void plain_flag(const __grid_constant__ Args args) {
  if (threadIdx.x != 0) return;
  uint32_t* flag = args.words + kFlag;
  if (blockIdx.x == 0) {
    if (kRepaired) {
      raise<Order::kOrdered>(flag);
    } else {
      *flag = 1;  // [one]
    }
  } else {
    await<Order::kOrdered>(flag);  // [other]
  }
}
OPENWEEK_PLANTED(plain_flag)

// Written too late: the release hands on what came before it.
template <bool kRepaired>
__global__ void written_after_the_release(const __grid_constant__ Args args) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    if (!kRepaired) raise<Order::kOrdered>(args.words + kFlag);
    args.words[kData] = 1;  // [one]
    if (kRepaired) raise<Order::kOrdered>(args.words + kFlag);
  } else {
    await<Order::kOrdered>(args.words + kFlag);
    args.words[kResult] = args.words[kData];  // [other]
  }
}
OPENWEEK_PLANTED(written_after_the_release)

// The flag is one thread's; what the others wrote must come to that thread first.
template <bool kRepaired>
__global__ void block_barrier_before_the_flag(const __grid_constant__ Args args) {
  if (blockIdx.x == 0) {
    args.words[kData + threadIdx.x] = 1;  // [one]
    if (kRepaired) __syncthreads();
    if (threadIdx.x == 0) raise<Order::kOrdered>(args.words + kFlag);
  } else {
    if (threadIdx.x == 0) await<Order::kOrdered>(args.words + kFlag);
    __syncthreads();
    args.words[kResult + threadIdx.x] = args.words[kData + threadIdx.x];  // [other]
  }
}
OPENWEEK_PLANTED(block_barrier_before_the_flag)

template <bool kRepaired>
__global__ void block_barrier_behind_the_flag(const __grid_constant__ Args args) {
  if (blockIdx.x == 0) {
    args.words[kData + threadIdx.x] = 1;  // [one]
    __syncthreads();
    if (threadIdx.x == 0) raise<Order::kOrdered>(args.words + kFlag);
  } else {
    if (threadIdx.x == 0) await<Order::kOrdered>(args.words + kFlag);
    if (kRepaired) __syncthreads();
    args.words[kResult + threadIdx.x] = args.words[kData + threadIdx.x];  // [other]
  }
}
OPENWEEK_PLANTED(block_barrier_behind_the_flag)

// ---- three CTAs ----

template <bool kRepaired>
__global__ void three_parties(const __grid_constant__ Args args) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    args.words[kData] = 1;  // [one]
    raise<Order::kOrdered>(args.words + kFlag);
  } else if (blockIdx.x == 1) {
    await<Order::kOrdered>(args.words + kFlag);
    raise<kRepaired ? Order::kOrdered : Order::kRelaxed>(args.words + kFlag2);
  } else {
    await<Order::kOrdered>(args.words + kFlag2);
    args.words[kResult] = args.words[kData];  // [other]
  }
}
OPENWEEK_PLANTED(three_parties)

// The last of three CTAs to count reads what all have written.
template <bool kOrdered>
__device__ __forceinline__ uint32_t count(uint32_t* counter) {
  uint32_t before;
  if (kOrdered) {
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
  } else {
    asm volatile("atom.add.relaxed.gpu.global.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
  }
  return before;
}

template <bool kRepaired>
__global__ void last_one_sums(const __grid_constant__ Args args) {
  if (threadIdx.x != 0) return;
  args.words[kData + 32 * blockIdx.x] = 1;  // [one]
  if (count<kRepaired>(args.words + kFlag) == 2) {
    uint32_t sum = 0;
    for (int i = 0; i < 3; ++i) sum += args.words[kData + 32 * i];  // [other]
    args.words[kResult] = sum;
  }
}
OPENWEEK_PLANTED(last_one_sums)

// Those who count do not race with one another, but with the one that begins at zero.
template <bool kRepaired>
__global__ void counts_before_zero(const __grid_constant__ Args args) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    args.words[kData] = 0;  // [one]
    count<false>(args.words + kData);
    raise<Order::kOrdered>(args.words + kFlag);
  } else {
    if (kRepaired) await<Order::kOrdered>(args.words + kFlag);
    count<false>(args.words + kData);  // [other]
  }
}
OPENWEEK_PLANTED(counts_before_zero)

// A barrier of all CTAs.
template <bool kRepaired>
__global__ void barrier_of_the_grid(const __grid_constant__ Args args) {
  const uint32_t peer = (blockIdx.x + 1) % gridDim.x;
  args.words[kData + 128 * blockIdx.x + threadIdx.x] = blockIdx.x;  // [one]
  __syncthreads();
  if (threadIdx.x == 0) {
    count<kRepaired>(args.words + kFlag);
    await<Order::kOrdered>(args.words + kFlag, gridDim.x);
  }
  __syncthreads();
  const uint32_t read = args.words[kData + 128 * peer + threadIdx.x];  // [other]
  args.words[kResult + 128 * blockIdx.x + threadIdx.x] = read;
}
OPENWEEK_PLANTED(barrier_of_the_grid)

// ---- overwritten before it is read ----

// CTA 1 overwrites what CTA 0 reads, in its turn or not.
template <bool kRepaired>
__global__ void overwritten_before_its_turn(const __grid_constant__ Args args) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    args.words[kResult] = args.words[kData];  // [one]
    raise<Order::kOrdered>(args.words + kFlag);
  } else {
    if (kRepaired) await<Order::kOrdered>(args.words + kFlag);
    args.words[kData] = 1;  // [other]
  }
}
OPENWEEK_PLANTED(overwritten_before_its_turn)

// The write comes later in every run, and nothing says that it must.
template <bool kRepaired>
__global__ void overwritten_by_good_luck(const __grid_constant__ Args args) {
  constexpr Order kOrder = kRepaired ? Order::kOrdered : Order::kRelaxed;
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    args.words[kResult] = args.words[kData];  // [one]
    raise<kOrder>(args.words + kFlag);
  } else {
    await<kOrder>(args.words + kFlag);
    args.words[kData] = 1;  // [other]
  }
}
OPENWEEK_PLANTED(overwritten_by_good_luck)

// Both CTAs read, and only one of them says so.
template <bool kRepaired>
__global__ void one_of_two_readers(const __grid_constant__ Args args) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x < 2) {
    args.words[kResult + blockIdx.x] = args.words[kData];  // [one]
    count<kRepaired>(args.words + kFlag);
  } else {
    await<Order::kOrdered>(args.words + kFlag, 2);
    args.words[kData] = 1;  // [other]
  }
}
OPENWEEK_PLANTED(one_of_two_readers)

template <bool kRepaired>
__global__ void copied_by_good_luck(const __grid_constant__ Args args) {
  Shared& s = shared();
  constexpr Order kOrder = kRepaired ? Order::kOrdered : Order::kRelaxed;
  set_up(s, 1);
  if (blockIdx.x == 0) {
    if (threadIdx.x == 0) bulk_load(s.a[0], args.words + kData, s.full[0]);  // [one]
    s.full[0].wait(0);
    if (threadIdx.x == 0) raise<kOrder>(args.words + kFlag + 1536);
  } else if (threadIdx.x == 0) {
    await<kOrder>(args.words + kFlag + 1536);
    args.words[kData] = 1;  // [other]
  }
}
OPENWEEK_PLANTED(copied_by_good_luck)

// Within one CTA.
template <bool kRepaired>
__global__ void warps_write_after_read(const __grid_constant__ Args args) {
  args.words[kResult + threadIdx.x] = args.words[kData + (threadIdx.x ^ 32)];  // [one]
  if (kRepaired) __syncthreads();
  args.words[kData + threadIdx.x] = 1;  // [other]
}
OPENWEEK_PLANTED(warps_write_after_read)

template <bool kRepaired>
__global__ void warps_read_after_write(const __grid_constant__ Args args) {
  args.words[kData + threadIdx.x] = 1;  // [one]
  if (kRepaired) __syncthreads();
  args.words[kResult + threadIdx.x] = args.words[kData + (threadIdx.x ^ 32)];  // [other]
}
OPENWEEK_PLANTED(warps_read_after_write)

template <bool kRepaired>
__global__ void lanes_read_after_write(const __grid_constant__ Args args) {
  args.words[kData + threadIdx.x] = 1;  // [one]
  if (kRepaired) __syncwarp();
  args.words[kResult + threadIdx.x] = args.words[kData + (threadIdx.x ^ 1)];  // [other]
}
OPENWEEK_PLANTED(lanes_read_after_write)

// ---- CTAs that could not order themselves if they wanted to ----

template <bool kRepaired>
__global__ void both_write(const __grid_constant__ Args args) {
  args.words[threadIdx.x + (kRepaired ? 32 * blockIdx.x : 0)] = blockIdx.x;  // [one] [other]
}
OPENWEEK_PLANTED(both_write)

template <bool kRepaired>
__global__ void both_write_the_same(const __grid_constant__ Args args) {
  if (!kRepaired || blockIdx.x == 0) args.words[threadIdx.x] = 7;  // [one] [other]
}
OPENWEEK_PLANTED(both_write_the_same)

template <bool kRepaired>
__global__ void one_reads_what_the_other_writes(const __grid_constant__ Args args) {
  if (blockIdx.x == 0) args.words[kData + threadIdx.x] = 1;  // [one]
  if (blockIdx.x == (kRepaired ? 0 : 1)) {
    args.words[kResult + threadIdx.x] = args.words[kData + threadIdx.x];  // [other]
  }
}
OPENWEEK_PLANTED(one_reads_what_the_other_writes)

template <bool kRepaired>
__global__ void one_writes_what_the_other_reads(const __grid_constant__ Args args) {
  if (blockIdx.x == (kRepaired ? 1 : 0)) {
    args.words[kResult + threadIdx.x] = args.words[kData + threadIdx.x];  // [one]
  }
  if (blockIdx.x == 1) args.words[kData + threadIdx.x] = 1;  // [other]
}
OPENWEEK_PLANTED(one_writes_what_the_other_reads)

// ---- copies into global memory ----

// The stored box is there when the store is done, not when it has been read.
template <bool kRepaired>
__global__ void store_only_read(const __grid_constant__ Args args) {
  Shared& s = shared();
  uint32_t* flag = args.words + kFlag + 1536;
  if (blockIdx.x == 0) {
    write_panel(s.a[0]);
    fence_async_proxy();
    __syncthreads();
    if (threadIdx.x == 0) {
      bulk_store(args.words + kData, s.a[0]);  // [one]
      tma_store_commit();
      if (kRepaired) tma_store_wait<0>();
      tma_store_wait_read<0>();
      raise<Order::kOrdered>(flag);
    }
  } else if (threadIdx.x == 0) {
    await<Order::kOrdered>(flag);
    args.words[kFlag + 1537] = args.words[kData];  // [other]
  }
}
OPENWEEK_PLANTED(store_only_read)

// Ordered by the flag, but the copy engine reads through a proxy of its own.
template <bool kRepaired>
__global__ void unfenced_for_the_copy(const __grid_constant__ Args args) {
  Shared& s = shared();
  uint32_t* flag = args.words + kFlag + 1536;
  set_up(s, 1);
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    args.words[kData] = 1;  // [one]
    raise<Order::kOrdered>(flag);
  } else {
    await<Order::kOrdered>(flag);
    if (kRepaired) asm volatile("fence.proxy.async.global;" ::: "memory");
    bulk_load(s.a[0], args.words + kData, s.full[0]);  // [other]
    s.full[0].wait(0);
  }
}
OPENWEEK_PLANTED(unfenced_for_the_copy)

}  // namespace openweek::tests
