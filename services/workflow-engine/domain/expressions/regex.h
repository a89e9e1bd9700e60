// Regular expressions in Oniguruma's Perl syntax, as jq has them: run by RE2, in linear time, where it means the same,
// and by Oniguruma with a bound on its steps where it does not.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace tutti::engine::expressions {

struct RegexFlags {
  bool global = false;
  bool ignore_case = false;
  bool extended = false;
  bool dot_all = false;
  bool longest = false;
  bool not_empty = false;
};

// False: a letter that is no flag.
bool ParseRegexFlags(absl::string_view text, RegexFlags* out);

enum class RegexResult { kMatch, kNoMatch, kTooManySteps, kFailed };

class Regex {
 public:
  // Byte ranges; the first is the whole match. (-1, -1): the group did not take part.
  using Groups = std::vector<std::pair<int, int>>;
  virtual ~Regex() = default;
  // The first match at or behind `start`. `text` is valid UTF-8. `steps` bounds the work.
  virtual RegexResult Find(absl::string_view text, size_t start, int64_t steps, Groups* groups) = 0;
  // Returns the names of the groups from 1 on; empty for a group without a name.
  virtual const std::vector<std::string>& names() const = 0;
};

// The compiled patterns of one evaluation.
class RegexCache {
 public:
  RegexCache();
  ~RegexCache();
  // Null with `*error`: the pattern is wrong. `text` is what it will be used on, which decides who runs it.
  Regex* Get(absl::string_view pattern, const RegexFlags& flags, absl::string_view text, std::string* error);

 private:
  struct Entry;
  std::map<std::string, std::unique_ptr<Entry>> entries_;
};

}  // namespace tutti::engine::expressions
