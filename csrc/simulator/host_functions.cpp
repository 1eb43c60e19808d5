#include "host_functions.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "access.h"
#include "errors.h"
#include "lanes.h"
#include "world.h"

namespace openweek::simulator {
namespace {

// printf takes no more arguments (CUDA programming guide, formatted output).
constexpr int kMaxArguments = 32;

// What nobody reads: characters of one field.
constexpr std::int64_t kMaxField = 4096;

void check_printed(std::size_t num_bytes) {
  if (num_bytes > kMaxPrintedBytes) throw UnsupportedError(too_much_printed());
}

// What a thread finds in memory, at generic addresses.
class Reader {
 public:
  Reader(Warp& warp, int lane) : warp_(warp), lane_(lane) {}

  template <class T>
  T value(std::uint64_t address) const {
    T value;
    std::memcpy(
        &value,
        locate(warp_, lane_, Window::kGeneric, address, sizeof value, sizeof value, Touch::kRead),
        sizeof value);
    return value;
  }

  std::string text(std::uint64_t address) const {
    std::string text;
    while (const char next = value<char>(address + text.size())) {
      text += next;
      check_printed(text.size());
    }
    return text;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw HazardError("printf: " + what + ", " + who(warp_, lane_));
  }

 private:
  Warp& warp_;
  int lane_;
};

// Arguments as the compiler lays them out: each aligned to its size, none below 4 bytes.
class Arguments {
 public:
  Arguments(const Reader& reader, std::uint64_t address) : reader_(reader), address_(address) {}

  template <class T>
  T next() {
    const auto aligned = (address_ + sizeof(T) - 1) / sizeof(T) * sizeof(T);
    address_ = aligned + sizeof(T);
    ++count_;
    return reader_.value<T>(aligned);
  }
  std::string next_text() {
    const auto address = next<std::uint64_t>();
    return address == 0 ? "(null)" : reader_.text(address);
  }
  int count() const { return count_; }
  const Reader& reader() const { return reader_; }

 private:
  const Reader& reader_;
  std::uint64_t address_;
  int count_ = 0;
};

template <class T>
std::string print_one(const std::string& format, T value) {
  std::string text(std::snprintf(nullptr, 0, format.c_str(), value), '\0');
  std::snprintf(text.data(), text.size() + 1, format.c_str(), value);
  return text;
}

bool is_one_of(char letter, std::string_view letters) {
  return letters.find(letter) != std::string_view::npos;
}

// One conversion, from its % to its letter.
struct Specification {
  std::string flags;  // flags, width and precision, * replaced
  std::string length;
  char letter = '\0';
};

// A number of characters: written out, or an argument where there is a *. Nothing if there is none.
std::optional<std::int64_t> take_field(std::string_view& rest, Arguments& arguments) {
  std::optional<std::int64_t> number;
  if (rest.starts_with('*')) {
    rest.remove_prefix(1);
    number = arguments.next<std::int32_t>();
  }
  while (!rest.empty() && rest.front() >= '0' && rest.front() <= '9') {
    number = std::min(number.value_or(0) * 10 + (rest.front() - '0'), kMaxField + 1);
    rest.remove_prefix(1);
  }
  if (number && std::abs(*number) > kMaxField) {
    arguments.reader().fail("a field of more than " + std::to_string(kMaxField) + " characters");
  }
  return number;
}

// Reads what stands behind a %. Takes the arguments of each *.
Specification parse_specification(std::string_view& rest, Arguments& arguments) {
  Specification one;
  while (!rest.empty() && is_one_of(rest.front(), "-+ #0")) {
    one.flags += rest.front();
    rest.remove_prefix(1);
  }
  // A negative width is a flag and a width.
  if (const auto width = take_field(rest, arguments)) one.flags += std::to_string(*width);
  if (rest.starts_with('.')) {
    rest.remove_prefix(1);
    const std::int64_t precision = take_field(rest, arguments).value_or(0);
    if (precision >= 0) one.flags += "." + std::to_string(precision);
  }
  while (!rest.empty() && is_one_of(rest.front(), "hlLjzt")) {
    one.length += rest.front();
    rest.remove_prefix(1);
  }
  if (!rest.empty()) {
    one.letter = rest.front();
    rest.remove_prefix(1);
  }
  return one;
}

template <class Int>
std::string print_integer(const Specification& one, Int value) {
  const auto cut = [&](auto narrow) {
    return static_cast<Int>(static_cast<decltype(narrow)>(value));
  };
  constexpr bool kSigned = static_cast<Int>(-1) < 0;
  if (one.length == "h") value = kSigned ? cut(short{}) : cut(static_cast<unsigned short>(0));
  if (one.length == "hh")
    value = kSigned ? cut(static_cast<signed char>(0)) : cut(static_cast<unsigned char>(0));
  return print_one("%" + one.flags + "ll" + one.letter, static_cast<long long>(value));
}

// What the host's printf makes of one conversion; of an unknown one its own text.
std::string print_conversion(const Specification& one, Arguments& arguments) {
  const std::string format = "%" + one.flags + one.letter;
  const bool wide = is_one_of(one.length.empty() ? ' ' : one.length.front(), "lLjzt");
  if (is_one_of(one.letter, "di")) {
    return wide ? print_integer(one, arguments.next<std::int64_t>())
                : print_integer(one, arguments.next<std::int32_t>());
  }
  if (is_one_of(one.letter, "ouxX")) {
    return wide ? print_integer(one, arguments.next<std::uint64_t>())
                : print_integer(one, arguments.next<std::uint32_t>());
  }
  if (is_one_of(one.letter, "eEfFgGaA")) return print_one(format, arguments.next<double>());
  if (one.letter == 'c') return print_one(format, arguments.next<int>());
  if (one.letter == 's') return print_one(format, arguments.next_text().c_str());
  if (one.letter == 'p') {
    return print_one(format, reinterpret_cast<void*>(arguments.next<std::uint64_t>()));
  }
  if (one.letter == '%') return "%";
  return "%" + one.flags + one.length + (one.letter ? std::string(1, one.letter) : "");
}

// Appends what a format says to a text, and returns the number of arguments that it has taken.
int print_formatted(const std::string& format, Arguments& arguments, std::string& text) {
  std::string_view rest = format;
  while (!rest.empty()) {
    const std::size_t percent = rest.find('%');
    text += rest.substr(0, percent);
    if (percent == std::string_view::npos) break;
    rest.remove_prefix(percent);
    if (arguments.count() >= kMaxArguments) {
      text += rest;
      break;
    }
    rest.remove_prefix(1);
    const Specification one = parse_specification(rest, arguments);
    text += print_conversion(one, arguments);
    check_printed(text.size());
  }
  return arguments.count();
}

// An argument or a result, in the part of local memory that begins at inst.imm.
template <class T>
T& exchanged(Warp& warp, const Inst& inst, int lane, int offset) {
  return *reinterpret_cast<T*>(warp.local(lane) + inst.imm + offset);
}

// vprintf(format, arguments)
Step print(Warp& warp, const Inst& inst, Mask lanes) {
  std::string& text = warp.cta().cluster().world().printed();
  for_lanes(lanes, [&](int lane) {
    const Reader reader(warp, lane);
    const auto format = exchanged<std::uint64_t>(warp, inst, lane, 0);
    Arguments arguments(reader, exchanged<std::uint64_t>(warp, inst, lane, 8));
    const int result = format == 0 ? -1 : print_formatted(reader.text(format), arguments, text);
    exchanged<std::int32_t>(warp, inst, lane, 0) = result;
  });
  return Step::kNext;
}

// __assertfail(text, file, line, function, size of a character)
Step fail_assertion(Warp& warp, const Inst& inst, Mask lanes) {
  const int lane = std::countr_zero(lanes);
  const Reader reader(warp, lane);
  const auto text = [&](int offset) {
    return reader.text(exchanged<std::uint64_t>(warp, inst, lane, offset));
  };
  const auto line = exchanged<std::uint32_t>(warp, inst, lane, 16);
  throw HazardError("assertion failed: " + text(8) + ":" + std::to_string(line) + ": " + text(24) +
                    ": `" + text(0) + "`, " + who(warp, lane));
}

struct HostFunction {
  std::string_view name;
  Handler run;
  std::vector<std::int64_t> sizes;  // of its arguments
};

// Whether arguments lie as close together as their sizes let them.
bool is_dense(const Lowering::Formals& arguments) {
  std::int64_t end = arguments.places.front().offset;
  for (std::size_t i = 0; i < arguments.sizes.size(); ++i) {
    if (arguments.places[i].offset != align_up(end, arguments.sizes[i])) return false;
    end = arguments.places[i].offset + arguments.sizes[i];
  }
  return true;
}

}  // namespace

void emit_host_call(Lowering& lower, const std::string& name, const Lowering::Formals& arguments) {
  static const HostFunction kFunctions[] = {
      {"vprintf", print, {8, 8}},
      {"__assertfail", fail_assertion, {8, 8, 4, 8, 8}},
  };
  for (const HostFunction& function : kFunctions) {
    if (function.name != name) continue;
    if (function.sizes != arguments.sizes || !is_dense(arguments)) {
      lower.fail(name + " has other parameters");
    }
    lower.emit(function.run).imm = arguments.places.front().offset;
    return;
  }
  lower.fail("the module declares " + name + " and does not define it");
}

}  // namespace openweek::simulator
