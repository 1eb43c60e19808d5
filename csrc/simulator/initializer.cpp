#include "initializer.h"

#include <bit>
#include <string>

namespace openweek::simulator::ptx {
namespace {

constexpr int kAddressBytes = 8;

void append_bits(Variable& variable, std::uint64_t bits, int num_bytes) {
  for (int i = 0; i < num_bytes; ++i) {
    variable.initial.push_back(i < 8 ? static_cast<std::uint8_t>(bits >> (8 * i)) : 0);
  }
}

// symbol, symbol + 4, generic(symbol) + 4. Global and constant memory have generic addresses here,
// so that generic() changes nothing.
void parse_address(Cursor& cursor, Variable& variable, const ModuleNames& names) {
  Token name = cursor.expect_kind(TokenKind::kWord, "a number or a name");
  if (name.text == "generic") {
    cursor.expect('(');
    name = cursor.expect_kind(TokenKind::kWord, "a name");
    cursor.expect(')');
  }
  if (!names.contains(name.text)) fail_at(name, "unknown name " + quoted(name.text));
  const auto at = static_cast<std::int64_t>(variable.initial.size());
  variable.relocations[at] = {std::string(name.text), cursor.accept_offset()};
  append_bits(variable, 0, kAddressBytes);
}

// An address in an array of bytes comes byte by byte, each named by its mask: 0xFF(generic(a)),
// 0xFF00(generic(a)), ... The first mask has been read.
void parse_masked_address(Cursor& cursor, Variable& variable, const ModuleNames& names) {
  const auto at = static_cast<std::int64_t>(variable.initial.size());
  for (int i = 0; i < kAddressBytes; ++i) {
    if (i > 0) {
      cursor.expect(',');
      const Token mask = cursor.peek();
      const auto expected = std::uint64_t{0xFF} << (8 * i);
      if (static_cast<std::uint64_t>(cursor.expect_literal().bits) != expected) {
        fail_at(mask, "expected the next byte of the address before, got " + quoted(mask.text));
      }
    }
    cursor.expect('(');
    const Token name = cursor.peek();
    Variable byte;
    parse_address(cursor, byte, names);
    cursor.expect(')');
    const auto& target = byte.relocations.begin()->second;
    if (i == 0) variable.relocations[at] = target;
    if (variable.relocations[at] != target)
      fail_at(name, "expected the address of the byte before");
  }
  append_bits(variable, 0, kAddressBytes);
}

std::uint64_t integer_bits(const Token& token, std::int64_t value, int num_bytes) {
  const int num_bits = 8 * num_bytes;
  if (num_bits < 64 && (value < -(std::int64_t{1} << (num_bits - 1)) || value >> num_bits > 0)) {
    fail_at(token, "expected a value of " + std::to_string(num_bits) + " bits");
  }
  return static_cast<std::uint64_t>(value);
}

// 0f is a float for f32 and f64, and bits for the types of bits.
std::uint64_t float_bits(const Token& token, const Literal& literal, const std::string& type) {
  const bool is_32 = literal.kind == Operand::Kind::kFloat32;
  if (type == (is_32 ? "b32" : "b64")) return static_cast<std::uint64_t>(literal.bits);
  const double value = is_32 ? std::bit_cast<float>(static_cast<std::uint32_t>(literal.bits))
                             : std::bit_cast<double>(literal.bits);
  if (type == "f64") return std::bit_cast<std::uint64_t>(value);
  if (type == "f32") return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  fail_at(token, "expected an integer for ." + type);
}

void parse_value(Cursor& cursor, Variable& variable, const ModuleNames& names) {
  const int num_bytes = type_bytes(variable.type);
  const Token token = cursor.peek();
  if (token.kind == TokenKind::kWord) {
    if (num_bytes != kAddressBytes) fail_at(token, "expected a type of 64 bits for an address");
    parse_address(cursor, variable, names);
    return;
  }
  const Literal literal = cursor.expect_literal();
  if (literal.kind != Operand::Kind::kInteger) {
    append_bits(variable, float_bits(token, literal, variable.type), num_bytes);
  } else if (num_bytes == 1 && literal.bits == 0xFF && cursor.at('(')) {
    parse_masked_address(cursor, variable, names);
  } else if (variable.type[0] == 'f') {
    fail_at(token, "expected a float for ." + variable.type);
  } else {
    append_bits(variable, integer_bits(token, literal.bits, num_bytes), num_bytes);
  }
}

}  // namespace

std::int64_t parse_initializer(Cursor& cursor, Variable& variable, const ModuleNames& names) {
  const Token first = cursor.peek();
  if (cursor.accept('{')) {
    if (!cursor.at('}')) {
      do {
        parse_value(cursor, variable, names);
      } while (cursor.accept(','));
    }
    cursor.expect('}');
  } else {
    parse_value(cursor, variable, names);
  }
  const auto num_bytes = static_cast<std::int64_t>(variable.initial.size());
  const std::int64_t num_values = num_bytes / type_bytes(variable.type);
  if (variable.num_elements > 0 && num_values > variable.num_elements) {
    fail_at(first, "expected at most " + std::to_string(variable.num_elements) + " values, got " +
                       std::to_string(num_values));
  }
  return num_values;
}

}  // namespace openweek::simulator::ptx
