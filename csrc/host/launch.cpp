#include "launch.h"

#include <stdexcept>
#include <utility>

namespace openweek::host {
namespace {

constexpr size_t kMaxParameters = 64;
constexpr unsigned kMaxPortableClusterCtas = 8;

// Makes a context current for a scope. A thread that torch has not used has none, and on the
// default stream it is the current context that decides which device runs the kernel.
class CurrentContext {
 public:
  explicit CurrentContext(Context wanted) {
    Context current = nullptr;
    check(driver_api().cuCtxGetCurrent(&current), "cuCtxGetCurrent");
    if (current == wanted) return;
    check(driver_api().cuCtxPushCurrent(wanted), "cuCtxPushCurrent");
    pushed_ = true;
  }
  ~CurrentContext() {
    Context popped = nullptr;
    if (pushed_) driver_api().cuCtxPopCurrent(&popped);
  }
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

 private:
  bool pushed_ = false;
};

// The context that torch and the CUDA runtime use too. It is kept until the process ends.
Context primary_context(int ordinal) {
  Device device = 0;
  Context context = nullptr;
  check(driver_api().cuDeviceGet(&device, ordinal), "cuDeviceGet");
  check(driver_api().cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
  return context;
}

void allow(Function function, const LaunchShape& shape) {
  if (shape.dynamic_shared_bytes > 0) {
    check(driver_api().cuFuncSetAttribute(function, kFunctionMaxDynamicSharedBytes,
                                          static_cast<int>(shape.dynamic_shared_bytes)),
          "cuFuncSetAttribute(max dynamic shared memory)");
  }
  const auto& [x, y, z] = shape.cluster;
  if (x * y * z > kMaxPortableClusterCtas) {
    check(driver_api().cuFuncSetAttribute(function, kFunctionNonPortableClusterAllowed, 1),
          "cuFuncSetAttribute(non-portable cluster)");
  }
}

}  // namespace

PreparedLaunch::PreparedLaunch(const std::string& cubin, const std::string& name, int device,
                               const LaunchShape& shape, std::vector<size_t> parameter_offsets,
                               size_t parameter_bytes)
    : context_(primary_context(device)),
      shape_(shape),
      parameter_offsets_(std::move(parameter_offsets)),
      parameter_bytes_(parameter_bytes) {
  if (parameter_offsets_.size() > kMaxParameters) {
    throw std::invalid_argument("launch: a kernel may have 64 parameters (use a struct)");
  }
  CurrentContext current(context_);
  check(driver_api().cuModuleLoadData(&module_, cubin.data()), "cuModuleLoadData");
  try {
    check(driver_api().cuModuleGetFunction(&function_, module_, name.c_str()),
          "cuModuleGetFunction");
    allow(function_, shape_);
  } catch (...) {
    driver_api().cuModuleUnload(module_);
    throw;
  }
}

PreparedLaunch::~PreparedLaunch() {
  // Unloading waits for kernels that run; at the end of the process the driver may be gone, and
  // then every call returns an error that means nothing.
  Context popped = nullptr;
  if (driver_api().cuCtxPushCurrent(context_) != 0) return;
  driver_api().cuModuleUnload(module_);
  driver_api().cuCtxPopCurrent(&popped);
}

void PreparedLaunch::run(std::string_view parameters, const Extent& grid, Stream stream) const {
  if (parameters.size() != parameter_bytes_) {
    throw std::invalid_argument("launch: parameters must have " + std::to_string(parameter_bytes_) +
                                " bytes, got " + std::to_string(parameters.size()));
  }
  void* pointers[kMaxParameters];
  for (size_t i = 0; i < parameter_offsets_.size(); ++i) {
    pointers[i] = const_cast<char*>(parameters.data()) + parameter_offsets_[i];
  }
  LaunchAttribute attributes[2] = {};
  unsigned num_attributes = 0;
  const auto& [x, y, z] = shape_.cluster;
  if (x * y * z > 1) {
    attributes[num_attributes].id = kLaunchClusterDimension;
    attributes[num_attributes++].value.cluster = {x, y, z};
  }
  if (shape_.programmatic) {
    attributes[num_attributes].id = kLaunchProgrammaticStreamSerialization;
    attributes[num_attributes++].value.flag = 1;
  }
  const auto& block = shape_.block;
  const LaunchConfig config{
      grid[0], grid[1],    grid[2],       block[0], block[1], block[2], shape_.dynamic_shared_bytes,
      stream,  attributes, num_attributes};
  CurrentContext current(context_);
  check(driver_api().cuLaunchKernelEx(&config, function_, pointers, nullptr), "cuLaunchKernelEx");
}

}  // namespace openweek::host
