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
  const std::string wanted = absl::StrCat(index, " of ", shards);
  // Several replicas may start at once: the first one's marks stay, and all read what is there then.
  bool marked = false;
  for (const auto& [key, value] : {std::pair<const char*, const std::string*>{"shard", &wanted},
                                   {"store_id", store_id.empty() ? &new_id : &store_id}}) {
    Statement mark = tx.Prepare("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING");
    TUTTI_RETURN_IF_ERROR(mark.BindAll(key, SqlArg::Bytes(*value)).Run());
    marked |= mark.Changes() > 0 && value == &wanted;
  }
  std::string place, id;
  {
    Statement rows = tx.Prepare("SELECT key, value FROM meta WHERE key IN ('shard', 'store_id')");
    while (rows.Step()) (rows.Text(0) == "shard" ? place : id) = rows.Bytes(1);
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  if (!store_id.empty() && id != store_id) {
    return WrongShard(absl::StrCat("database ", index, " of the ", shards, " given belongs to another store"));
  }
  store_id = id;
  Statement runs = tx.Prepare("SELECT 1 FROM runs LIMIT 1");
  const bool used = runs.Step();
  TUTTI_RETURN_IF_ERROR(runs.status());
  // A store from before these marks were made is one database.
  if (used && marked && shards > 1) place = "0 of 1";
  if (place != wanted) {
    // A store of one database that has no runs yet may be spread; nothing else changes its place.
    if (used || index != 0 || place != "0 of 1") {
      return WrongShard(absl::StrCat("database ", index, " of the ", shards, " given is number ", place,
                                     used ? " and holds runs already" : ""));
    }
    TUTTI_RETURN_IF_ERROR(
        tx.Prepare("UPDATE meta SET value = $1 WHERE key = 'shard'").BindAll(SqlArg::Bytes(wanted)).Run());
  }
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
