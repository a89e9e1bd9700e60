#include "services/workflow-engine/domain/expressions/regex.h"

#include <oniguruma.h>
#include <re2/re2.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/text/utf8.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine::expressions {
namespace {

constexpr size_t kMaxPattern = 64 << 10;
constexpr size_t kMaxPatterns = 64;             // kept by one evaluation
constexpr unsigned kMaxMatchStack = 1'000'000;  // entries of Oniguruma's stack
constexpr int64_t kMostRetries = 3'000'000;     // of Oniguruma in one search
constexpr int64_t kRe2Memory = 8 << 20;

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

// A pattern that means the same to RE2, and what it is called there.
struct Translation {
  std::string pattern;
  bool ascii_only = false;     // has classes that Oniguruma takes by Unicode
  bool has_line_end = false;   // `$` also matches before a newline at the end
};

// Nullopt for whatever RE2 does not know, or may understand otherwise.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::optional<Translation> Run() {
    levels_.push_back({});
    while (at_ < in_.size()) {
      if (!Item()) return std::nullopt;
    }
    if (levels_.size() != 1) return std::nullopt;
    out_.ascii_only |= !IsAscii(in_);
    return out_;
  }

 private:
  struct Level {
    bool branch_takes = false;  // this branch cannot match the empty string
    bool all_take = true;       // nor can those before it
  };

  bool Item() {
    char c = in_[at_];
    switch (c) {
      case '\\':
        return Escape(false) && Quantifier(true);
      case '[':
        return Class() && Quantifier(true);
      case '(':
        return Open();
      case ')':
        return Close();
      case '|':
        levels_.back().all_take &= levels_.back().branch_takes;
        levels_.back().branch_takes = false;
        Copy(1);
        return true;
      case '^':
        Copy(1);
        return NoQuantifier();
      case '$':
        out_.has_line_end = true;
        Copy(1);
        return NoQuantifier();
      case '*':
      case '+':
      case '?':
      case '{':
      case '}':
      case ']':
        return false;
      default: {
        size_t next = at_;
        NextUtf8(View(in_), &next);
        Copy(next - at_);
        return Quantifier(true);
      }
    }
  }

  void Copy(size_t count) {
    out_.pattern.append(in_.substr(at_, count));
    at_ += count;
  }
  bool IsQuantifier() const {
    return at_ < in_.size() && (in_[at_] == '*' || in_[at_] == '+' || in_[at_] == '?' || in_[at_] == '{');
  }
  bool NoQuantifier() const { return !IsQuantifier(); }

  // Behind something that takes at least a character, or does not.
  bool Quantifier(bool takes) {
    if (!IsQuantifier()) {
      levels_.back().branch_takes |= takes;
      return true;
    }
    if (!takes) return false;
    bool optional = in_[at_] == '*' || in_[at_] == '?';
    if (in_[at_] == '{') {
      size_t end = at_ + 1;
      while (end < in_.size() && (isdigit(static_cast<unsigned char>(in_[end])) || in_[end] == ',')) ++end;
      if (end >= in_.size() || in_[end] != '}' || !isdigit(static_cast<unsigned char>(in_[at_ + 1]))) return false;
      optional = in_[at_ + 1] == '0';
      Copy(end + 1 - at_);
      if (at_ < in_.size() && in_[at_] == '+') return false;
    } else {
      Copy(1);
      if (at_ < in_.size() && in_[at_] == '+') return false;  // possessive
    }
    if (at_ < in_.size() && in_[at_] == '?') Copy(1);
    if (IsQuantifier()) return false;
    levels_.back().branch_takes |= !optional;
    return true;
  }

  bool Escape(bool in_class) {
    if (at_ + 1 >= in_.size()) return false;
    char c = in_[at_ + 1];
    switch (c) {
      case 'd':
      case 'D':
      case 'w':
      case 'W':
        out_.ascii_only = true;
        Copy(2);
        return true;
      case 's':
        out_.ascii_only = true;
        out_.pattern += in_class ? "\\t\\n\\v\\f\\r " : "[\\t\\n\\v\\f\\r ]";
        at_ += 2;
        return true;
      case 'n':
      case 't':
      case 'r':
      case 'f':
        Copy(2);
        return true;
      case 'b':
        if (in_class) return false;
        out_.ascii_only = true;
        Copy(2);
        return NoQuantifier() && (zero_width_ = true);
      default:
        if (!ispunct(static_cast<unsigned char>(c))) return false;
        Copy(2);
        return true;
    }
  }

  bool Class() {
    Copy(1);
    if (at_ < in_.size() && in_[at_] == '^') Copy(1);
    if (at_ < in_.size() && in_[at_] == ']') return false;
    while (at_ < in_.size() && in_[at_] != ']') {
      if (in_[at_] == '[' || in_.substr(at_, 2) == "&&") return false;
      if (in_[at_] == '\\') {
        if (!Escape(true)) return false;
      } else {
        Copy(1);
      }
    }
    if (at_ >= in_.size()) return false;
    Copy(1);
    return true;
  }

  bool Open() {
    levels_.push_back({});
    if (levels_.size() > 100) return false;
    if (in_.substr(at_, 2) != "(?") {
      Copy(1);
      return true;
    }
    if (in_.substr(at_, 3) == "(?:") {
      Copy(3);
      return true;
    }
    if (in_.substr(at_, 3) != "(?<" || at_ + 3 >= in_.size() || in_[at_ + 3] == '=' || in_[at_ + 3] == '!') return false;
    size_t end = in_.find('>', at_);
    if (end == std::string_view::npos) return false;
    std::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    for (char c : name) {
      if (!isalnum(static_cast<unsigned char>(c)) && c != '_') return false;
    }
    absl::StrAppend(&out_.pattern, "(?P<", absl::string_view(name.data(), name.size()), ">");
    at_ = end + 1;
    return true;
  }

  bool Close() {
    if (levels_.size() < 2) return false;
    Level level = levels_.back();
    levels_.pop_back();
    Copy(1);
    bool takes = level.branch_takes && level.all_take;
    // Repeating what may be empty, and what its groups then hold, is not the same everywhere. Once or not at all is.
    if (!takes && at_ < in_.size() && in_[at_] == '?' && !(at_ + 1 < in_.size() && in_[at_ + 1] == '+')) return false;
    return Quantifier(takes);
  }

  const std::string_view in_;
  size_t at_ = 0;
  Translation out_;
  std::vector<Level> levels_;
  bool zero_width_ = false;
};

class LinearRegex final : public Regex {
 public:
  static std::unique_ptr<Regex> Make(const std::string& pattern, const RegexFlags& flags) {
    auto out = std::make_unique<LinearRegex>();
    RE2::Options options;
    options.set_log_errors(false);
    options.set_case_sensitive(!flags.ignore_case);
    options.set_dot_nl(flags.dot_all);
    options.set_max_mem(kRe2Memory);
    out->re2_ = std::make_unique<RE2>(pattern, options);
    if (!out->re2_->ok()) return nullptr;
    out->names_.resize(static_cast<size_t>(out->re2_->NumberOfCapturingGroups()));
    for (const auto& [index, name] : out->re2_->CapturingGroupNames()) {
      out->names_[static_cast<size_t>(index - 1)] = name;
    }
    out->pieces_.resize(out->names_.size() + 1);
    return out;
  }

  RegexResult Find(std::string_view text, size_t start, int64_t steps, Groups* groups) override {
    if (static_cast<int64_t>((text.size() - start) / 16) > steps) return RegexResult::kTooManySteps;
    re2::StringPiece subject(text.data(), text.size());
    if (!re2_->Match(subject, start, text.size(), RE2::UNANCHORED, pieces_.data(), static_cast<int>(pieces_.size()))) {
      return RegexResult::kNoMatch;
    }
    groups->clear();
    for (const auto& piece : pieces_) {
      if (!piece.data()) {
        groups->push_back({-1, -1});
      } else {
        int begin = static_cast<int>(piece.data() - text.data());
        groups->push_back({begin, begin + static_cast<int>(piece.size())});
      }
    }
    return RegexResult::kMatch;
  }
  const std::vector<std::string>& names() const override { return names_; }

 private:
  std::unique_ptr<RE2> re2_;
  std::vector<std::string> names_;
  std::vector<re2::StringPiece> pieces_;
};

class BacktrackingRegex final : public Regex {
 public:
  static std::unique_ptr<Regex> Make(std::string_view pattern, const RegexFlags& flags, std::string* error) {
    static const int initialized = [] {
      OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
      return onig_initialize(encodings, 1);
    }();
    (void)initialized;
    auto out = std::make_unique<BacktrackingRegex>();
    OnigOptionType options = ONIG_OPTION_CAPTURE_GROUP;
    if (flags.ignore_case) options |= ONIG_OPTION_IGNORECASE;
    if (flags.extended) options |= ONIG_OPTION_EXTEND;
    if (flags.dot_all) options |= ONIG_OPTION_MULTILINE;
    if (flags.longest) options |= ONIG_OPTION_FIND_LONGEST;
    if (flags.not_empty) options |= ONIG_OPTION_FIND_NOT_EMPTY;
    const auto* begin = reinterpret_cast<const OnigUChar*>(pattern.data());
    OnigErrorInfo info;
    int code = onig_new(&out->regex_, begin, begin + pattern.size(), options, ONIG_ENCODING_UTF8, ONIG_SYNTAX_PERL_NG,
                        &info);
    if (code != ONIG_NORMAL) {
      OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN] = {};
      onig_error_code_to_str(text, code, &info);
      *error = reinterpret_cast<const char*>(text);
      out->regex_ = nullptr;
      return nullptr;
    }
    out->region_ = onig_region_new();
    out->names_.resize(static_cast<size_t>(onig_number_of_captures(out->regex_)));
    onig_foreach_name(
        out->regex_,
        [](const OnigUChar* name, const OnigUChar* end, int count, int* groups, regex_t*, void* names) {
          for (int i = 0; i < count; ++i) {
            (*static_cast<std::vector<std::string>*>(names))[static_cast<size_t>(groups[i] - 1)] =
                std::string(reinterpret_cast<const char*>(name), static_cast<size_t>(end - name));
          }
          return 0;
        },
        &out->names_);
    return out;
  }
  ~BacktrackingRegex() override {
    if (region_) onig_region_free(region_, 1);
    if (regex_) onig_free(regex_);
  }

  RegexResult Find(std::string_view text, size_t start, int64_t steps, Groups* groups) override {
    OnigMatchParam* param = onig_new_match_param();
    onig_initialize_match_param(param);
    const auto retries = static_cast<unsigned long>(std::clamp<int64_t>(steps, 1000, kMostRetries));
    onig_set_retry_limit_in_match_of_match_param(param, retries);
    onig_set_retry_limit_in_search_of_match_param(param, retries);
    onig_set_match_stack_limit_size_of_match_param(param, kMaxMatchStack);
    const auto* begin = reinterpret_cast<const OnigUChar*>(text.data());
    int found = onig_search_with_param(regex_, begin, begin + text.size(), begin + start, begin + text.size(), region_,
                                       ONIG_OPTION_NONE, param);
    onig_free_match_param(param);
    if (found == ONIG_MISMATCH) return RegexResult::kNoMatch;
    if (found < 0) {
      bool steps_over = found == ONIGERR_RETRY_LIMIT_IN_MATCH_OVER || found == ONIGERR_RETRY_LIMIT_IN_SEARCH_OVER ||
                        found == ONIGERR_MATCH_STACK_LIMIT_OVER;
      return steps_over ? RegexResult::kTooManySteps : RegexResult::kFailed;
    }
    groups->clear();
    for (int i = 0; i < region_->num_regs; ++i) groups->push_back({region_->beg[i], region_->end[i]});
    return RegexResult::kMatch;
  }
  const std::vector<std::string>& names() const override { return names_; }

 private:
  regex_t* regex_ = nullptr;
  OnigRegion* region_ = nullptr;
  std::vector<std::string> names_;
};

}  // namespace

bool ParseRegexFlags(std::string_view text, RegexFlags* out) {
  for (char c : text) {
    switch (c) {
      case 'g':
        out->global = true;
        break;
      case 'i':
        out->ignore_case = true;
        break;
      case 'x':
        out->extended = true;
        break;
      case 's':
        break;  // one line: so it is always
      case 'p':
        out->dot_all = true;
        break;
      case 'l':
        out->longest = true;
        break;
      case 'n':
        out->not_empty = true;
        break;
      default:
        return false;
    }
  }
  return true;
}

struct RegexCache::Entry {
  std::optional<Translation> translation;
  std::unique_ptr<Regex> linear, backtracking;
  bool linear_tried = false;
};

RegexCache::RegexCache() = default;
RegexCache::~RegexCache() = default;

Regex* RegexCache::Get(std::string_view pattern, const RegexFlags& flags, std::string_view text, std::string* error) {
  if (pattern.size() > kMaxPattern) {
    *error = absl::StrCat("longer than ", kMaxPattern, " bytes");
    return nullptr;
  }
  std::string key = absl::StrCat(flags.ignore_case, flags.extended, flags.dot_all, flags.longest, flags.not_empty,
                                 absl::string_view(pattern.data(), pattern.size()));
  auto& entry = entries_[key];
  if (!entry) {
    if (entries_.size() > kMaxPatterns) {
      entries_.clear();
      return Get(pattern, flags, text, error);
    }
    entry = std::make_unique<Entry>();
    if (!flags.extended && !flags.longest && !flags.not_empty) entry->translation = Translator(pattern).Run();
  }
  const auto& translation = entry->translation;
  bool linear = translation && !((translation->ascii_only || flags.ignore_case) && !IsAscii(text)) &&
                !(translation->has_line_end && !text.empty() && text.back() == '\n');
  if (linear && !entry->linear_tried) {
    entry->linear_tried = true;
    entry->linear = LinearRegex::Make(translation->pattern, flags);
  }
  if (linear && entry->linear) return entry->linear.get();
  if (!entry->backtracking) entry->backtracking = BacktrackingRegex::Make(pattern, flags, error);
  return entry->backtracking.get();
}

namespace {

std::string Named(const Value& value) { return absl::StrCat(value.type_name(), " (", Excerpt(value), ")"); }

// What the functions have in common: the pattern and flags of the arguments, also `["pattern", "flags"]`.
struct Search {
  Regex* regex = nullptr;
  RegexFlags flags;
  std::string pattern;  // kept: the arguments may be borrowed
};

bool Prepare(Machine& machine, const Value& input, const Value& re, const Value& flags, Search* out) {
  Value pattern = re, letters = flags;
  if (re.is_array()) {
    if (re.size() == 0) {
      machine.Fail("array not a string or array");
      return false;
    }
    if (re.size() > 1) letters = re.At(1);
    pattern = re.At(0);
  }
  if (!input.is_string()) {
    machine.Fail(absl::StrCat(Named(input), " cannot be matched, as it is not a string"));
    return false;
  }
  if (!pattern.is_string()) {
    machine.Fail(absl::StrCat(Named(pattern), " cannot be matched, as it is not a string"));
    return false;
  }
  if (!letters.is_null() && !letters.is_string()) {
    machine.Fail(absl::StrCat(Named(letters), " is not a string"));
    return false;
  }
  if (letters.is_string() && !ParseRegexFlags(letters.text(), &out->flags)) {
    machine.Fail(absl::StrCat(absl::string_view(letters.text().data(), letters.text().size()),
                              " is not a valid modifier string"));
    return false;
  }
  if (!machine.Tick(static_cast<int64_t>(input.text().size() / 16 + pattern.text().size()))) return false;
  out->pattern = std::string(pattern.text());
  std::string error;
  out->regex = machine.regexes().Get(out->pattern, out->flags, input.text(), &error);
  if (!out->regex) machine.Fail(absl::StrCat(out->pattern, " (at offset 0) is not a valid regex: ", error));
  return out->regex != nullptr;
}

// Calls `on_match` for the first match, or for all of them. False: the machine has failed, or its slice is over.
template <class OnMatch>
bool ForEachMatch(Machine& machine, std::string_view text, Search& search, bool global, OnMatch on_match) {
  Regex::Groups groups;
  size_t start = 0;
  for (;;) {
    RegexResult result = search.regex->Find(text, start, machine.StepsLeft(), &groups);
    if (result == RegexResult::kTooManySteps) {
      machine.EndSlice();
      return false;
    }
    if (result == RegexResult::kFailed) {
      machine.Fail(absl::StrCat(search.pattern, " (at offset 0) could not be matched"));
      return false;
    }
    if (result == RegexResult::kNoMatch) return true;
    if (!machine.Tick(4 + static_cast<int64_t>(groups.size()))) return false;
    if (!on_match(groups)) return false;
    if (machine.heap().exceeded()) {
      machine.FailTooLarge();
      return false;
    }
    if (!global) return true;
    auto end = static_cast<size_t>(groups[0].second);
    start = groups[0].first == groups[0].second ? OffsetOfUtf8(View(text), 1, end) : end;
    if (groups[0].first == groups[0].second && end >= text.size()) return true;
  }
}

// Code points up to an offset; offsets are asked for in rising order, mostly.
class Offsets {
 public:
  explicit Offsets(std::string_view text) : text_(text) {}
  double Of(int offset) {
    auto at = static_cast<size_t>(offset);
    if (at < bytes_) bytes_ = points_ = 0;
    points_ += CountUtf8(View(text_.substr(bytes_, at - bytes_)));
    bytes_ = at;
    return static_cast<double>(points_);
  }

 private:
  std::string_view text_;
  size_t bytes_ = 0, points_ = 0;
};

Value Piece(Machine& machine, std::string_view text, std::pair<int, int> range) {
  if (range.first < 0) return Value::Null();
  return Value::Text(&machine.heap(),
                     std::string(text.substr(static_cast<size_t>(range.first),
                                             static_cast<size_t>(range.second - range.first))));
}

Value Described(Machine& machine, std::string_view text, Offsets& offsets, std::pair<int, int> range) {
  Heap* heap = &machine.heap();
  Value out = Value::Object(heap);
  double begin = range.first < 0 ? -1 : offsets.Of(range.first);
  out.SetMember(heap, "offset", Value::Number(begin));
  out.SetMember(heap, "length", Value::Number(range.first < 0 ? 0 : offsets.Of(range.second) - begin));
  out.SetMember(heap, "string", Piece(machine, text, range));
  return out;
}

// _match(pattern; flags; only whether there is one): the matches as objects.
Value MatchAll(Machine& machine, Value& input, Value* args) {
  Search search;
  if (!Prepare(machine, input, args[0], args[1], &search)) return {};
  const bool test = args[2].truthy();
  std::string_view text = input.text();
  Heap* heap = &machine.heap();
  Value out = Value::Array(heap);
  bool found = false;
  Offsets offsets(text);
  bool ok = ForEachMatch(machine, text, search, search.flags.global && !test, [&](const Regex::Groups& groups) {
    found = true;
    if (test) return true;
    Value match = Described(machine, text, offsets, groups[0]);
    Value captures = Value::Array(heap);
    Offsets inner = offsets;
    for (size_t i = 1; i < groups.size(); ++i) {
      auto range = groups[i];
      // A group that took part in an empty match only has not been anywhere.
      Value capture = Described(machine, text, inner, range);
      const std::string& name = search.regex->names()[i - 1];
      capture.SetMember(heap, "name", name.empty() ? Value::Null() : Value::Text(heap, name));
      captures.Append(heap, std::move(capture));
    }
    match.SetMember(heap, "captures", std::move(captures));
    out.Append(heap, std::move(match));
    return true;
  });
  if (!ok) return {};
  return test ? Value::Bool(found) : out;
}

// A match's named groups as an object.
Value Captures(Machine& machine, Value& input, Value*) {
  Value out = Value::Object(&machine.heap());
  Value captures = input.is_object() ? input.Find("captures") : Value();
  if (!captures.is_array()) return out;
  for (size_t i = 0; i < captures.size(); ++i) {
    Value capture = captures.At(i);
    Value name = capture.is_object() ? capture.Find("name") : Value();
    if (name.is_string()) out.SetMember(&machine.heap(), name, capture.Find("string"));
  }
  return out;
}

Value SplitAll(Machine& machine, Value& input, Value* args) {
  Search search;
  if (!Prepare(machine, input, args[0], args[1], &search)) return {};
  std::string_view text = input.text();
  Value out = Value::Array(&machine.heap());
  int last = 0;
  bool ok = ForEachMatch(machine, text, search, true, [&](const Regex::Groups& groups) {
    out.Append(&machine.heap(), Piece(machine, text, {last, groups[0].first}));
    last = groups[0].second;
    return true;
  });
  if (!ok) return {};
  out.Append(&machine.heap(), Piece(machine, text, {last, static_cast<int>(text.size())}));
  return out;
}

// _replace([{offset, length, with: [texts]} …]): the texts with the n-th replacement of each edit, for each n.
Value Replace(Machine& machine, Value& input, Value* args) {
  const Value& edits = args[0];
  std::string_view text = input.text();
  std::vector<Value> results;
  size_t bytes = 0, points = 0;
  Heap* heap = &machine.heap();
  for (size_t i = 0; i < edits.size(); ++i) {
    Value edit = edits.At(i);
    if (!machine.Tick(1 + static_cast<int64_t>(results.size()))) return {};
    Value with = edit.Find("with");
    auto from = static_cast<size_t>(edit.Find("offset").number());
    size_t begin = OffsetOfUtf8(View(text), from - points, bytes);
    Value gap = Value::Text(heap, std::string(text.substr(bytes, begin - bytes)));
    for (size_t n = 0; n < with.size(); ++n) {
      Value piece = Add(machine, gap, with.At(n));
      if (piece.absent()) return {};
      if (n >= results.size()) results.push_back(Value::Null());
      results[n] = Add(machine, std::move(results[n]), piece);
      if (results[n].absent()) return {};
      if (heap->exceeded()) return machine.FailTooLarge();
    }
    auto length = static_cast<size_t>(edit.Find("length").number());
    bytes = OffsetOfUtf8(View(text), length, begin);
    points = from + length;
  }
  if (results.empty()) return Value::Array(heap, {input});
  Value tail = Value::Text(heap, std::string(text.substr(bytes)));
  for (Value& result : results) {
    result = Add(machine, std::move(result), tail);
    if (result.absent()) return {};
  }
  return Value::Array(heap, std::move(results));
}

constexpr Native kNatives[] = {
    {"_match", 3, MatchAll},
    {"_captures", 0, Captures},
    {"_split", 2, SplitAll},
    {"_replace", 1, Replace},
};

}  // namespace

NativeTable RegexNatives() { return {kNatives, std::size(kNatives)}; }

}  // namespace tutti::engine::expressions
