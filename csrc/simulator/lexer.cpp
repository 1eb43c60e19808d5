#include "lexer.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "ptx.h"

namespace openweek::simulator::ptx {
namespace {

constexpr std::size_t kMaxShown = 100;  // characters of a line

constexpr std::string_view kPunctuation = ",;:{}()[]<>|!@=+-";

// The <cctype> functions depend on the locale, and the text is any bytes.
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool continues_word(char c) { return is_letter(c) || is_digit(c) || c == '_' || c == '$'; }
bool starts_word(char c) { return is_letter(c) || c == '_' || c == '$' || c == '%'; }

std::size_t end_of_word(std::string_view text, std::size_t at) {
  while (at < text.size() && continues_word(text[at])) ++at;
  return at;
}

// 0x12 and 0f3F800000: an E in them is a digit.
bool has_base(std::string_view number) {
  return number.size() > 1 && number[0] == '0' && is_letter(number[1]) && number[1] != 'e' &&
         number[1] != 'E';
}

}  // namespace

PtxError::PtxError(int line, int column, const std::string& what)
    : std::runtime_error("line " + std::to_string(line) + ", column " + std::to_string(column) +
                         ": " + what),
      line_(line),
      column_(column) {}

PtxError PtxError::shown_in(std::string_view text) const {
  std::size_t start = 0;
  for (int line = 1; line < line_ && start != text.npos; ++line) start = text.find('\n', start) + 1;
  const std::string_view whole = text.substr(start, text.find('\n', start) - start);
  // Of a long line, what is around the column.
  const auto column = static_cast<std::size_t>(column_ - 1);
  const std::size_t skipped = column > kMaxShown / 2 ? column - kMaxShown / 2 : 0;
  std::string shown(whole.substr(std::min(skipped, whole.size()), kMaxShown));
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = c == '\t' ? ' ' : '?';  // of any bytes, and messages are text
  }
  PtxError error = *this;
  if (shown.find_first_not_of(' ') == shown.npos) return error;
  static_cast<std::runtime_error&>(error) = std::runtime_error(
      what() + ("\n  " + shown + "\n  " + std::string(column - skipped, ' ') + "^"));
  return error;
}

Token Lexer::next() {
  skip_blanks();
  if (at_ == text_.size()) return finish(TokenKind::kEnd, at_, at_);
  const char c = text_[at_];
  if (starts_word(c)) return finish(TokenKind::kWord, at_, end_of_word(text_, at_ + 1));
  if (is_digit(c)) return finish(TokenKind::kNumber, at_, end_of_number(at_));
  if (kPunctuation.find(c) != kPunctuation.npos) {
    return finish(TokenKind::kPunctuation, at_, at_ + 1);
  }
  if (c == '.') {
    const std::size_t end = end_of_dotted(at_ + 1);
    if (end == at_ + 1) fail("expected a name after the dot");
    Token token = finish(TokenKind::kDotted, at_, end);
    token.text.remove_prefix(1);
    return token;
  }
  if (c == '"') {
    const std::size_t end = text_.find_first_of("\"\n", at_ + 1);
    if (end == text_.npos || text_[end] == '\n') fail("expected a closing quote on this line");
    Token token = finish(TokenKind::kString, at_, end + 1);
    token.text = token.text.substr(1, token.text.size() - 2);
    return token;
  }
  char text[32];
  std::snprintf(text, sizeof text, "unexpected character 0x%02x", static_cast<unsigned char>(c));
  fail(text);
}

void Lexer::fail(const char* what) const {
  throw PtxError(line_, static_cast<int>(at_ - line_start_) + 1, what);
}

void Lexer::end_line() {
  ++line_;
  line_start_ = at_ + 1;
}

void Lexer::skip_blanks() {
  for (; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    const char following = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (c == '\n') {
      end_line();
    } else if (c == '/' && following == '/') {
      at_ = text_.find('\n', at_);
      if (at_ == text_.npos) {
        at_ = text_.size();
        return;
      }
      end_line();
    } else if (c == '/' && following == '*') {
      skip_block_comment();
    } else if (c != ' ' && c != '\t' && c != '\r' && c != '\f' && c != '\v') {
      return;
    }
  }
}

// Leaves at_ on the closing slash.
void Lexer::skip_block_comment() {
  const std::size_t end = text_.find("*/", at_ + 2);
  if (end == text_.npos) fail("expected an end of this comment");
  for (; at_ <= end; ++at_) {
    if (text_[at_] == '\n') end_line();
  }
}

Token Lexer::finish(TokenKind kind, std::size_t start, std::size_t end) {
  at_ = end;
  return {kind, text_.substr(start, end - start), line_, static_cast<int>(start - line_start_) + 1};
}

// Goes over shared::cluster, but stops before a single colon.
std::size_t Lexer::end_of_dotted(std::size_t at) const {
  for (;;) {
    at = end_of_word(text_, at);
    const bool continues = at + 2 < text_.size() && text_[at] == ':' && text_[at + 1] == ':' &&
                           continues_word(text_[at + 2]);
    if (!continues) return at;
    at += 2;
  }
}

// Takes whatever clings to a number; reading its value tells whether it is one.
std::size_t Lexer::end_of_number(std::size_t at) const {
  const std::size_t start = at;
  for (;;) {
    at = end_of_word(text_, at);
    if (at == text_.size()) return at;
    const bool has_more = at + 1 < text_.size() && is_digit(text_[at + 1]);
    const bool is_exponent = (text_[at - 1] == 'e' || text_[at - 1] == 'E') &&
                             (text_[at] == '+' || text_[at] == '-') &&
                             !has_base(text_.substr(start, 2));
    if (!has_more || !(text_[at] == '.' || is_exponent)) return at;
    ++at;
  }
}

}  // namespace openweek::simulator::ptx
