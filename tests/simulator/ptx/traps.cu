// Compiles to one of each construct of PTX that a parser stumbles over; traps.ptx is its output:
// nvcc -ptx -lineinfo -arch=sm_90a traps.cu
#include <cstdint>
#include <cstdio>

// An address inside a packed structure becomes eight masked bytes.
struct __attribute__((packed)) Tagged {
  char tag;
  const int* pointer;
};

__device__ int table[4] = {1, -2, 3};
__device__ Tagged tagged = {'t', table + 2};
__device__ const int* pointers[3] = {table, table + 1, nullptr};
__constant__ float coefficients[4] = {1.5f, -2.0f};
__device__ double pi = 3.141592653589793;
extern __shared__ int dynamic[];

struct Pair {
  double first;
  int second;
};

__device__ __noinline__ Pair make_pair(double first, int second) { return {first * 2, second + 1}; }

__device__ __noinline__ int factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }

__device__ __noinline__ int doubled(int n) { return 2 * n; }
__device__ __noinline__ int squared(int n) { return n * n; }
__device__ int (*operations[2])(int) = {doubled, squared};

// Inline assembly repeats the names in its own block, wherever the compiler copies it.
__device__ __forceinline__ void wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred P1;\n"
      "LAB_WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 P1, [%0], %1;\n"
      "@P1 bra DONE;\n"
      "bra LAB_WAIT;\n"
      "DONE:\n"
      "}" ::"r"(barrier),
      "r"(parity));
}

extern "C" __global__ void waits(uint32_t barrier) {
  wait(barrier, 0);
  wait(barrier, 1);
  asm volatile("fence.proxy.async;" ::: "memory");
}

extern "C" __global__ void __launch_bounds__(256, 2) __cluster_dims__(2, 1, 1)
    calls(int* out, int which, const __grid_constant__ Pair pair) {
  const Pair made = make_pair(pair.first, pair.second);
  out[0] = operations[which](factorial(made.second));
  out[1] = dynamic[threadIdx.x] + *tagged.pointer + *pointers[which];
  printf("%f %d\n", made.first * pi + coefficients[which], out[0]);
}

extern "C" __global__ void shuffles(float4* out, const float4* in, float scale) {
  __shared__ alignas(128) float4 tile[32];
  float4 value = in[threadIdx.x];
  value.x = __shfl_xor_sync(0xffffffffu, value.x, 16) * -1.0f;
  value.y = __ballot_sync(0xffffffffu, value.y > scale) ? 0.5f : __int_as_float(0x7f800000);
  tile[threadIdx.x] = value;
  __syncthreads();
  out[threadIdx.x] = tile[31 - threadIdx.x];
}
