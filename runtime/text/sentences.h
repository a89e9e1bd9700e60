// Plain text work that the tool-service's search and the agent-manager's `local` provider share.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tutti {

// White space runs as one space; words divided at a line's end joined.
std::string NormaliseText(absl::string_view text);
// Sentences, trimmed; abbreviations such as "e.g." and numbers such as "4.6" do not end one.
std::vector<std::string> SplitSentences(absl::string_view text);
// Words in lower case, stop words left out, common English endings removed. For ranking and comparing only.
std::vector<std::string> Terms(absl::string_view text);
// True for words too common to mean anything.
bool IsStopWord(absl::string_view word);

}  // namespace tutti
