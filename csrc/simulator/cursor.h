// A place in a PTX text, one token ahead.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lexer.h"
#include "ptx.h"

namespace openweek::simulator::ptx {

struct Literal {
  Operand::Kind kind = Operand::Kind::kInteger;  // or kFloat32, kFloat64
  std::int64_t bits = 0;
};

[[noreturn]] void fail_at(const Token& token, const std::string& what);

// A token as messages show it, cut if it is long.
std::string quoted(std::string_view text);

class Cursor {
 public:
  explicit Cursor(std::string_view text) : lexer_(text), ahead_(lexer_.next()) {}

  const Token& peek() const { return ahead_; }
  Token take();

  bool at(char punctuation) const;
  bool at_directive(std::string_view name) const;
  bool accept(char punctuation);
  bool accept_directive(std::string_view name);

  void expect(char punctuation);
  void expect_directive(std::string_view name);
  Token expect_kind(TokenKind kind, const char* what);
  // An integer in [low, high], without a sign.
  int expect_int(int low, int high);
  // [-]number
  Literal expect_literal();
  // + integer, which may be negative; 0 if there is no plus.
  std::int64_t accept_offset();
  // Skips what is left of a line: .loc and .file end where their line does.
  void skip_line(int line);

  // Says what stands here instead of what is expected.
  [[noreturn]] void fail_expected(const std::string& what) const;

 private:
  Lexer lexer_;
  Token ahead_;
};

}  // namespace openweek::simulator::ptx
