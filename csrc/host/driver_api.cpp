#include "driver_api.h"

#include <dlfcn.h>

namespace openweek::host {
namespace {

template <typename Pointer>
void find(void* library, const char* symbol, Pointer& pointer) {
  pointer = reinterpret_cast<Pointer>(dlsym(library, symbol));
  if (pointer == nullptr) {
    throw CudaError(std::string("libcuda.so.1 has no ") + symbol +
                    " (update the NVIDIA driver: Hopper kernels need CUDA 12 or newer)");
  }
}

std::string describe(const DriverApi& api, Result result, const char* call) {
  const char* name = nullptr;
  const char* text = nullptr;
  api.cuGetErrorName(result, &name);
  api.cuGetErrorString(result, &text);
  return std::string(call) + ": " + (name ? name : "unknown error") + " (" +
         std::to_string(result) + "): " + (text ? text : "the driver has no text for it");
}

DriverApi load() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw CudaError(std::string("no CUDA driver on this machine: ") + dlerror() +
                    " (install the NVIDIA driver, or use CPU tensors)");
  }
  DriverApi api;
  find(library, "cuInit", api.cuInit);
  find(library, "cuDriverGetVersion", api.cuDriverGetVersion);
  find(library, "cuGetErrorName", api.cuGetErrorName);
  find(library, "cuGetErrorString", api.cuGetErrorString);
  find(library, "cuDeviceGet", api.cuDeviceGet);
  find(library, "cuDevicePrimaryCtxRetain", api.cuDevicePrimaryCtxRetain);
  find(library, "cuCtxGetCurrent", api.cuCtxGetCurrent);
  find(library, "cuCtxPushCurrent_v2", api.cuCtxPushCurrent);
  find(library, "cuCtxPopCurrent_v2", api.cuCtxPopCurrent);
  find(library, "cuModuleLoadData", api.cuModuleLoadData);
  find(library, "cuModuleUnload", api.cuModuleUnload);
  find(library, "cuModuleGetFunction", api.cuModuleGetFunction);
  find(library, "cuFuncSetAttribute", api.cuFuncSetAttribute);
  find(library, "cuLaunchKernelEx", api.cuLaunchKernelEx);
  find(library, "cuTensorMapEncodeTiled", api.cuTensorMapEncodeTiled);
  if (Result result = api.cuInit(0)) throw CudaError(describe(api, result, "cuInit"));
  return api;
}

}  // namespace

const DriverApi& driver_api() {
  static const DriverApi api = load();  // a load that throws is tried again by the next call
  return api;
}

void check(Result result, const char* call) {
  if (result != 0) throw CudaError(describe(driver_api(), result, call));
}

}  // namespace openweek::host
