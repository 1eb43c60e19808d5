// A PTX module as it was written: declarations and statements, with scopes and labels resolved.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace openweek::simulator::ptx {

// What is wrong with a module, and where: the message begins with "line L, column C: ", and ends
// with that line of the text and a mark below the column.
class PtxError : public std::runtime_error {
 public:
  PtxError(int line, int column, const std::string& what);
  int line() const { return line_; }

  // The same with the line, which only who has the whole text can show.
  PtxError shown_in(std::string_view text) const;

 private:
  int line_;
  int column_;
};

// What stands between commas.
struct Operand {
  enum class Kind {
    kRegister,  // %r1, !%p1: reg, negated
    kSpecial,   // %tid.x, %laneid, WARP_SZ: symbol
    kInteger,   // 12, -3, 0xFFU: bits, sign-extended to 64
    kFloat32,   // 0f3F800000: bits
    kFloat64,   // 0d3FF0000000000000, 1.5: bits
    kSymbol,    // a variable, a function or a call prototype: symbol, and bits is added to it
    kLabel,     // the target of a branch: bits is an index in Function::statements, or their number
    kTable,     // of branch targets: bits is an index in Function::branch_tables
    kAddress,   // [base + offset, {coordinates}]: parts[0] is the base, bits the offset, further
                // parts what follows the comma
    kVector,    // {a, b, c, d}: parts
    kPair,      // %r1|%p1: parts
    kList,      // (a, b), of calls: parts
    kSink,      // _
  };
  Kind kind = Kind::kSink;
  int reg = -1;  // index in Function::registers
  bool negated = false;
  std::int64_t bits = 0;
  std::string symbol;
  std::vector<Operand> parts;
};

// One instruction: @!p opcode.modifier.modifier operands;
struct Statement {
  int line = 0;       // in the PTX text
  int location = -1;  // index in Module::locations, -1 before the first .loc
  int guard = -1;     // index in Function::registers
  bool guard_negated = false;
  std::string opcode;                  // "ld", "wgmma", "cp": up to the first dot
  std::vector<std::string> modifiers;  // "global", "v4", "b32"; "shared::cluster"
  std::vector<Operand> operands;
};

// A .loc directive: a line of a source file. Of an inlined function it also tells where that was
// called, which is the place of an earlier .loc.
struct Location {
  int file = 0;  // key of Module::files
  int line = 0;
  int caller_file = 0;  // 0 if nothing was inlined
  int caller_line = 0;
};

enum class Space { kRegister, kGlobal, kConst, kShared, kLocal, kParam };

// A variable of any space but registers; extern shared arrays have no elements.
struct Variable {
  Space space = Space::kGlobal;
  std::string name;  // unique in its function, or in the module
  std::string type;  // "b8", "f32", "u64"
  int align = 0;     // bytes
  std::int64_t num_elements = 1;
  bool is_extern = false;
  std::vector<std::uint8_t> initial;  // bytes, the rest is zero
  // Addresses inside the initial bytes, of 8 bytes each and perhaps unaligned: offset in them ->
  // symbol and what is added to it.
  std::map<std::int64_t, std::pair<std::string, std::int64_t>> relocations;
};

struct Register {
  std::string name;  // unique in its function; of inner scopes with a suffix
  std::string type;  // "pred", "b32", "f64"
};

struct Function {
  std::string name;
  bool is_entry = false;
  bool is_declaration = false;       // has no body: vprintf, __assertfail
  std::vector<Variable> parameters;  // in order
  std::vector<Variable> results;     // of .func
  std::vector<Register> registers;
  std::vector<Variable> variables;  // .shared, .local, .param inside the body
  std::vector<Statement> statements;
  std::vector<std::vector<int>> branch_tables;     // of indices in statements
  std::map<std::string, std::vector<int>> limits;  // maxntid, reqntid, reqnctapercluster ...
};

struct Module {
  std::string version;  // "8.7"
  std::string target;   // "sm_90a"
  std::map<int, std::string> files;
  std::vector<Location> locations;
  std::vector<Variable> variables;
  std::vector<Function> functions;
};

// Reads a module. Throws PtxError for anything else than a module for sm_90 or sm_90a with 64-bit
// addresses.
Module parse(const std::string& text);

}  // namespace openweek::simulator::ptx
