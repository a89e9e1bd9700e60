#include "services/state-manager/store/shards.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

absl::Status WrongShard(const std::string& what) {
  return Error(absl::StatusCode::kFailedPrecondition, "WRONG_SHARD",
               absl::StrCat(what,
                            "; give the same databases in the same order (--state-manager.postgres.dsn, "
                            "--state-manager.postgres.shard-dsns)"));
}

}  // namespace

size_t ShardOf(absl::string_view key, size_t shards) {
  uint64_t hash = 14695981039346656037U;
  for (char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  return static_cast<size_t>(hash % shards);
}

absl::Status ClaimShard(Transaction& tx, size_t index, size_t shards, const std::string& new_id,
                        std::string& store_id) {
  std::string place, id;
  {
    Statement rows = tx.Prepare("SELECT key, value FROM meta WHERE key IN ('shard', 'store_id')");
    while (rows.Step()) (rows.Text(0) == "shard" ? place : id) = rows.Bytes(1);
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  const std::string wanted = absl::StrCat(index, " of ", shards);
  if (!id.empty() && !store_id.empty() && id != store_id) {
    return WrongShard(absl::StrCat("database ", index, " of the ", shards, " given belongs to another store"));
  }
  if (place != wanted && !(place.empty() && shards == 1)) {
    Statement runs = tx.Prepare("SELECT 1 FROM runs LIMIT 1");
    bool used = runs.Step();
    TUTTI_RETURN_IF_ERROR(runs.status());
    if (used) {
      return WrongShard(absl::StrCat("database ", index, " of the ", shards, " given is number ",
                                     place.empty() ? "0 of 1" : place, " and holds runs already"));
    }
  }
  if (id.empty()) id = store_id.empty() ? new_id : store_id;
  store_id = id;
  for (const auto& [key, value] : {std::pair<const char*, const std::string*>{"shard", &wanted}, {"store_id", &id}}) {
    TUTTI_RETURN_IF_ERROR(tx.Prepare("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET "
                                     "value = excluded.value")
                              .BindAll(key, SqlArg::Bytes(*value))
                              .Run());
  }
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
