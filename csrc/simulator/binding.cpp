// What Python sees of the simulator.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "errors.h"
#include "lowering.h"
#include "machine.h"
#include "ptx.h"

namespace py = pybind11;

namespace openweek::simulator {
namespace {

// A parsed module with the memory of its variables. Kernels are lowered when they are asked for.
class Module {
 public:
  explicit Module(const std::string& text)
      : module_(ptx::parse(text)), memory_(std::make_unique<ModuleMemory>(module_)) {}

  std::vector<std::string> kernels() const {
    std::vector<std::string> names;
    for (const ptx::Function& function : module_.functions) {
      if (function.is_entry && !function.is_declaration) names.push_back(function.name);
    }
    return names;
  }

  // Of those that a host cannot launch.
  std::vector<std::string> functions() const {
    std::vector<std::string> names;
    for (const ptx::Function& function : module_.functions) {
      if (!function.is_entry || function.is_declaration) names.push_back(function.name);
    }
    return names;
  }

  std::shared_ptr<const Program> kernel(const std::string& name) {
    return std::make_shared<const Program>(Lowering(module_, *memory_).kernel(name));
  }

  void allow(GlobalMemory& memory) const {
    for (const ModuleMemory::Block& block : memory_->blocks()) {
      const auto begin = reinterpret_cast<std::uint64_t>(block.bytes);
      memory.allow({begin, begin + static_cast<std::uint64_t>(block.num_bytes), block.name});
    }
  }

 private:
  ptx::Module module_;
  std::unique_ptr<ModuleMemory> memory_;
};

using NamedRange = std::tuple<std::uint64_t, std::uint64_t, std::string>;

void launch(Machine& machine, std::shared_ptr<Module> module,
            std::shared_ptr<const Program> program, const Dim3& grid, const Dim3& block,
            const Dim3& cluster, std::int64_t dynamic_shared_bytes, const py::bytes& arguments,
            const std::vector<NamedRange>& ranges, int device, int registers_per_thread,
            bool programmatic) {
  Launch made;
  made.program = std::move(program);
  made.config = {grid,        block, cluster, dynamic_shared_bytes, device, registers_per_thread,
                 programmatic};
  const std::string bytes = arguments;
  made.arguments.resize((bytes.size() + sizeof(ArgumentBlock) - 1) / sizeof(ArgumentBlock) + 1);
  made.argument_bytes = static_cast<std::int64_t>(bytes.size());
  std::memcpy(made.arguments.data(), bytes.data(), bytes.size());
  for (const auto& [begin, end, name] : ranges) made.memory.allow({begin, end, name});
  module->allow(made.memory);
  made.owner = std::move(module);
  machine.launch(std::move(made));
}

// To Python's own sys.stdout, which notebooks and tests replace. A kernel may print any bytes.
void print(const std::string& text) {
  if (text.empty()) return;
  const py::gil_scoped_acquire acquire;
  const py::object out = py::module_::import("sys").attr("stdout");
  if (!out.is_none()) out.attr("write")(py::bytes(text).attr("decode")("utf-8", "replace"));
}

py::dict run(Machine& machine, int num_threads) {
  RunReport report;
  {
    const py::gil_scoped_release release;
    const auto poll = [] {
      const py::gil_scoped_acquire acquire;
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    };
    report = machine.run(num_threads, poll, print);
  }
  py::dict result;
  result["num_instructions"] = report.num_instructions;
  result["num_slices"] = report.num_slices;
  result["num_ctas"] = report.num_ctas;
  result["num_wgmmas"] = report.num_wgmmas;
  result["num_bulk_copies"] = report.num_bulk_copies;
  return result;
}

py::list parameters(const Program& program) {
  py::list list;
  for (const Parameter& parameter : program.parameters) {
    list.append(py::make_tuple(parameter.name, parameter.offset, parameter.num_bytes));
  }
  return list;
}

}  // namespace

PYBIND11_MODULE(MODULE_NAME, binding) {
  py::register_exception<ptx::PtxError>(binding, "PtxError", PyExc_ValueError);
  py::register_exception<UnsupportedError>(binding, "UnsupportedError", PyExc_NotImplementedError);
  py::register_exception<HazardError>(binding, "HazardError", PyExc_RuntimeError);
  py::register_exception<DeadlockError>(binding, "DeadlockError", PyExc_RuntimeError);
  py::class_<Program, std::shared_ptr<Program>>(binding, "Program")
      .def_property_readonly("name", [](const Program& program) { return program.name; })
      .def_property_readonly("parameters", parameters)
      .def_property_readonly("parameter_bytes",
                             [](const Program& program) { return program.parameter_bytes; })
      .def_property_readonly("local_bytes",
                             [](const Program& program) { return program.local_bytes; })
      .def_property_readonly("shared_bytes",
                             [](const Program& program) { return program.shared_bytes; })
      .def_property_readonly("max_threads",
                             [](const Program& program) { return program.max_threads; })
      .def_property_readonly("required_threads",
                             [](const Program& program) { return program.required_threads; })
      .def_property_readonly("required_cluster",
                             [](const Program& program) { return program.required_cluster; });
  py::class_<Module, std::shared_ptr<Module>>(binding, "Module")
      .def(py::init<const std::string&>())
      .def("kernels", &Module::kernels)
      .def("functions", &Module::functions)
      .def("kernel", [](Module& module, const std::string& name) {
        return std::const_pointer_cast<Program>(module.kernel(name));
      });
  binding.def("opcodes", opcodes);
  py::class_<Machine>(binding, "Machine")
      .def(py::init([](int num_devices, int num_sms, std::uint64_t seed, bool reduced_fp8,
                       std::uint64_t max_instructions) {
        return Machine({num_devices, num_sms, seed, reduced_fp8, max_instructions});
      }))
      .def("multicast", &Machine::multicast)
      .def("launch", launch)
      .def("run", run);
}

}  // namespace openweek::simulator
