// The words of a PTX text.
#pragma once

#include <cstddef>
#include <string_view>

namespace openweek::simulator::ptx {

enum class TokenKind {
  kEnd,          // of the text
  kWord,         // mov, %r12, $L__BB0_1, _
  kDotted,       // .b32, .shared::cluster, .2d: without the dot
  kNumber,       // 12, 0xFFU, 0f3F800000, 1.5e-3
  kString,       // "file.cu": without the quotes
  kPunctuation,  // one character
};

// Refers to the text that the lexer reads.
struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string_view text;
  int line = 0;    // from 1
  int column = 0;  // from 1, in bytes
};

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  // The next token. Throws PtxError where none can be read; kEnd repeats for ever.
  Token next();

 private:
  [[noreturn]] void fail(const char* what) const;
  void skip_blanks();
  void skip_block_comment();
  void end_line();
  Token finish(TokenKind kind, std::size_t start, std::size_t end);
  std::size_t end_of_dotted(std::size_t at) const;
  std::size_t end_of_number(std::size_t at) const;

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t line_start_ = 0;
  int line_ = 1;
};

}  // namespace openweek::simulator::ptx
