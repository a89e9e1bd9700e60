// Runs spread over several databases by their ids. The first database is the home: it holds everything that does not
// belong to one run (definitions, contexts, memories, conversations, budgets, the audit log). A run's row, journal,
// usage, payloads and lease are in its own database. docs/adr/0010 says what that costs.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/state-manager/store/access.h"

namespace tutti::state_manager {

// Stable for ever: 64-bit FNV-1a of the key, modulo the number of databases.
size_t ShardOf(absl::string_view key, size_t shards);

class Shards {
 public:
  // At least one; the first is the home.
  explicit Shards(std::vector<Access*> all) : all_(std::move(all)) {}
  size_t size() const { return all_.size(); }
  bool spread() const { return all_.size() > 1; }
  Access& home() const { return *all_[0]; }
  Access& at(size_t index) const { return *all_[index]; }
  size_t IndexOf(absl::string_view key) const { return ShardOf(key, all_.size()); }
  Access& Of(absl::string_view run_id) const { return *all_[IndexOf(run_id)]; }

 private:
  std::vector<Access*> all_;
};

// Notes in a database which one of how many it is, and of which store; `store_id` is the home's, empty to learn it (and
// to make it, from `new_id`, the first time). FAILED_PRECONDITION: it is another one, or holds runs that this number of
// databases would not find again.
absl::Status ClaimShard(Transaction& tx, size_t index, size_t shards, const std::string& new_id, std::string& store_id);

}  // namespace tutti::state_manager
