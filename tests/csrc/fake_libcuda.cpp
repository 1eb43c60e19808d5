// A CUDA driver that does nothing but write down what it is asked, one line per
// call.
//
// It is compiled with NVIDIA's cuda.h, so a structure or a constant that the
// caller declares differently shows in what it writes. Failures are ordered by
// the environment: FAKE_CUDA_FAIL names the call that fails.
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

CUcontext current = nullptr;

template <typename... Values>
CUresult record(const char *call, const char *format, Values... values) {
  std::FILE *log = std::fopen(std::getenv("FAKE_CUDA_LOG"), "a");
  std::fprintf(log, "%s", call);
  std::fprintf(log, format, values...);
  std::fprintf(log, "\n");
  std::fclose(log);
  const char *fails = std::getenv("FAKE_CUDA_FAIL");
  return fails && !std::strcmp(fails, call) ? CUDA_ERROR_INVALID_VALUE
                                            : CUDA_SUCCESS;
}

CUcontext context(int device) {
  return reinterpret_cast<CUcontext>(0x1000ul + device);
}

} // namespace

extern "C" {

CUresult cuInit(unsigned flags) { return record("cuInit", " %u", flags); }

CUresult cuDriverGetVersion(int *version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **name) {
  *name =
      error == CUDA_ERROR_INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE" : nullptr;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = error == CUDA_ERROR_INVALID_VALUE ? "invalid argument" : nullptr;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *primary, CUdevice device) {
  *primary = context(device);
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *answer) {
  *answer = current;
  return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext pushed) {
  current = pushed;
  return record("cuCtxPushCurrent", " %p", static_cast<void *>(pushed));
}

CUresult cuCtxPopCurrent(CUcontext *) {
  current = nullptr;
  return record("cuCtxPopCurrent", "");
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  *module = reinterpret_cast<CUmodule>(0x2000ul);
  return record("cuModuleLoadData", " %s", static_cast<const char *>(image));
}

CUresult cuModuleUnload(CUmodule) { return record("cuModuleUnload", ""); }

CUresult cuModuleGetFunction(CUfunction *function, CUmodule, const char *name) {
  *function = reinterpret_cast<CUfunction>(0x3000ul);
  return record("cuModuleGetFunction", " %s", name);
}

CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute attribute,
                            int value) {
  const char *name =
      attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES ? "shared"
      : attribute == CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
          ? "cluster"
          : "?";
  return record("cuFuncSetAttribute", " %s %d", name, value);
}

// The tests' kernel takes a pointer, a 32-bit and a 64-bit integer.
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction,
                          void **parameters, void **) {
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const CUlaunchAttribute &attribute = config->attrs[i];
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
      const auto &cluster = attribute.value.clusterDim;
      record("cluster", " %u %u %u", cluster.x, cluster.y, cluster.z);
    } else if (attribute.id ==
               CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) {
      record("programmatic", " %d",
             attribute.value.programmaticStreamSerializationAllowed);
    } else {
      record("unknown attribute", " %d", static_cast<int>(attribute.id));
    }
  }
  return record(
      "cuLaunchKernelEx",
      " grid %u %u %u block %u %u %u shared %u stream %p values %llx %d %lld",
      config->gridDimX, config->gridDimY, config->gridDimZ, config->blockDimX,
      config->blockDimY, config->blockDimZ, config->sharedMemBytes,
      static_cast<void *>(config->hStream),
      *static_cast<unsigned long long *>(parameters[0]),
      *static_cast<int *>(parameters[1]),
      *static_cast<long long *>(parameters[2]));
}

CUresult cuTensorMapEncodeTiled(
    CUtensorMap *map, CUtensorMapDataType dtype, cuuint32_t rank, void *address,
    const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
    const cuuint32_t *element_strides, CUtensorMapInterleave interleave,
    CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
    CUtensorMapFloatOOBfill fill) {
  for (unsigned char &byte :
       reinterpret_cast<unsigned char (&)[sizeof(CUtensorMap)]>(*map)) {
    byte = 0xab;
  }
  for (cuuint32_t i = 0; i < rank; ++i) {
    record("dim", " %llu %llu %u %u", static_cast<unsigned long long>(sizes[i]),
           static_cast<unsigned long long>(i ? strides[i - 1] : 0), box[i],
           element_strides[i]);
  }
  return record("cuTensorMapEncodeTiled",
                " %p bf16 %d none %d 128B %d 64B %d nan %d", address,
                dtype == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                interleave == CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle == CU_TENSOR_MAP_SWIZZLE_128B,
                promotion == CU_TENSOR_MAP_L2_PROMOTION_L2_64B,
                fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
}

} // extern "C"
