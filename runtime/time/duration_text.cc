#include "runtime/time/duration_text.h"

#include "absl/strings/numbers.h"

namespace tutti {

bool ParseDurationText(absl::string_view text, absl::Duration* out) {
  absl::Duration total;
  for (bool days = false; !text.empty() || !days;) {
    const size_t unit = text.find_first_not_of("0123456789.");
    if (unit == absl::string_view::npos || (text[unit] != 'd' && text[unit] != 'w')) {
      absl::Duration rest;
      if (!absl::ParseDuration(text, &rest) || rest < absl::ZeroDuration()) return false;
      total += rest;
      break;
    }
    double count = 0;
    if (!absl::SimpleAtod(text.substr(0, unit), &count)) return false;
    total += count * absl::Hours(text[unit] == 'd' ? 24 : 7 * 24);
    text.remove_prefix(unit + 1);
    days = true;
  }
  *out = total;
  return true;
}

}  // namespace tutti
