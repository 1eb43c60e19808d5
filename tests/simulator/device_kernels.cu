// Devices that talk through one another's memory: right, or with one bug.
#include <cstdint>

namespace openweek::tests {

enum class Bug {
  kNone,
  kRelaxedRelease,
  kRelaxedAcquire,
  kGpuRelease,
  kGpuAcquire
};

constexpr int kMostDevices = 8;

__device__ __forceinline__ void spin_until(const uint32_t *flag, uint32_t value,
                                           Bug bug) {
  uint32_t seen;
  do {
    if (bug == Bug::kRelaxedAcquire) {
      asm volatile("ld.relaxed.sys.global.u32 %0, [%1];"
                   : "=r"(seen)
                   : "l"(flag)
                   : "memory");
    } else if (bug == Bug::kGpuAcquire) {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                   : "=r"(seen)
                   : "l"(flag)
                   : "memory");
    } else {
      asm volatile("ld.acquire.sys.global.u32 %0, [%1];"
                   : "=r"(seen)
                   : "l"(flag)
                   : "memory");
    }
  } while (seen < value);
}

__device__ __forceinline__ void set(uint32_t *flag, uint32_t value, Bug bug) {
  if (bug == Bug::kRelaxedRelease) {
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value)
                 : "memory");
  } else if (bug == Bug::kGpuRelease) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag), "r"(value)
                 : "memory");
  } else {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(value)
                 : "memory");
  }
}

__device__ __forceinline__ void count(uint32_t *counter, Bug bug) {
  if (bug == Bug::kRelaxedRelease) {
    asm volatile("red.relaxed.sys.global.add.u32 [%0], 1;" ::"l"(counter)
                 : "memory");
  } else if (bug == Bug::kGpuRelease) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter)
                 : "memory");
  } else {
    asm volatile("red.release.sys.global.add.u32 [%0], 1;" ::"l"(counter)
                 : "memory");
  }
}

struct Ring {
  int *gathered[kMostDevices];   // of each device: a chunk of every device
  uint32_t *flags[kMostDevices]; // of each device: which chunks have come
  int *sums;                     // of all that each device has gathered
  int rank;
  int num_devices;
  int chunk;
};

// Every device hands on to the next what it had last: its own chunk, then those
// that come.
template <Bug bug>
__global__ void all_gather(const __grid_constant__ Ring ring) {
  const int rank = ring.rank, n = ring.num_devices, next = (rank + 1) % n;
  for (int step = 0; step < n; ++step) {
    const int from = (rank - step + n) % n;
    if (step > 0) {
      if (threadIdx.x == 0)
        spin_until(ring.flags[rank] + from, 1, bug);
      __syncthreads();
    }
    if (step == n - 1)
      break;
    for (int i = threadIdx.x; i < ring.chunk; i += blockDim.x) {
      ring.gathered[next][from * ring.chunk + i] =
          ring.gathered[rank][from * ring.chunk + i];
    }
    __syncthreads();
    if (threadIdx.x == 0)
      set(ring.flags[next] + from, 1, bug);
  }
  int sum = 0;
  for (int i = threadIdx.x; i < n * ring.chunk; i += blockDim.x)
    sum += ring.gathered[rank][i];
  atomicAdd_system(ring.sums + rank, sum);
}

struct Rounds {
  int *values[kMostDevices]; // of each device
  uint32_t *counter;         // on one of them
  int rank;
  int num_devices;
  int num_rounds;
};

// In each round every device adds up what all wrote in the round before; two
// barriers a round.
template <Bug bug> __global__ void rounds(const __grid_constant__ Rounds work) {
  uint32_t arrived = 0;
  const auto barrier = [&] {
    __syncthreads();
    arrived += work.num_devices;
    if (threadIdx.x == 0) {
      count(work.counter, bug);
      spin_until(work.counter, arrived, bug);
    }
    __syncthreads();
  };
  for (int round = 0; round < work.num_rounds; ++round) {
    int sum = threadIdx.x;
    for (int peer = 0; peer < work.num_devices; ++peer)
      sum += work.values[peer][threadIdx.x];
    barrier();
    work.values[work.rank][threadIdx.x] = sum;
    barrier();
  }
}

struct Reduction {
  float *input; // of this device, and all of them: multicast
  float *multicast_input;
  float *output;
  float *multicast_output;
  uint32_t *flag;
  uint32_t *multicast_flag;
  int rank;
  int num_devices;
  int length; // a multiple of 4 times the devices
};

// Each device adds up its part of all inputs, and sends the sums to all.
template <Bug bug>
__global__ void all_reduce(const __grid_constant__ Reduction work) {
  uint32_t arrived = 0;
  const auto barrier = [&] {
    __syncthreads();
    arrived += work.num_devices;
    if (threadIdx.x == 0) {
      if (bug == Bug::kRelaxedRelease) {
        asm volatile("multimem.red.relaxed.sys.global.add.u32 [%0], 1;" ::"l"(
                         work.multicast_flag)
                     : "memory");
      } else if (bug == Bug::kGpuRelease) {
        asm volatile("multimem.red.release.gpu.global.add.u32 [%0], 1;" ::"l"(
                         work.multicast_flag)
                     : "memory");
      } else {
        asm volatile("multimem.red.release.sys.global.add.u32 [%0], 1;" ::"l"(
                         work.multicast_flag)
                     : "memory");
      }
      spin_until(work.flag, arrived, bug);
    }
    __syncthreads();
  };
  for (int i = threadIdx.x; i < work.length; i += blockDim.x)
    work.input[i] *= 2.0f;
  barrier();
  const int part = work.length / work.num_devices, first = work.rank * part;
  for (int i = first + 4 * threadIdx.x; i < first + part; i += 4 * blockDim.x) {
    float x, y, z, w;
    asm volatile(
        "multimem.ld_reduce.weak.global.add.v4.f32 {%0, %1, %2, %3}, [%4];"
        : "=f"(x), "=f"(y), "=f"(z), "=f"(w)
        : "l"(work.multicast_input + i)
        : "memory");
    asm volatile("multimem.st.weak.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(
                     work.multicast_output + i),
                 "f"(x), "f"(y), "f"(z), "f"(w)
                 : "memory");
  }
  barrier();
  for (int i = threadIdx.x; i < work.length; i += blockDim.x)
    work.output[i] += 1.0f;
}

} // namespace openweek::tests
