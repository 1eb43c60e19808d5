#include "cursor.h"

#include <bit>
#include <charconv>

namespace openweek::simulator::ptx {
namespace {

constexpr std::size_t kQuotedChars = 60;

bool is_prefixed(std::string_view text, char lower) {
  return text.size() > 1 && text[0] == '0' && (text[1] | 0x20) == lower;
}

std::uint64_t parse_unsigned(const Token& token, std::string_view digits, int base) {
  std::uint64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value, base);
  if (error == std::errc::result_out_of_range) {
    fail_at(token, "expected a number of at most 64 bits, got " + quoted(token.text));
  }
  if (error != std::errc() || stop != end) {
    fail_at(token, "expected a number, got " + quoted(token.text));
  }
  return value;
}

std::uint64_t parse_integer(const Token& token) {
  std::string_view digits = token.text;
  if (digits.back() == 'U') digits.remove_suffix(1);
  if (is_prefixed(digits, 'x')) return parse_unsigned(token, digits.substr(2), 16);
  if (is_prefixed(digits, 'b')) return parse_unsigned(token, digits.substr(2), 2);
  if (digits.size() > 1 && digits[0] == '0') return parse_unsigned(token, digits.substr(1), 8);
  return parse_unsigned(token, digits, 10);
}

// The bits of a float, as 0f and exactly so many hexadecimal digits.
std::uint64_t parse_float_bits(const Token& token, std::size_t num_digits) {
  if (token.text.size() != num_digits + 2) {
    fail_at(token, "expected " + std::to_string(num_digits) + " hexadecimal digits, got " +
                       quoted(token.text));
  }
  return parse_unsigned(token, token.text.substr(2), 16);
}

double parse_decimal(const Token& token) {
  double value = 0;
  const char* end = token.text.data() + token.text.size();
  const auto [stop, error] = std::from_chars(token.text.data(), end, value);
  if (error != std::errc() || stop != end) {
    fail_at(token, "expected a number in the range of f64, got " + quoted(token.text));
  }
  return value;
}

Literal parse_literal(const Token& token, bool negative) {
  const std::string_view text = token.text;
  if (is_prefixed(text, 'f')) {
    const std::uint64_t sign32 = negative ? std::uint64_t{1} << 31 : 0;
    return {Operand::Kind::kFloat32,
            static_cast<std::int64_t>(parse_float_bits(token, 8) ^ sign32)};
  }
  const std::uint64_t sign = negative ? std::uint64_t{1} << 63 : 0;
  if (is_prefixed(text, 'd')) {
    return {Operand::Kind::kFloat64, static_cast<std::int64_t>(parse_float_bits(token, 16) ^ sign)};
  }
  if (!is_prefixed(text, 'x') && text.find_first_of(".eE") != text.npos) {
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(parse_decimal(token));
    return {Operand::Kind::kFloat64, static_cast<std::int64_t>(bits ^ sign)};
  }
  const std::uint64_t value = parse_integer(token);
  return {Operand::Kind::kInteger, static_cast<std::int64_t>(negative ? 0 - value : value)};
}

std::string described(const Token& token) {
  switch (token.kind) {
    case TokenKind::kEnd:
      return "the end of the text";
    case TokenKind::kString:
      return "a string";  // of any bytes, and messages are text
    case TokenKind::kDotted:
      return quoted("." + std::string(token.text));
    default:
      return quoted(token.text);
  }
}

}  // namespace

void fail_at(const Token& token, const std::string& what) {
  throw PtxError(token.line, token.column, what);
}

std::string quoted(std::string_view text) {
  const bool is_long = text.size() > kQuotedChars;
  return "'" + std::string(text.substr(0, kQuotedChars)) + (is_long ? "...'" : "'");
}

Token Cursor::take() {
  const Token token = ahead_;
  ahead_ = lexer_.next();
  return token;
}

bool Cursor::at(char punctuation) const {
  return ahead_.kind == TokenKind::kPunctuation && ahead_.text[0] == punctuation;
}

bool Cursor::at_directive(std::string_view name) const {
  return ahead_.kind == TokenKind::kDotted && ahead_.text == name;
}

bool Cursor::accept(char punctuation) {
  if (!at(punctuation)) return false;
  take();
  return true;
}

bool Cursor::accept_directive(std::string_view name) {
  if (!at_directive(name)) return false;
  take();
  return true;
}

void Cursor::expect(char punctuation) {
  if (!accept(punctuation)) fail_expected("'" + std::string(1, punctuation) + "'");
}

void Cursor::expect_directive(std::string_view name) {
  if (!accept_directive(name)) fail_expected("." + std::string(name));
}

Token Cursor::expect_kind(TokenKind kind, const char* what) {
  if (ahead_.kind != kind) fail_expected(what);
  return take();
}

int Cursor::expect_int(int low, int high) {
  const Token token = expect_kind(TokenKind::kNumber, "a number");
  const std::uint64_t value = parse_integer(token);
  if (value < static_cast<std::uint64_t>(low) || value > static_cast<std::uint64_t>(high)) {
    fail_at(token, "expected a number from " + std::to_string(low) + " to " + std::to_string(high) +
                       ", got " + quoted(token.text));
  }
  return static_cast<int>(value);
}

Literal Cursor::expect_literal() {
  const bool negative = accept('-');
  return parse_literal(expect_kind(TokenKind::kNumber, "a number"), negative);
}

std::int64_t Cursor::accept_offset() {
  if (!accept('+')) return 0;
  const Token number = ahead_;
  const Literal literal = expect_literal();
  if (literal.kind != Operand::Kind::kInteger) fail_at(number, "expected an integer");
  return literal.bits;
}

void Cursor::skip_line(int line) {
  while (ahead_.kind != TokenKind::kEnd && ahead_.line == line) take();
}

void Cursor::fail_expected(const std::string& what) const {
  fail_at(ahead_, "expected " + what + ", got " + described(ahead_));
}

}  // namespace openweek::simulator::ptx
