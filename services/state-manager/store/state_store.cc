#include "services/state-manager/store/state_store.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

constexpr char kPrefix[] = "key_check/";

absl::Status WrongKey(absl::string_view id, absl::string_view what) {
  return Error(absl::StatusCode::kFailedPrecondition, "ENCRYPTION_KEY",
               absl::StrCat("the database is encrypted and its key \"", id, "\" ", what,
                            ". Give the keys it was written with (--state-manager.encryption.key-dir)"));
}

}  // namespace

absl::Status CheckKeys(Transaction& tx, const KeyRing& ring) {
  auto keys = ring.Get();
  std::map<std::string, std::string> cells;
  {
    Statement rows = tx.Prepare("SELECT key, value FROM meta WHERE key >= 'key_check/' AND key < 'key_check0'");
    while (rows.Step()) cells[rows.Text(0).substr(sizeof(kPrefix) - 1)] = rows.Bytes(1);
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  for (const auto& [id, cell] : cells) {
    if (!keys->by_id.contains(id)) return WrongKey(id, "is missing");
    if (!CellCodec(ring).Open(cell, absl::StrCat(kPrefix, id)).ok())
      return WrongKey(id, "is another one than was given");
  }
  if (keys->active.empty() || cells.contains(keys->active)) return absl::OkStatus();
  std::string cell = CellCodec(ring).Seal("tutti", absl::StrCat(kPrefix, keys->active));
  return tx.Prepare("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
      .BindAll(absl::StrCat(kPrefix, keys->active), SqlArg::Bytes(cell))
      .Run();
}

}  // namespace tutti::state_manager
