// The embedded default: the sentences whose words are the most frequent ones of the text, in their order (after Luhn
// 1958, "The Automatic Creation of Literature Abstracts"). No language model, and it says so by its name.
#pragma once

#include "services/state-manager/ports/summarizer.h"

namespace tutti::state_manager {

class ExtractiveSummarizer final : public Summarizer {
 public:
  explicit ExtractiveSummarizer(size_t max_bytes = 2000) : max_bytes_(max_bytes) {}
  std::string name() const override { return "extractive"; }
  absl::StatusOr<std::string> Summarize(absl::string_view text) const override;

 private:
  const size_t max_bytes_;
};

}  // namespace tutti::state_manager
