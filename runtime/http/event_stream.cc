#include "runtime/http/event_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/strip.h"

namespace tutti {

void EventStreamParser::Feed(absl::string_view piece) {
  while (!piece.empty()) {
    if (std::exchange(after_return_, false) && piece.front() == '\n') {
      piece.remove_prefix(1);
      continue;
    }
    size_t end = piece.find_first_of("\r\n");
    line_.append(piece.data(), std::min(end, piece.size()));
    if (end == absl::string_view::npos) return;
    after_return_ = piece[end] == '\r';
    piece.remove_prefix(end + 1);
    std::string line = std::exchange(line_, {});
    absl::string_view text = line;
    if (!std::exchange(begun_, true)) absl::ConsumePrefix(&text, "\xEF\xBB\xBF");  // a byte order mark
    Line(text);
  }
}

void EventStreamParser::Line(absl::string_view line) {
  if (line.empty()) {
    if (has_data_) on_event_(type_, data_);
    type_.clear();
    data_.clear();
    has_data_ = false;
    return;
  }
  if (line.front() == ':') return;  // a comment
  absl::string_view field = line, value;
  if (size_t colon = line.find(':'); colon != absl::string_view::npos) {
    field = line.substr(0, colon);
    value = line.substr(colon + 1);
    absl::ConsumePrefix(&value, " ");
  }
  if (field == "event") {
    type_ = std::string(value);
  } else if (field == "data") {
    if (has_data_) data_.push_back('\n');
    data_.append(value.data(), value.size());
    has_data_ = true;
  }
}

}  // namespace tutti
