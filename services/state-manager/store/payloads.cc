#include "services/state-manager/store/payloads.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

constexpr int64_t kHour = int64_t{3600} * 1000 * 1000;
// A payload is collected when it had no new reference for this long: longer than last_use_time may lag (kHour) and any
// transaction takes, together. So no lock is needed between those who refer to a payload and those who collect it.
constexpr int64_t kGrace = 3 * kHour;

std::string PlaceOf(absl::string_view hash) { return absl::StrCat("payloads/", absl::BytesToHexString(hash)); }

}  // namespace

absl::StatusOr<std::string> Payloads::PutShared(Transaction& tx, absl::string_view owner,
                                                absl::string_view plain) const {
  std::string hash = codec_.Digest(plain);
  const int64_t now = tx.NowMicros();
  {
    Statement refer = tx.Prepare("INSERT INTO payload_refs (owner, hash) VALUES ($1, $2) ON CONFLICT DO NOTHING");
    TUTTI_RETURN_IF_ERROR(refer.Bind(owner).BindBytes(hash).Run());
    if (refer.Changes() == 0) return hash;  // the owner had it before
  }
  Statement known = tx.Prepare("SELECT last_use_time FROM payloads WHERE hash = $1");
  known.BindBytes(hash);
  bool there = known.Step();
  TUTTI_RETURN_IF_ERROR(known.status());
  if (there && known.Int(0) > now - kHour) return hash;
  std::string sealed = codec_.Seal(plain, PlaceOf(hash));
  Statement insert = tx.Prepare(
      "INSERT INTO payloads (hash, size, data, create_time, last_use_time) VALUES ($1, $2, $3, $4, $5) "
      "ON CONFLICT (hash) DO UPDATE SET last_use_time = $5");
  insert.BindBytes(hash).Bind(static_cast<int64_t>(plain.size())).BindBytes(sealed).Bind(now).Bind(now);
  TUTTI_RETURN_IF_ERROR(insert.Run());
  return hash;
}

absl::StatusOr<std::string> Payloads::GetShared(Transaction& tx, absl::string_view hash) const {
  Statement row = tx.Prepare("SELECT data FROM payloads WHERE hash = $1");
  row.BindBytes(hash);
  if (!row.Step()) {
    TUTTI_RETURN_IF_ERROR(row.status());
    return Error(absl::StatusCode::kDataLoss, "PAYLOAD_MISSING",
                 absl::StrCat("payload ", absl::BytesToHexString(hash), " is missing from the database"));
  }
  return codec_.Open(row.Bytes(0), PlaceOf(hash));
}

absl::StatusOr<std::string> Payloads::Put(Transaction& tx, absl::string_view owner, absl::string_view field,
                                          absl::string_view plain) const {
  if (plain.size() <= kInline) return codec_.Seal(plain, absl::StrCat(owner, "/", field));
  TUTTI_ASSIGN_OR_RETURN(std::string hash, PutShared(tx, owner, plain));
  return codec_.Reference(hash);
}

absl::StatusOr<std::string> Payloads::Get(Transaction& tx, absl::string_view owner, absl::string_view field,
                                          absl::string_view cell) const {
  std::string hash = CellCodec::HashOf(cell);
  if (hash.empty()) return codec_.Open(cell, absl::StrCat(owner, "/", field));
  return GetShared(tx, hash);
}

absl::Status Payloads::Forget(Transaction& tx, absl::string_view owner) {
  return tx.Prepare("DELETE FROM payload_refs WHERE owner = $1").BindAll(owner).Run();
}

absl::Status Payloads::Share(Transaction& tx, absl::string_view from, absl::string_view to) {
  return tx
      .Prepare(
          "INSERT INTO payload_refs (owner, hash) SELECT $2::text, hash FROM payload_refs WHERE owner = $1 "
          "ON CONFLICT DO NOTHING")
      .BindAll(from, to)
      .Run();
}

absl::StatusOr<std::vector<std::string>> Payloads::FindUnused(Transaction& tx, const std::string& after,
                                                              int64_t limit) {
  Statement rows = tx.Prepare(
      "SELECT p.hash FROM payloads p WHERE p.hash > $3 AND p.last_use_time < $1 AND NOT EXISTS (SELECT 1 FROM "
      "payload_refs r WHERE r.hash = p.hash) ORDER BY p.hash LIMIT $2");
  rows.BindAll(tx.NowMicros() - kGrace, limit, SqlArg::Bytes(after));
  std::vector<std::string> out;
  while (rows.Step()) out.push_back(rows.Bytes(0));
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

absl::StatusOr<int64_t> Payloads::Remove(Transaction& tx, const std::vector<std::string>& unused) {
  int64_t removed = 0;
  for (const auto& hash : unused) {
    // Looked at again: somebody may have come back to it. PostgreSQL repeats these conditions when it has waited for
    // the row.
    Statement remove = tx.Prepare(
        "DELETE FROM payloads WHERE hash = $1 AND last_use_time < $2 AND NOT EXISTS (SELECT 1 FROM payload_refs r "
        "WHERE "
        "r.hash = payloads.hash)");
    TUTTI_RETURN_IF_ERROR(remove.BindBytes(hash).Bind(tx.NowMicros() - kGrace).Run());
    removed += remove.Changes();
  }
  return removed;
}

}  // namespace tutti::state_manager
