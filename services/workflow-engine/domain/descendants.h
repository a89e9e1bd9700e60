// Counts the runs that a run starts, with those that they start in turn: a workflow that starts itself from a loop must
// not fill the store.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::engine {

// Counts in this engine only, since its start, for the roots that started something last.
class Descendants {
 public:
  explicit Descendants(int64_t most) : most_(most) {}

  // One more below `root`. FAILED_PRECONDITION, TOO_MANY_DESCENDANTS: it has as many as it may have.
  absl::Status Add(const std::string& root) {
    auto it = counts_.find(root);
    if (it == counts_.end()) {
      if (counts_.size() >= kRoots) {
        counts_.erase(recent_.back());
        recent_.pop_back();
      }
      recent_.push_front(root);
      it = counts_.emplace(root, Count{0, recent_.begin()}).first;
    } else {
      recent_.splice(recent_.begin(), recent_, it->second.place);
    }
    if (it->second.runs >= most_) {
      return Error(absl::StatusCode::kFailedPrecondition, "TOO_MANY_DESCENDANTS",
                   absl::StrCat("run ", root, " and what it started have started ", most_,
                                " runs, the most there may be; does a workflow start itself?"))
          .Metadata("root", root);
    }
    ++it->second.runs;
    return absl::OkStatus();
  }

 private:
  static constexpr size_t kRoots = 10'000;
  struct Count {
    int64_t runs;
    std::list<std::string>::iterator place;
  };
  const int64_t most_;
  std::list<std::string> recent_;  // front: added to last
  std::unordered_map<std::string, Count> counts_;
};

}  // namespace tutti::engine
