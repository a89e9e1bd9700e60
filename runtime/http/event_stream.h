// Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), read piece by piece.
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"

namespace tutti {

class EventStreamParser {
 public:
  // `type` is empty where the event names none; `data` has its lines joined by newlines.
  using OnEvent = std::function<void(absl::string_view type, absl::string_view data)>;
  explicit EventStreamParser(OnEvent on_event) : on_event_(std::move(on_event)) {}

  // What comes after the pieces before; lines and events may be cut anywhere. An event that is not ended by an empty
  // line is none.
  void Feed(absl::string_view piece);

 private:
  void Line(absl::string_view line);

  const OnEvent on_event_;
  std::string line_;  // begun
  std::string type_, data_;
  bool has_data_ = false;
  bool after_return_ = false;  // the last character was a carriage return: a line feed now belongs to it
  bool begun_ = false;
};

}  // namespace tutti
