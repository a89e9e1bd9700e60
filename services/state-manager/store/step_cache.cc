#include "services/state-manager/store/step_cache.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

std::string OwnerOf(absl::string_view tenant, absl::string_view key) {
  return absl::StrCat("step_cache/", tenant, "/", key);
}

}  // namespace

absl::Status StepCache::GetCacheEntry(Transaction& tx, const tutti::state::v1::GetCacheEntryRequest& request,
                                      tutti::state::v1::GetCacheEntryResponse& response) const {
  Statement row = tx.Prepare("SELECT value FROM step_cache WHERE tenant = $1 AND key = $2 AND expire_time > $3");
  row.BindAll(request.tenant(), request.key(), tx.NowMicros());
  if (!row.Step()) {
    TUTTI_RETURN_IF_ERROR(row.status());
    return Error(absl::StatusCode::kNotFound, "CACHE_MISS", "nothing is kept under this key");
  }
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_value()->mutable_data(),
                         payloads_.Get(tx, OwnerOf(request.tenant(), request.key()), "value", row.Bytes(0)));
  response.mutable_value()->set_media_type("application/json");
  return absl::OkStatus();
}

absl::Status StepCache::PutCacheEntry(Transaction& tx, const tutti::state::v1::PutCacheEntryRequest& request,
                                      tutti::state::v1::PutCacheEntryResponse&) const {
  TUTTI_RETURN_IF_ERROR(CheckText("tenant", request.tenant(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("key", request.key(), 500, /*required=*/true));
  TUTTI_RETURN_IF_ERROR(CheckDuration("ttl", request.ttl(), 1, int64_t{400} * 86400));
  const std::string owner = OwnerOf(request.tenant(), request.key());
  TUTTI_RETURN_IF_ERROR(Payloads::Forget(tx, owner));
  TUTTI_ASSIGN_OR_RETURN(std::string cell, payloads_.Put(tx, owner, "value", request.value().data()));
  return tx
      .Prepare(
          "INSERT INTO step_cache (tenant, key, value, expire_time) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, key) "
          "DO UPDATE SET value = excluded.value, expire_time = excluded.expire_time")
      .BindAll(request.tenant(), request.key(), SqlArg::Bytes(cell), tx.NowMicros() + ToMicros(request.ttl()))
      .Run();
}

absl::StatusOr<int64_t> StepCache::Expire(Transaction& tx, int64_t limit) const {
  std::vector<std::pair<std::string, std::string>> over;
  {
    Statement rows = tx.Prepare("SELECT tenant, key FROM step_cache WHERE expire_time <= $1 LIMIT $2");
    rows.BindAll(tx.NowMicros(), limit);
    while (rows.Step()) over.emplace_back(rows.Text(0), rows.Text(1));
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  for (const auto& [tenant, key] : over) {
    TUTTI_RETURN_IF_ERROR(Payloads::Forget(tx, OwnerOf(tenant, key)));
    TUTTI_RETURN_IF_ERROR(
        tx.Prepare("DELETE FROM step_cache WHERE tenant = $1 AND key = $2").BindAll(tenant, key).Run());
  }
  return static_cast<int64_t>(over.size());
}

}  // namespace tutti::state_manager
