// The module openweek_host: what Python sees of the CUDA driver.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "driver_api.h"
#include "launch.h"

namespace openweek::host {
namespace {

namespace py = pybind11;

int driver_version() {
  int version = 0;
  check(driver_api().cuDriverGetVersion(&version), "cuDriverGetVersion");
  return version;
}

py::bytes encode_tiled(int dtype, uintptr_t address, const std::vector<uint64_t>& sizes,
                       const std::vector<uint64_t>& strides, const std::vector<uint32_t>& box,
                       const std::vector<uint32_t>& element_strides, int swizzle, int l2_promotion,
                       int fill) {
  EncodedTensorMap map = {};
  constexpr int kInterleaveNone = 0;
  check(driver_api().cuTensorMapEncodeTiled(&map, dtype, static_cast<uint32_t>(sizes.size()),
                                            reinterpret_cast<void*>(address), sizes.data(),
                                            strides.data(), box.data(), element_strides.data(),
                                            kInterleaveNone, swizzle, l2_promotion, fill),
        "cuTensorMapEncodeTiled");
  return py::bytes(reinterpret_cast<const char*>(map.bytes), sizeof(map.bytes));
}

PreparedLaunch* prepare(const std::string& cubin, const std::string& name, int device,
                        const Extent& block, const Extent& cluster, unsigned dynamic_shared_bytes,
                        bool programmatic, std::vector<size_t> parameter_offsets,
                        size_t parameter_bytes) {
  return new PreparedLaunch(cubin, name, device,
                            {block, cluster, dynamic_shared_bytes, programmatic},
                            std::move(parameter_offsets), parameter_bytes);
}

// Called once per launch: plain numbers, no containers to convert. A launch blocks while the
// stream's queue is full, and other threads must be able to go on meanwhile.
void run(const PreparedLaunch& launch, const py::bytes& parameters, unsigned grid_x,
         unsigned grid_y, unsigned grid_z, uintptr_t stream) {
  const std::string_view bytes = parameters;
  py::gil_scoped_release released;
  launch.run(bytes, {grid_x, grid_y, grid_z}, reinterpret_cast<Stream>(stream));
}

PYBIND11_MODULE(openweek_host, module) {
  py::register_exception<CudaError>(module, "CudaError", PyExc_RuntimeError);
  module.def("driver_version", &driver_version);
  module.def("encode_tiled", &encode_tiled);
  py::class_<PreparedLaunch>(module, "PreparedLaunch")
      .def(py::init(&prepare), py::arg("cubin"), py::arg("name"), py::arg("device"),
           py::arg("block"), py::arg("cluster"), py::arg("dynamic_shared_bytes"),
           py::arg("programmatic"), py::arg("parameter_offsets"), py::arg("parameter_bytes"))
      .def("run", &run);
}

}  // namespace
}  // namespace openweek::host
