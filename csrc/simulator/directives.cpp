#include "directives.h"

#include <array>
#include <limits>
#include <utility>

namespace openweek::simulator::ptx {
namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();

constexpr std::array<std::pair<std::string_view, Space>, 5> kSpaces = {{
    {"global", Space::kGlobal},
    {"const", Space::kConst},
    {"shared", Space::kShared},
    {"local", Space::kLocal},
    {"param", Space::kParam},
}};

}  // namespace

bool accept_location(Cursor& cursor, Module& module) {
  const int text_line = cursor.peek().line;
  if (!cursor.accept_directive("loc")) return false;
  const int file = cursor.expect_int(0, kMaxInt);
  const int line = cursor.expect_int(0, kMaxInt);
  Location location{.file = file, .line = line};
  while (cursor.peek().kind != TokenKind::kEnd && cursor.peek().line == text_line) {
    if (cursor.take().text != "inlined_at") continue;
    location.caller_file = cursor.expect_int(0, kMaxInt);
    location.caller_line = cursor.expect_int(0, kMaxInt);
  }
  module.locations.push_back(location);
  return true;
}

bool accept_file(Cursor& cursor, Module& module) {
  const int text_line = cursor.peek().line;
  if (!cursor.accept_directive("file")) return false;
  const int index = cursor.expect_int(0, kMaxInt);
  module.files[index] = cursor.expect_kind(TokenKind::kString, "the name of a file").text;
  cursor.skip_line(text_line);
  return true;
}

bool accept_pragma(Cursor& cursor) {
  if (!cursor.accept_directive("pragma")) return false;
  do {
    cursor.expect_kind(TokenKind::kString, "a string");
  } while (cursor.accept(','));
  cursor.expect(';');
  return true;
}

std::optional<Space> accept_space(Cursor& cursor) {
  for (const auto& [name, space] : kSpaces) {
    if (cursor.accept_directive(name)) return space;
  }
  return std::nullopt;
}

}  // namespace openweek::simulator::ptx
