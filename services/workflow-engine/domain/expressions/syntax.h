// The syntax of the expression language: jq 1.8 without modules.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tutti::engine::expressions {

// Nesting that a program may have.
inline constexpr int kMaxProgramDepth = 500;
// Operators that may stand one inside another, also without parentheses: each `+` of a sum contains the one before it.
inline constexpr int kMaxTreeDepth = 2000;
// Length that a program may have, in bytes.
inline constexpr size_t kMaxProgramBytes = 32 << 10;

struct Ast;
using AstPtr = std::unique_ptr<Ast>;

// Pattern is the right side of `as`: `$name`, `[p, …]` or `{key: p, …}`.
struct Pattern {
  enum class Type { kVariable, kArray, kObject };
  struct Member {
    std::string variable;            // of `$name` and `$name: p`, bound to the member's value
    AstPtr key;                      // yields its name
    std::unique_ptr<Pattern> value;  // null: none
  };
  Type type = Type::kVariable;
  std::string name;
  std::vector<Pattern> items;
  std::vector<Member> members;
};

// `def name(params): body;`
struct Definition {
  std::string name;
  std::vector<std::string> params;  // a `$` in front: by value
  AstPtr body;
  bool recursive = false;  // may call itself
};

struct Ast {
  enum class Type {
    kIdentity,
    kRecurse,  // ..
    kLiteral,  // number (text), string without interpolation (text), null, true, false
    kString,   // items joined; text: the format, empty for tostring; literal pieces are kLiteral
    kFormat,   // @base64
    kIndex,    // items: target, key
    kSlice,    // items: target, from, to; either may be null
    kIterate,  // items: target
    kArray,    // items: content or none
    kObject,   // items: key, value, key, value …
    kNegate,   // items: operand
    kPipe,     // items: left, right
    kComma,    // items: left, right
    kBinary,   // text: operator; items: left, right
    kAnd,
    kOr,
    kAlternative,  // items: left // right
    kUpdate,       // text: operator; items: left, right
    kIf,           // items: condition, then, otherwise (may be null)
    kTry,          // items: body, handler (may be null)
    kReduce,       // items: source, init, update; patterns
    kForeach,      // items: source, init, update, extract (may be null); patterns
    kBind,         // items: source, body; patterns
    kDefine,       // definition; items: body
    kCall,         // text: name; items: arguments
    kVariable,     // text: name
    kLabel,        // text: name; items: body
    kBreak,        // text: name
    kLocation,     // $__loc__
  };
  enum class LiteralType { kNull, kFalse, kTrue, kNumber, kString };

  Type type = Type::kIdentity;
  uint32_t position = 0;  // in the text, in bytes
  std::string text;
  LiteralType literal = LiteralType::kNull;
  std::vector<AstPtr> items;
  std::vector<Pattern> patterns;
  std::unique_ptr<Definition> definition;
};

// INVALID_ARGUMENT with line and column. Never looks past `kMaxProgramBytes`, never nests deeper than
// `kMaxProgramDepth`, and returns no tree deeper than `kMaxTreeDepth`.
absl::StatusOr<AstPtr> ParseProgram(const std::string& text);
// Only definitions, as a chain of kDefine that ends in identity.
absl::StatusOr<AstPtr> ParseDefinitions(const std::string& text);

// `line:column` of a position in the text, from 1.
std::string DescribePosition(const std::string& text, uint32_t position);

}  // namespace tutti::engine::expressions
