// The few functions of the CUDA driver that a launch needs, found at run time.
//
// The types are declared here and not taken from cuda.h, so that this builds, and imports, on a
// machine without CUDA. Values and layouts are those of the driver's stable binary interface; a
// test compares them with cuda.h where there is one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace openweek::host {

using Result = int;
using Device = int;
using Context = struct ContextHandle*;
using Module = struct ModuleHandle*;
using Function = struct FunctionHandle*;
using Stream = struct StreamHandle*;

constexpr int kFunctionMaxDynamicSharedBytes = 8;
constexpr int kFunctionNonPortableClusterAllowed = 14;
constexpr unsigned kLaunchClusterDimension = 4;
constexpr unsigned kLaunchProgrammaticStreamSerialization = 6;

struct LaunchAttribute {
  unsigned id;
  unsigned padding;
  union Value {
    struct {
      unsigned x, y, z;
    } cluster;
    int flag;
    char bytes[64];
  } value;
};
static_assert(sizeof(LaunchAttribute) == 72);

struct LaunchConfig {
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned dynamic_shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  unsigned num_attributes;
};
static_assert(sizeof(LaunchConfig) == 56 && offsetof(LaunchConfig, stream) == 32);

struct alignas(64) EncodedTensorMap {
  unsigned char bytes[128];
};

// A call of the driver failed, or there is no driver: "cuModuleLoadData: CUDA_ERROR_... (209):
// ...".
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct DriverApi {
  Result (*cuInit)(unsigned flags);
  Result (*cuDriverGetVersion)(int* version);
  Result (*cuGetErrorName)(Result, const char** name);
  Result (*cuGetErrorString)(Result, const char** text);
  Result (*cuDeviceGet)(Device*, int ordinal);
  Result (*cuDevicePrimaryCtxRetain)(Context*, Device);
  Result (*cuCtxGetCurrent)(Context*);
  Result (*cuCtxPushCurrent)(Context);
  Result (*cuCtxPopCurrent)(Context*);
  Result (*cuModuleLoadData)(Module*, const void* image);
  Result (*cuModuleUnload)(Module);
  Result (*cuModuleGetFunction)(Function*, Module, const char* name);
  Result (*cuFuncSetAttribute)(Function, int attribute, int value);
  Result (*cuLaunchKernelEx)(const LaunchConfig*, Function, void** parameters, void** extra);
  Result (*cuTensorMapEncodeTiled)(EncodedTensorMap*, int dtype, uint32_t rank, void* address,
                                   const uint64_t* sizes, const uint64_t* strides,
                                   const uint32_t* box, const uint32_t* element_strides,
                                   int interleave, int swizzle, int l2_promotion, int fill);
};

// The driver, loaded and initialised by the first call; throws CudaError where there is none.
const DriverApi& driver_api();

// Throws CudaError with the driver's words unless the result is success.
void check(Result result, const char* call);

}  // namespace openweek::host
