// The parser as a Python module of its own: a PTX text becomes dicts, lists and tuples.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "ptx.h"

namespace openweek::simulator::ptx {
namespace {

namespace py = pybind11;

const char* kind_name(Operand::Kind kind) {
  switch (kind) {
    case Operand::Kind::kRegister:
      return "register";
    case Operand::Kind::kSpecial:
      return "special";
    case Operand::Kind::kInteger:
      return "integer";
    case Operand::Kind::kFloat32:
      return "float32";
    case Operand::Kind::kFloat64:
      return "float64";
    case Operand::Kind::kSymbol:
      return "symbol";
    case Operand::Kind::kLabel:
      return "label";
    case Operand::Kind::kTable:
      return "table";
    case Operand::Kind::kAddress:
      return "address";
    case Operand::Kind::kVector:
      return "vector";
    case Operand::Kind::kPair:
      return "pair";
    case Operand::Kind::kList:
      return "list";
    case Operand::Kind::kSink:
      return "sink";
  }
  return "";
}

const char* space_name(Space space) {
  switch (space) {
    case Space::kRegister:
      return "reg";
    case Space::kGlobal:
      return "global";
    case Space::kConst:
      return "const";
    case Space::kShared:
      return "shared";
    case Space::kLocal:
      return "local";
    case Space::kParam:
      return "param";
  }
  return "";
}

// File names may be any bytes.
py::str decoded(const std::string& text) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

template <typename Item, typename Convert>
py::list listed(const std::vector<Item>& items, Convert convert) {
  py::list list;
  for (const Item& item : items) list.append(convert(item));
  return list;
}

// (kind, value): a register's value is its name, with a ! if it is negated.
py::tuple to_python(const Operand& operand, const Function& function) {
  const py::str kind = kind_name(operand.kind);
  const auto parts = [&] {
    return listed(operand.parts, [&](const Operand& part) { return to_python(part, function); });
  };
  switch (operand.kind) {
    case Operand::Kind::kRegister:
      return py::make_tuple(kind,
                            (operand.negated ? "!" : "") + function.registers[operand.reg].name);
    case Operand::Kind::kSpecial:
      return py::make_tuple(kind, operand.symbol);
    case Operand::Kind::kSymbol:
      return py::make_tuple(kind, operand.symbol, operand.bits);
    case Operand::Kind::kAddress:
      return py::make_tuple(kind, parts(), operand.bits);
    case Operand::Kind::kVector:
    case Operand::Kind::kPair:
    case Operand::Kind::kList:
      return py::make_tuple(kind, parts());
    case Operand::Kind::kSink:
      return py::make_tuple(kind);
    default:
      return py::make_tuple(kind, operand.bits);
  }
}

py::dict to_python(const Statement& statement, const Function& function) {
  py::dict result;
  result["line"] = statement.line;
  result["location"] = statement.location;
  result["guard"] = py::none();
  if (statement.guard >= 0) {
    result["guard"] =
        (statement.guard_negated ? "!" : "") + function.registers[statement.guard].name;
  }
  result["opcode"] = statement.opcode;
  result["modifiers"] = statement.modifiers;
  result["operands"] = listed(statement.operands,
                              [&](const Operand& operand) { return to_python(operand, function); });
  return result;
}

py::dict to_python(const Variable& variable) {
  py::dict result;
  result["space"] = space_name(variable.space);
  result["name"] = variable.name;
  result["type"] = variable.type;
  result["align"] = variable.align;
  result["num_elements"] = variable.num_elements;
  result["is_extern"] = variable.is_extern;
  result["initial"] =
      py::bytes(reinterpret_cast<const char*>(variable.initial.data()), variable.initial.size());
  result["relocations"] = variable.relocations;
  return result;
}

py::list to_python(const std::vector<Variable>& variables) {
  return listed(variables, [](const Variable& variable) { return to_python(variable); });
}

py::dict to_python(const Function& function) {
  py::dict result;
  result["name"] = function.name;
  result["is_entry"] = function.is_entry;
  result["is_declaration"] = function.is_declaration;
  result["parameters"] = to_python(function.parameters);
  result["results"] = to_python(function.results);
  py::dict registers;
  for (const Register& reg : function.registers) registers[py::str(reg.name)] = reg.type;
  result["registers"] = registers;
  result["variables"] = to_python(function.variables);
  result["statements"] = listed(function.statements, [&](const Statement& statement) {
    return to_python(statement, function);
  });
  result["branch_tables"] = function.branch_tables;
  result["limits"] = function.limits;
  return result;
}

py::dict to_python(const Module& module) {
  py::dict result;
  result["version"] = module.version;
  result["target"] = module.target;
  py::dict files;
  for (const auto& [index, name] : module.files) files[py::int_(index)] = decoded(name);
  result["files"] = files;
  result["locations"] = listed(module.locations, [](const Location& location) {
    return py::make_tuple(location.file, location.line, location.caller_file, location.caller_line);
  });
  result["variables"] = to_python(module.variables);
  result["functions"] =
      listed(module.functions, [](const Function& function) { return to_python(function); });
  return result;
}

}  // namespace
}  // namespace openweek::simulator::ptx

PYBIND11_MODULE(openweek_parser, module) {
  namespace ptx = openweek::simulator::ptx;
  pybind11::register_exception<ptx::PtxError>(module, "PtxError", PyExc_ValueError);
  module.def("parse", [](const std::string& text) { return ptx::to_python(ptx::parse(text)); });
  // Without the conversion to Python, which takes longer than parsing: returns the number of
  // statements.
  module.def("count_statements", [](const std::string& text) {
    std::size_t count = 0;
    for (const ptx::Function& function : ptx::parse(text).functions) {
      count += function.statements.size();
    }
    return count;
  });
}
