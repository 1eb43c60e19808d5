#include "types.h"

#include <array>

namespace openweek::simulator {
namespace {

struct Entry {
  std::string_view name;
  int num_bytes;
};

// In the order of the enumeration.
constexpr std::array<Entry, 27> kTypes = {{
    {"pred", 0},   {"b8", 1},     {"b16", 2},   {"b32", 4},   {"b64", 8}, {"b128", 16},
    {"u8", 1},     {"u16", 2},    {"u32", 4},   {"u64", 8},   {"s8", 1},  {"s16", 2},
    {"s32", 4},    {"s64", 8},    {"u16x2", 4}, {"s16x2", 4}, {"f16", 2}, {"f16x2", 4},
    {"bf16", 2},   {"bf16x2", 4}, {"tf32", 4},  {"f32", 4},   {"f64", 8}, {"e4m3x2", 2},
    {"e5m2x2", 2}, {"e4m3", 1},   {"e5m2", 1},
}};

}  // namespace

std::optional<Type> type_named(std::string_view name) {
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].name == name) return static_cast<Type>(i);
  }
  return std::nullopt;
}

std::string_view name_of(Type type) { return kTypes[static_cast<std::size_t>(type)].name; }

int bytes_of(Type type) { return kTypes[static_cast<std::size_t>(type)].num_bytes; }

bool is_signed(Type type) { return type >= Type::kS8 && type <= Type::kS64; }

bool is_float(Type type) { return type >= Type::kF16; }

}  // namespace openweek::simulator
