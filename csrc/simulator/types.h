// The types of PTX as they stand behind an opcode, and how their values lie in registers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace openweek::simulator {

enum class Type : std::uint8_t {
  kPred,
  kB8,
  kB16,
  kB32,
  kB64,
  kB128,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kU16x2,
  kS16x2,
  kF16,
  kF16x2,
  kBF16,
  kBF16x2,
  kTF32,
  kF32,
  kF64,
  kE4M3x2,
  kE5M2x2,
  kE4M3,
  kE5M2,
};

std::optional<Type> type_named(std::string_view name);
std::string_view name_of(Type type);
int bytes_of(Type type);  // of a value; 0 for predicates
bool is_signed(Type type);
bool is_float(Type type);

// A register's cell holds its value in the low bytes: 4 bytes, or 8, or 16 for b128.
inline int cell_bytes(Type type) { return bytes_of(type) <= 4 ? 4 : bytes_of(type); }

}  // namespace openweek::simulator
