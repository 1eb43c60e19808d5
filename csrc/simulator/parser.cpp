#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "body.h"
#include "cursor.h"
#include "declarations.h"
#include "directives.h"
#include "ptx.h"

namespace openweek::simulator::ptx {
namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();
// Many times what compilers write; parsed, a text takes up to a hundred times its size.
constexpr std::size_t kMaxTextBytes = std::size_t{1} << 25;

// sm_90 came with PTX 7.8. Versions to come may mean anything by the same words.
constexpr int kFirstVersion = 78, kLastMajor = 9;

// How many numbers follow a directive between the parameters of a function and its body.
constexpr std::array<std::pair<std::string_view, int>, 12> kLimits = {{
    {"maxntid", 3},
    {"reqntid", 3},
    {"minnctapersm", 1},
    {"maxnctapersm", 1},
    {"maxnreg", 1},
    {"maxclusterrank", 1},
    {"reqnctapercluster", 3},
    {"abi_preserve", 1},
    {"abi_preserve_control", 1},
    {"explicitcluster", 0},
    {"blocksareclusters", 0},
    {"noreturn", 0},
}};

class ModuleParser {
 public:
  explicit ModuleParser(std::string_view text) : cursor_(text) {}
  Module parse();

 private:
  void parse_header();
  void parse_version();
  void parse_target();
  void parse_item();
  bool parse_linkage();
  void skip_section();
  void parse_function(bool is_entry);
  void parse_limits(Function& function);
  std::size_t declare_function(const Token& name);
  void add_variable(Declared declared);

  Cursor cursor_;
  Module module_;
  ModuleNames names_;
};

Module ModuleParser::parse() {
  parse_header();
  while (cursor_.peek().kind != TokenKind::kEnd) parse_item();
  return std::move(module_);
}

void ModuleParser::parse_header() {
  cursor_.expect_directive("version");
  parse_version();
  parse_target();
  cursor_.expect_directive("address_size");
  const Token size = cursor_.peek();
  if (cursor_.expect_int(0, kMaxInt) != 64) {
    fail_at(size, "expected addresses of 64 bits, got " + quoted(size.text));
  }
}

void ModuleParser::parse_version() {
  const Token version = cursor_.expect_kind(TokenKind::kNumber, "a version");
  int major = 0, minor = 0;
  const char* end = version.text.data() + version.text.size();
  const auto [dot, error] = std::from_chars(version.text.data(), end, major);
  const bool has_minor = error == std::errc() && dot != end && *dot == '.' &&
                         std::from_chars(dot + 1, end, minor).ptr == end && minor < 10;
  if (!has_minor || major > kLastMajor || 10 * major + minor < kFirstVersion) {
    fail_at(version, "expected a version of PTX from 7.8 to 9.9, got " + quoted(version.text));
  }
  module_.version = version.text;
}

void ModuleParser::parse_target() {
  cursor_.expect_directive("target");
  const Token target = cursor_.expect_kind(TokenKind::kWord, "a target");
  if (target.text != "sm_90" && target.text != "sm_90a") {
    fail_at(target, "expected the target sm_90 or sm_90a, got " + quoted(target.text));
  }
  module_.target = target.text;
  if (cursor_.accept(',')) {
    const Token option = cursor_.expect_kind(TokenKind::kWord, "an option of the target");
    if (option.text != "debug") fail_at(option, "expected debug, got " + quoted(option.text));
  }
}

void ModuleParser::parse_item() {
  if (accept_location(cursor_, module_) || accept_file(cursor_, module_)) return;
  if (accept_pragma(cursor_)) return;
  if (cursor_.accept_directive("section")) return skip_section();
  const bool is_extern = parse_linkage();
  if (cursor_.accept_directive("entry")) return parse_function(true);
  if (cursor_.accept_directive("func")) return parse_function(false);
  const auto space = cursor_.at_directive("param") ? std::nullopt : accept_space(cursor_);
  if (!space) cursor_.fail_expected("a directive of a module");
  Declared declared = parse_variable(cursor_, *space, names_);
  declared.variable.is_extern = is_extern;
  add_variable(std::move(declared));
}

// Whether what follows is defined elsewhere. Who may see it from outside does not matter here.
bool ModuleParser::parse_linkage() {
  if (cursor_.accept_directive("extern")) return true;
  for (const char* linkage : {"visible", "weak", "common"}) {
    if (cursor_.accept_directive(linkage)) break;
  }
  return false;
}

// Debugging data: no braces inside.
void ModuleParser::skip_section() {
  cursor_.expect_kind(TokenKind::kDotted, "the name of a section");
  cursor_.expect('{');
  while (!cursor_.at('}')) {
    if (cursor_.peek().kind == TokenKind::kEnd) cursor_.fail_expected("'}'");
    cursor_.take();
  }
  cursor_.take();
}

// [(results)] name [(parameters)] limits { ... } or ;
void ModuleParser::parse_function(bool is_entry) {
  Function function;
  function.is_entry = is_entry;
  std::vector<Declared> parameters;
  const auto parse_into = [&](std::vector<Variable>& variables) {
    for (Declared& declared : parse_parameters(cursor_, !is_entry)) {
      variables.push_back(declared.variable);
      parameters.push_back(std::move(declared));
    }
  };
  if (!is_entry) parse_into(function.results);
  const Token name = cursor_.expect_kind(TokenKind::kWord, "the name of a function");
  function.name = name.text;
  parse_into(function.parameters);
  parse_limits(function);
  function.is_declaration = cursor_.accept(';');
  // A function may call itself.
  const std::size_t index = declare_function(name);
  if (!function.is_declaration) parse_body(cursor_, parameters, names_, module_, function);
  module_.functions[index] = std::move(function);
}

void ModuleParser::parse_limits(Function& function) {
  while (cursor_.peek().kind == TokenKind::kDotted) {
    if (accept_pragma(cursor_)) continue;
    const Token directive = cursor_.peek();
    const auto limit = std::find_if(kLimits.begin(), kLimits.end(), [&](const auto& entry) {
      return entry.first == directive.text;
    });
    if (limit == kLimits.end()) cursor_.fail_expected("a directive of a function, '{' or ';'");
    cursor_.take();
    std::vector<int> values;
    const auto wants_more = [&] { return static_cast<int>(values.size()) < limit->second; };
    if (wants_more()) {
      do {
        values.push_back(cursor_.expect_int(1, kMaxInt));
      } while (wants_more() && cursor_.accept(','));
    }
    function.limits[std::string(directive.text)] = std::move(values);
  }
}

// Gives a function its place. A declaration gives way to what follows, once to a definition.
std::size_t ModuleParser::declare_function(const Token& name) {
  const auto [entry, is_new] = names_.try_emplace(name.text, true, module_.functions.size());
  const ModuleSymbol symbol = entry->second;
  if (is_new) module_.functions.emplace_back();
  const bool is_open =
      symbol.is_function && (is_new || module_.functions[symbol.index].is_declaration);
  if (!is_open) fail_at(name, "second definition of " + quoted(name.text));
  return symbol.index;
}

// An .extern declaration gives way to a definition.
void ModuleParser::add_variable(Declared declared) {
  const auto [entry, is_new] =
      names_.try_emplace(declared.name.text, false, module_.variables.size());
  const ModuleSymbol symbol = entry->second;
  if (is_new) {
    module_.variables.push_back(std::move(declared.variable));
  } else if (!symbol.is_function && module_.variables[symbol.index].is_extern) {
    module_.variables[symbol.index] = std::move(declared.variable);
  } else {
    fail_at(declared.name, "second definition of " + quoted(declared.name.text));
  }
}

}  // namespace

Module parse(const std::string& text) {
  if (text.size() > kMaxTextBytes) {
    throw PtxError(
        1, 1,
        "expected a text of at most 32 MiB, got one of " + std::to_string(text.size()) + " bytes");
  }
  try {
    return ModuleParser(text).parse();
  } catch (const PtxError& error) {
    throw error.shown_in(text);
  }
}

}  // namespace openweek::simulator::ptx
