#include "operands.h"

#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace openweek::simulator::ptx {
namespace {

constexpr std::string_view kWarpSize = "WARP_SZ";

const std::unordered_set<std::string_view> kSpecialVectors = {
    "%tid",       "%ntid",       "%ctaid",         "%nctaid",
    "%clusterid", "%nclusterid", "%cluster_ctaid", "%cluster_nctaid",
};

const std::unordered_set<std::string_view> kSpecials = {
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%smid",
    "%nsmid",
    "%gridid",
    "%cluster_ctarank",
    "%cluster_nctarank",
    "%is_explicit_cluster",
    "%lanemask_eq",
    "%lanemask_le",
    "%lanemask_lt",
    "%lanemask_ge",
    "%lanemask_gt",
    "%clock",
    "%clock_hi",
    "%clock64",
    "%globaltimer",
    "%globaltimer_lo",
    "%globaltimer_hi",
    "%total_smem_size",
    "%aggr_smem_size",
    "%dynamic_smem_size",
    "%reserved_smem_offset_begin",
    "%reserved_smem_offset_end",
    "%reserved_smem_offset_cap",
    "%current_graph_exec",
};

Operand make(Operand::Kind kind) {
  Operand operand;
  operand.kind = kind;
  return operand;
}

bool is_special(std::string_view name) {
  return name == kWarpSize || kSpecials.contains(name) || kSpecialVectors.contains(name);
}

bool may_be_in_pair(const Operand& operand) {
  return (operand.kind == Operand::Kind::kRegister && !operand.negated) ||
         operand.kind == Operand::Kind::kSink;
}

}  // namespace

void OperandParser::parse(Statement& statement, int index) {
  const bool branches = statement.opcode == "bra" || statement.opcode == "brx";
  while (!cursor_.accept(';')) {
    if (!statement.operands.empty() && !cursor_.accept(',')) cursor_.fail_expected("',' or ';'");
    if (is_label(cursor_.peek(), branches)) {
      scopes_.refer(cursor_.take(), index, static_cast<int>(statement.operands.size()));
      statement.operands.push_back(make(Operand::Kind::kLabel));
    } else {
      statement.operands.push_back(parse_operand());
    }
  }
}

// The label of a branch may come later than the branch, and hide a variable or a function.
bool OperandParser::is_label(const Token& token, bool branches) {
  if (token.kind != TokenKind::kWord || token.text == "_" || token.text[0] == '%') return false;
  const auto meaning = scopes_.find(token.text);
  if (meaning && meaning->kind == Scopes::Kind::kRegister) return false;
  const bool is_variable = meaning && meaning->kind == Scopes::Kind::kVariable;
  const bool is_symbol = is_variable || names_.contains(token.text) || token.text == kWarpSize;
  return branches || !is_symbol;
}

Operand OperandParser::parse_operand() {
  if (cursor_.accept('{')) return parse_group(Operand::Kind::kVector, '}');
  if (cursor_.accept('(')) return parse_group(Operand::Kind::kList, ')');
  if (cursor_.accept('[')) return parse_address();
  const Token first = cursor_.peek();
  Operand operand = parse_single();
  if (cursor_.at('|')) {
    Operand pair = make(Operand::Kind::kPair);
    cursor_.take();
    const Token second = cursor_.peek();
    pair.parts.push_back(std::move(operand));
    pair.parts.push_back(parse_single());
    if (!may_be_in_pair(pair.parts[0])) fail_at(first, "expected a register before '|'");
    if (!may_be_in_pair(pair.parts[1])) fail_at(second, "expected a register after '|'");
    return pair;
  }
  if (operand.kind == Operand::Kind::kSymbol) operand.bits = cursor_.accept_offset();
  return operand;
}

// The opening bracket has been read.
Operand OperandParser::parse_group(Operand::Kind kind, char close) {
  Operand group = make(kind);
  if (cursor_.accept(close)) return group;
  do {
    group.parts.push_back(parse_single());
  } while (cursor_.accept(','));
  cursor_.expect(close);
  return group;
}

// [base + offset], and of tensors [map, {c0, c1}].
Operand OperandParser::parse_address() {
  Operand address = make(Operand::Kind::kAddress);
  const Token base = cursor_.peek();
  address.parts.push_back(parse_single());
  const Operand::Kind kind = address.parts[0].kind;
  const bool is_base = kind == Operand::Kind::kRegister || kind == Operand::Kind::kSymbol ||
                       kind == Operand::Kind::kInteger;
  if (!is_base || address.parts[0].negated) {
    fail_at(base, "expected a register, a variable or an integer as an address");
  }
  address.bits = cursor_.accept_offset();
  while (cursor_.accept(',')) {
    address.parts.push_back(cursor_.accept('{') ? parse_group(Operand::Kind::kVector, '}')
                                                : parse_single());
  }
  cursor_.expect(']');
  return address;
}

Operand OperandParser::parse_single() {
  const TokenKind kind = cursor_.peek().kind;
  if (kind == TokenKind::kWord) return parse_word();
  if (kind == TokenKind::kNumber || cursor_.at('-')) {
    const Literal literal = cursor_.expect_literal();
    Operand operand = make(literal.kind);
    operand.bits = literal.bits;
    return operand;
  }
  if (!cursor_.accept('!')) cursor_.fail_expected("an operand");
  const Token name = cursor_.expect_kind(TokenKind::kWord, "a register after '!'");
  Operand operand = named(name);
  if (operand.kind != Operand::Kind::kRegister) fail_at(name, "expected a register after '!'");
  operand.negated = true;
  return operand;
}

Operand OperandParser::parse_word() {
  const Token name = cursor_.take();
  if (name.text == "_") return make(Operand::Kind::kSink);
  Operand operand = named(name);
  if (operand.kind == Operand::Kind::kSpecial && kSpecialVectors.contains(name.text)) {
    const Token part = cursor_.expect_kind(TokenKind::kDotted, "one of .x, .y, .z and .w");
    if (part.text.size() != 1 ||
        std::string_view("xyzw").find(part.text[0]) == std::string_view::npos) {
      fail_at(part, "expected one of .x, .y, .z and .w");
    }
    operand.symbol += "." + std::string(part.text);
  }
  return operand;
}

Operand OperandParser::named(const Token& name) {
  const auto meaning = scopes_.find(name.text);
  if (meaning && meaning->kind == Scopes::Kind::kRegister) {
    Operand operand = make(Operand::Kind::kRegister);
    operand.reg = meaning->index;
    return operand;
  }
  Operand operand = make(Operand::Kind::kSymbol);
  if (meaning && meaning->kind == Scopes::Kind::kVariable) {
    operand.symbol = scopes_.symbol(*meaning, name.text);
  } else if (names_.contains(name.text)) {
    operand.symbol = name.text;
  } else if (is_special(name.text)) {
    operand.kind = Operand::Kind::kSpecial;
    operand.symbol = name.text;
  } else {
    fail_at(name, "unknown name " + quoted(name.text));
  }
  return operand;
}

}  // namespace openweek::simulator::ptx
