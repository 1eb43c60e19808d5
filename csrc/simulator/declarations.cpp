#include "declarations.h"

#include <array>
#include <bit>
#include <limits>
#include <string>
#include <utility>

#include "initializer.h"

namespace openweek::simulator::ptx {
namespace {

constexpr std::int64_t kMaxVariableBytes = std::int64_t{1} << 32;
constexpr int kMaxAlign = 1 << 20;

constexpr std::array<std::pair<std::string_view, int>, 19> kTypes = {{
    {"b8", 1},  {"u8", 1},    {"s8", 1},   {"b16", 2},    {"u16", 2},   {"s16", 2}, {"f16", 2},
    {"b32", 4}, {"u32", 4},   {"s32", 4},  {"f32", 4},    {"b64", 8},   {"u64", 8}, {"s64", 8},
    {"f64", 8}, {"f16x2", 4}, {"bf16", 2}, {"bf16x2", 4}, {"b128", 16},
}};

int parse_align(Cursor& cursor) {
  const Token number = cursor.peek();
  const int align = cursor.expect_int(1, kMaxAlign);
  if (!std::has_single_bit(static_cast<unsigned>(align))) {
    fail_at(number, "expected an alignment that is a power of two, got " + quoted(number.text));
  }
  return align;
}

// What a pointer parameter points to: .ptr [.space] [.align N]. It promises, and so says nothing
// about what the kernel does.
void skip_pointer_attributes(Cursor& cursor) {
  if (!cursor.accept_directive("ptr")) return;
  for (const char* space : {"global", "const", "shared", "local"}) {
    if (cursor.accept_directive(space)) break;
  }
  if (cursor.accept_directive("align")) parse_align(cursor);
}

// [4][8], or [] for as many elements as the value or the launch gives.
bool parse_dimensions(Cursor& cursor, Variable& variable, int element_bytes) {
  bool is_open = false;
  while (cursor.at('[')) {
    const Token bracket = cursor.take();
    if (cursor.accept(']')) {
      if (is_open || variable.num_elements != 1) fail_at(bracket, "expected one open dimension");
      is_open = true;
      continue;
    }
    const int size = cursor.expect_int(1, std::numeric_limits<int>::max());
    if (variable.num_elements > kMaxVariableBytes / element_bytes / size) {
      fail_at(bracket, "expected a variable of at most 4 GiB");
    }
    variable.num_elements *= size;
    cursor.expect(']');
  }
  return is_open;
}

struct Head {
  Declared declared;
  bool is_open = false;
};

// [.align N] .type [.ptr ...] name [dimensions]
Head parse_head(Cursor& cursor, Space space) {
  Head head;
  Variable& variable = head.declared.variable;
  variable.space = space;
  if (cursor.accept_directive("align")) variable.align = parse_align(cursor);
  const Token type = cursor.peek();
  const int element_bytes = type.kind == TokenKind::kDotted ? type_bytes(type.text) : 0;
  if (element_bytes == 0) cursor.fail_expected("the type of a variable");
  cursor.take();
  variable.type = type.text;
  if (variable.align == 0) variable.align = element_bytes;
  if (space == Space::kParam) skip_pointer_attributes(cursor);
  head.declared.name = cursor.expect_kind(TokenKind::kWord, "a name");
  variable.name = head.declared.name.text;
  head.is_open = parse_dimensions(cursor, variable, element_bytes);
  return head;
}

}  // namespace

int type_bytes(std::string_view type) {
  for (const auto& [name, bytes] : kTypes) {
    if (name == type) return bytes;
  }
  return 0;
}

Declared parse_variable(Cursor& cursor, Space space, const ModuleNames& names) {
  if (cursor.accept_directive("attribute")) {
    cursor.expect('(');
    cursor.expect_directive("managed");
    cursor.expect(')');
  }
  auto [declared, is_open] = parse_head(cursor, space);
  Variable& variable = declared.variable;
  if (is_open) variable.num_elements = 0;
  if (cursor.at('=')) {
    if (space != Space::kGlobal && space != Space::kConst) {
      cursor.fail_expected("no value but for .global and .const");
    }
    cursor.take();
    const std::int64_t num_values = parse_initializer(cursor, variable, names);
    if (is_open) variable.num_elements = num_values;
  }
  cursor.expect(';');
  return std::move(declared);
}

std::vector<Declared> parse_parameters(Cursor& cursor, bool may_be_registers) {
  std::vector<Declared> parameters;
  if (!cursor.accept('(') || cursor.accept(')')) return parameters;
  do {
    const bool is_register = may_be_registers && cursor.accept_directive("reg");
    if (!is_register) cursor.expect_directive("param");
    auto [declared, is_open] = parse_head(cursor, is_register ? Space::kRegister : Space::kParam);
    if (is_open) declared.variable.num_elements = 0;
    parameters.push_back(std::move(declared));
  } while (cursor.accept(','));
  cursor.expect(')');
  return parameters;
}

}  // namespace openweek::simulator::ptx
