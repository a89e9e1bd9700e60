// Makes a short text of a long one.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tutti::state_manager {

class Summarizer {
 public:
  virtual ~Summarizer() = default;
  // Who is named as the author.
  virtual std::string name() const = 0;
  virtual absl::StatusOr<std::string> Summarize(absl::string_view text) const = 0;
};

}  // namespace tutti::state_manager
