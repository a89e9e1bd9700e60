#include "services/workflow-engine/domain/expressions/regex.h"

#include <oniguruma.h>
#include <re2/re2.h>

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/text/utf8.h"

namespace tutti::engine::expressions {
namespace {

constexpr size_t kMaxPattern = 64 << 10;
constexpr size_t kMaxPatterns = 64;             // kept by one evaluation
constexpr unsigned kMaxMatchStack = 1'000'000;  // entries of Oniguruma's stack
constexpr int64_t kMostRetries = 3'000'000;     // of Oniguruma in one search
constexpr int64_t kRe2Memory = 8 << 20;

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

// A pattern that means the same to RE2, and what it is called there.
struct Translation {
  std::string pattern;
  bool ascii_only = false;    // has classes that Oniguruma takes by Unicode
  bool has_line_end = false;  // `$` also matches before a newline at the end
};

// Nullopt for whatever RE2 does not know, or may understand otherwise.
class Translator {
 public:
  explicit Translator(absl::string_view pattern) : in_(pattern) {}

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
        NextUtf8(in_, &next);
        Copy(next - at_);
        return Quantifier(true);
      }
    }
  }

  void Copy(size_t count) {
    absl::StrAppend(&out_.pattern, in_.substr(at_, count));
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
    if (in_.substr(at_, 3) != "(?<" || at_ + 3 >= in_.size() || in_[at_ + 3] == '=' || in_[at_ + 3] == '!')
      return false;
    size_t end = in_.find('>', at_);
    if (end == absl::string_view::npos) return false;
    absl::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    for (char c : name) {
      if (!isalnum(static_cast<unsigned char>(c)) && c != '_') return false;
    }
    absl::StrAppend(&out_.pattern, "(?P<", name, ">");
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

  const absl::string_view in_;
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

  RegexResult Find(absl::string_view text, size_t start, int64_t steps, Groups* groups) override {
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
  static std::unique_ptr<Regex> Make(absl::string_view pattern, const RegexFlags& flags, std::string* error) {
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
    int code =
        onig_new(&out->regex_, begin, begin + pattern.size(), options, ONIG_ENCODING_UTF8, ONIG_SYNTAX_PERL_NG, &info);
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

  RegexResult Find(absl::string_view text, size_t start, int64_t steps, Groups* groups) override {
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

bool ParseRegexFlags(absl::string_view text, RegexFlags* out) {
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

Regex* RegexCache::Get(absl::string_view pattern, const RegexFlags& flags, absl::string_view text, std::string* error) {
  if (pattern.size() > kMaxPattern) {
    *error = absl::StrCat("longer than ", kMaxPattern, " bytes");
    return nullptr;
  }
  std::string key =
      absl::StrCat(flags.ignore_case, flags.extended, flags.dot_all, flags.longest, flags.not_empty, pattern);
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

}  // namespace tutti::engine::expressions
