// Number formats, matrix units and tensor copies as a Python module of their own, over numpy
// arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "formats.h"
#include "matrix.h"
#include "reduction.h"
#include "tile_copy.h"

namespace openweek::simulator {
namespace {

namespace py = pybind11;
using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Words = py::array_t<std::uint32_t, py::array::c_style>;
using Longs = py::array_t<std::uint64_t, py::array::c_style>;

// Names in the order of the enumeration.
constexpr std::string_view kTypes[] = {"u8",  "s8",   "u16",  "s16",  "u32",  "s32", "u64", "s64",
                                       "f16", "bf16", "tf32", "e4m3", "e5m2", "f32", "f64"};
constexpr std::string_view kRoundings[] = {"rn", "rz", "rm", "rp", "rna"};
constexpr std::string_view kReduceOps[] = {"add", "min", "max", "and", "or", "xor"};

template <class Enum, std::size_t kCount>
Enum named(const std::string_view (&names)[kCount], const std::string& name) {
  const auto* found = std::find(std::begin(names), std::end(names), name);
  if (found == std::end(names)) throw std::invalid_argument("no such name: " + name);
  return static_cast<Enum>(found - std::begin(names));
}

NumberType type_named(const std::string& name) { return named<NumberType>(kTypes, name); }

Longs convert(const std::string& to, const std::string& from, const Longs& values,
              const std::string& rounding, bool integral, bool ftz, bool sat, bool satfinite,
              bool relu) {
  const Converter converter = find_converter(type_named(to), type_named(from));
  const Conversion how{named<Rounding>(kRoundings, rounding), integral, ftz, sat, satfinite, relu};
  Longs results(values.size());
  std::transform(values.data(), values.data() + values.size(), results.mutable_data(),
                 [&](std::uint64_t bits) { return converter(bits, how); });
  return results;
}

MatrixOp matrix_op(const std::string& a, const std::string& b, bool f16_accumulator, bool negate,
                   bool fourteen_bits) {
  return {type_named(a), type_named(b), f16_accumulator, negate,
          fourteen_bits ? Summation::kFourteenBits : Summation::kF32};
}

// Registers as an array [..., register, lane] of one warp after the other.
struct Registers {
  Registers(const Words& array, int num_warps) : file(const_cast<Words&>(array).mutable_data()) {
    const auto num_rows = array.size() / 32 / num_warps;
    offsets.resize(num_rows);
    for (std::size_t i = 0; i < offsets.size(); ++i) offsets[i] = 128 * i;
  }
  Rows warp(int index) const {
    return {reinterpret_cast<std::uint8_t*>(file + index * 32 * offsets.size()), offsets.data()};
  }
  WarpgroupRows warpgroup() const { return {warp(0), warp(1), warp(2), warp(3)}; }

  std::uint32_t* file;
  std::vector<std::uint32_t> offsets;
};

std::vector<std::uint32_t> granules(std::uint64_t descriptor, int rows, bool mn_major,
                                    std::size_t shared_bytes) {
  const Granules all =
      operand_granules(decode_descriptor(descriptor), rows, mn_major, shared_bytes);
  return {all.all().begin(), all.all().end()};
}

void run_wgmma(const MatrixOp& op, const std::variant<std::uint64_t, Words>& a, std::uint64_t b,
               int n, bool a_mn_major, bool b_mn_major, const Bytes& shared, bool accumulate,
               Words& d, int repeat) {
  const Registers sums(d, 4);
  const auto size = static_cast<std::size_t>(shared.size());
  for (int i = 0; i < repeat; ++i) {
    const Granules b_reads = operand_granules(decode_descriptor(b), n, b_mn_major, size);
    if (const auto* registers = std::get_if<Words>(&a)) {
      wgmma(op, Registers(*registers, 4).warpgroup(), b_reads, shared.data(), accumulate,
            sums.warpgroup());
    } else {
      const MatrixDescriptor descriptor = decode_descriptor(std::get<std::uint64_t>(a));
      const Granules a_reads = operand_granules(descriptor, 64, a_mn_major, size);
      wgmma(op, a_reads, b_reads, shared.data(), accumulate, sums.warpgroup());
    }
  }
}

void run_mma(const MatrixOp& op, int k_bytes, const Words& a, const Words& b, const Words& c,
             Words& d, int repeat) {
  const Registers a_rows(a, 1), b_rows(b, 1), c_rows(c, 1), d_rows(d, 1);
  for (int i = 0; i < repeat; ++i) {
    mma(op, k_bytes, a_rows.warp(0), b_rows.warp(0), c_rows.warp(0), d_rows.warp(0));
  }
}

std::vector<std::uint8_t*> row_pointers(Bytes& shared,
                                        const std::vector<std::uint32_t>& addresses) {
  std::vector<std::uint8_t*> pointers;
  for (const std::uint32_t address : addresses) pointers.push_back(shared.mutable_data(address));
  return pointers;
}

TensorMap map_of(const py::bytes& encoded) {
  const std::string_view bytes = encoded;
  if (bytes.size() != kTensorMapBytes) throw std::invalid_argument("a map has 128 bytes");
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  return decode_tensor_map(std::span<const std::uint8_t, kTensorMapBytes>(data, kTensorMapBytes));
}

std::span<std::uint8_t> span_of(Bytes& bytes) {
  return {bytes.mutable_data(), static_cast<std::size_t>(bytes.size())};
}

void bind_matrix(py::module_& m) {
  py::class_<MatrixOp>(m, "MatrixOp")
      .def(py::init(&matrix_op), py::arg("a"), py::arg("b"), py::arg("f16_accumulator") = false,
           py::arg("negate") = false, py::arg("fourteen_bits") = false);
  m.def("granules", &granules);
  m.def("wgmma", &run_wgmma, py::arg("op"), py::arg("a"), py::arg("b"), py::arg("n"),
        py::arg("a_mn_major"), py::arg("b_mn_major"), py::arg("shared"), py::arg("accumulate"),
        py::arg("d"), py::arg("repeat") = 1);
  m.def("mma", &run_mma, py::arg("op"), py::arg("k_bytes"), py::arg("a"), py::arg("b"),
        py::arg("c"), py::arg("d"), py::arg("repeat") = 1);
  m.def("ldmatrix", [](int num, bool transposed, Bytes& shared,
                       const std::vector<std::uint32_t>& addresses, Words& d) {
    ldmatrix(num, transposed, row_pointers(shared, addresses).data(), Registers(d, 1).warp(0));
  });
  m.def("stmatrix", [](int num, bool transposed, Bytes& shared,
                       const std::vector<std::uint32_t>& addresses, const Words& source) {
    stmatrix(num, transposed, row_pointers(shared, addresses).data(), Registers(source, 1).warp(0));
  });
}

void bind_copies(py::module_& m) {
  using Corner = std::array<std::int32_t, kMaxRank>;
  m.def("box_bytes", [](const py::bytes& map) { return map_of(map).box_bytes(); });
  m.def("box_ranges", [](const py::bytes& map, const Corner& corner) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> result;
    for (const GlobalRange& range : box_ranges(map_of(map), corner.data())) {
      result.emplace_back(range.address, range.num_bytes);
    }
    return result;
  });
  m.def("load_box", [](const py::bytes& map, const Corner& corner, Bytes& shared,
                       std::uint32_t address, int repeat) {
    const TensorMap decoded = map_of(map);
    for (int i = 0; i < repeat; ++i) load_box(decoded, corner.data(), span_of(shared), address);
  });
  m.def("store_box", [](const py::bytes& map, const Corner& corner, Bytes& shared,
                        std::uint32_t address, int repeat) {
    const TensorMap decoded = map_of(map);
    for (int i = 0; i < repeat; ++i) store_box(decoded, corner.data(), span_of(shared), address);
  });
  m.def("reduce_box", [](const py::bytes& map, const Corner& corner, Bytes& shared,
                         std::uint32_t address, const std::string& op) {
    reduce_box(map_of(map), corner.data(), span_of(shared), address,
               named<ReduceOp>(kReduceOps, op));
  });
  m.def("reduce", [](const std::string& op, const std::string& type, Bytes& to, const Bytes& from) {
    if (to.size() != from.size()) throw std::invalid_argument("arrays of different sizes");
    find_reduce(named<ReduceOp>(kReduceOps, op), type_named(type))(to.mutable_data(), from.data(),
                                                                   to.size());
  });
}

}  // namespace

PYBIND11_MODULE(openweek_numeric, m) {
  m.def("convert", &convert, py::arg("to"), py::arg("source"), py::arg("values"), py::kw_only(),
        py::arg("rounding") = "rn", py::arg("integral") = false, py::arg("ftz") = false,
        py::arg("sat") = false, py::arg("satfinite") = false, py::arg("relu") = false);
  bind_matrix(m);
  bind_copies(m);
}

}  // namespace openweek::simulator
