// Splits a program's text into lexemes, for the parser.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tutti::engine::expressions {

enum class Token : uint8_t {
  kEnd,
  kName,
  kField,     // `.name`
  kVariable,  // `$name`
  kNumber,
  kString,  // its opening quotation mark
  kFormat,  // `@name`
  kOperator,
  kKeyword,
};

struct Lexeme {
  Token token = Token::kEnd;
  std::string text;  // of names without `.`, `$`; of strings: unused
  uint32_t position = 0;
};

class Lexer {
 public:
  explicit Lexer(const std::string& text) : text_(text) {}

 protected:
  // Reads the next lexeme into at_. Strings stop after their opening quotation mark.
  void Advance();
  // Reads what stands behind a backslash in a string; the position is behind the escape's letter.
  absl::Status Escape(char escape, std::string* out);
  absl::Status Fail(uint32_t position, absl::string_view what) const;

  // Counts nesting for as long as it lives.
  class Nested {
   public:
    explicit Nested(int& depth) : depth_(depth) { ++depth_; }
    ~Nested() { --depth_; }

   private:
    int& depth_;
  };

  bool Is(const char* op) const;
  bool IsWord(const char* word) const;
  // Moves on behind it, when it is there.
  bool Take(const char* op);
  bool TakeWord(const char* word);
  absl::Status Expect(const char* op);
  absl::Status ExpectWord(const char* word);
  absl::Status Unexpected() const;
  absl::Status CheckDepth() const;

  struct Operator {
    int level;  // 0 binds loosest
    enum { kLeft, kRight, kNone } side;
  };
  std::optional<Operator> OperatorHere() const;

  const std::string& text_;
  size_t position_ = 0;  // behind at_
  Lexeme at_;
  int depth_ = 0;         // of what is being parsed
  absl::Status failure_;  // of the first character that begins no lexeme

 private:
  std::string Shown() const;
  void SkipBlanks();
  std::string Word();
  void ReadNumber();
  void ReadOperator();
  std::optional<uint32_t> Hex4();
};

}  // namespace tutti::engine::expressions
