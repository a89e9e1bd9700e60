#include "services/state-manager/store/memories.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/state-manager/store/memory_rows.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kPageBytes = size_t{2} << 20;
constexpr int64_t kScrubbedPages = 256;  // of a slice: some milliseconds
constexpr int kMaxTags = 32;
constexpr int64_t kMinute = int64_t{60} * 1000 * 1000;
constexpr int64_t kDefaultShortTerm = int64_t{24} * 60 * kMinute;
// Replicas look at least this often.
constexpr int64_t kKeepChanges = int64_t{60} * 60 * 1000 * 1000;

absl::string_view NameOf(v1::MemoryKind kind) {
  switch (kind) {
    case v1::MEMORY_KIND_WORKING:
      return "working";
    case v1::MEMORY_KIND_SHORT_TERM:
      return "short_term";
    default:
      return "long_term";
  }
}

v1::MemoryKind KindOf(absl::string_view name) {
  if (name == "working") return v1::MEMORY_KIND_WORKING;
  if (name == "short_term") return v1::MEMORY_KIND_SHORT_TERM;
  return v1::MEMORY_KIND_LONG_TERM;
}

absl::Status NotFound(absl::string_view id) {
  return Error(absl::StatusCode::kNotFound, "MEMORY_NOT_FOUND", absl::StrCat("memory ", id, " does not exist"))
      .Metadata("memory_id", id);
}

std::string ToBytes(const std::vector<float>& vector) {
  std::string out(vector.size() * sizeof(float), '\0');
  std::memcpy(out.data(), vector.data(), out.size());
  return out;
}

}  // namespace

absl::Status Memories::CheckFilter(const v1::MemoryFilter& filter) {
  TUTTI_RETURN_IF_ERROR(CheckText("filter.tenant", filter.tenant(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("filter.agent", filter.agent(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("filter.run_id", filter.run_id(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("filter.session_id", filter.session_id(), 200));
  if (filter.tags_size() > kMaxTags) return Invalid("filter.tags", absl::StrCat("has more than ", kMaxTags));
  for (const auto& tag : filter.tags()) TUTTI_RETURN_IF_ERROR(CheckText("filter.tags", tag, 64, /*required=*/true));
  for (int kind : filter.kinds()) {
    if (kind == v1::MEMORY_KIND_UNSPECIFIED || !v1::MemoryKind_IsValid(kind)) {
      return Invalid("filter.kinds", absl::StrCat("has ", kind, ", which is no kind of memory"));
    }
  }
  return absl::OkStatus();
}

absl::string_view Memories::OfOpenRun() const {
  // The janitor removes the others within seconds, and does it alone where runs are in other databases.
  return options_.runs_here ? "(m.kind <> 'working' OR EXISTS (SELECT 1 FROM runs WHERE run_id = m.scope AND status IN "
                              "('PENDING', 'RUNNING')))"
                            : "TRUE";
}

Memories::Condition Memories::Where(Transaction& tx, const v1::MemoryFilter& filter, int first_parameter,
                                    bool to_forget) const {
  Condition out;
  out.next = first_parameter;
  out.Add(" m.tenant = ", filter.tenant());
  if (!to_forget) {
    out.Add(" AND (m.expire_time = 0 OR m.expire_time > ", tx.NowMicros());
    absl::StrAppend(&out.sql, ") AND ", OfOpenRun());
  }
  if (!filter.agent().empty()) {
    out.Add(to_forget ? " AND (m.agent = " : " AND (m.agent = '' OR m.agent = ", filter.agent(), ")");
  }
  if (!filter.kinds().empty()) {
    std::vector<std::string> kinds;
    for (int kind : filter.kinds()) kinds.push_back(absl::StrCat("'", NameOf(static_cast<v1::MemoryKind>(kind)), "'"));
    std::sort(kinds.begin(), kinds.end());
    kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
    absl::StrAppend(&out.sql, " AND m.kind IN (", absl::StrJoin(kinds, ", "), ")");
  }
  if (!filter.run_id().empty()) out.Add(" AND m.kind = 'working' AND m.scope = ", filter.run_id());
  if (!filter.session_id().empty()) out.Add(" AND m.kind = 'short_term' AND m.scope = ", filter.session_id());
  for (const auto& tag : filter.tags()) {
    if (tx.sqlite()) {
      out.Add(" AND EXISTS (SELECT 1 FROM json_each(m.tags) AS tag WHERE tag.value = ", tag, ")");
    } else {
      out.Add(" AND m.tags @> jsonb_build_array(", tag, "::text)");
    }
  }
  if (filter.has_created_before()) out.Add(" AND m.create_time < ", ToMicros(filter.created_before()));
  if (filter.has_created_after()) out.Add(" AND m.create_time >= ", ToMicros(filter.created_after()));
  return out;
}

absl::StatusOr<v1::Memory> Memories::FromRow(const Statement& row) const {
  v1::Memory out;
  out.set_memory_id(row.Text(0));
  out.set_tenant(row.Text(1));
  out.set_agent(row.Text(2));
  out.set_kind(KindOf(row.Text(3)));
  if (out.kind() == v1::MEMORY_KIND_WORKING) out.set_run_id(row.Text(4));
  if (out.kind() == v1::MEMORY_KIND_SHORT_TERM) out.set_session_id(row.Text(4));
  TUTTI_ASSIGN_OR_RETURN(*out.mutable_content(),
                         payloads_.codec().Open(row.Bytes(5), PlaceOfMemory(out.memory_id(), "content")));
  out.set_importance(row.Double(6));
  Json tags = Json::parse(row.Text(7), nullptr, false);
  for (const auto& tag : tags) out.add_tags(tag.get<std::string>());
  SetMicros(row.Int(8), out.mutable_create_time());
  SetMicros(row.Int(9), out.mutable_access_time());
  if (row.Int(10) != 0) SetMicros(row.Int(10), out.mutable_expire_time());
  out.set_embedder(row.Text(12));
  return out;
}

absl::Status Memories::Count(Transaction& tx, const std::string& tenant, int64_t by) const {
  return tx
      .Prepare(
          "INSERT INTO memory_tenants (tenant, memories) VALUES ($1, $2) ON CONFLICT (tenant) DO UPDATE SET memories = "
          "memory_tenants.memories + $2")
      .BindAll(tenant, by)
      .Run();
}

absl::Status Memories::Remove(Transaction& tx,
                              const std::vector<std::pair<int64_t, std::string>>& numbers_and_tenants) const {
  if (numbers_and_tenants.empty()) return absl::OkStatus();
  unscrubbed_ = true;
  std::map<std::string, int64_t> by_tenant;
  for (const auto& [number, tenant] : numbers_and_tenants) {
    {
      Statement remove = tx.Prepare("DELETE FROM memories WHERE number = $1");
      TUTTI_RETURN_IF_ERROR(remove.BindAll(number).Run());
      if (remove.Changes() == 0) continue;  // another replica was first
    }
    TUTTI_RETURN_IF_ERROR(tx.Prepare("INSERT INTO memory_changes (number, removed, time) VALUES ($1, 1, $2)")
                              .BindAll(number, tx.NowMicros())
                              .Run());
    ++by_tenant[tenant];
  }
  for (const auto& [tenant, count] : by_tenant) TUTTI_RETURN_IF_ERROR(Count(tx, tenant, -count));
  return absl::OkStatus();
}

absl::Status Memories::MakeRoom(Transaction& tx, const std::string& tenant) const {
  {
    Statement row = tx.Prepare("SELECT memories FROM memory_tenants WHERE tenant = $1 FOR UPDATE");
    row.Bind(tenant);
    int64_t count = row.Step() ? row.Int(0) : 0;
    TUTTI_RETURN_IF_ERROR(row.status());
    if (count < options_.max_per_tenant) return absl::OkStatus();
    if (!options_.evict) {
      std::string text = absl::StrCat("tenant \"", tenant, "\" has ", count,
                                      " memories, its limit; forget some, or raise "
                                      "--state-manager.memory.max-per-tenant");
      return Error(absl::StatusCode::kResourceExhausted, "MEMORY_LIMIT", text)
          .Quota(absl::StrCat("tenants/", tenant), text);
    }
  }
  std::vector<std::pair<int64_t, std::string>> least;
  Statement rows =
      tx.Prepare("SELECT number FROM memories WHERE tenant = $1 ORDER BY importance, access_time LIMIT $2");
  rows.BindAll(tenant, std::max<int64_t>(1, options_.max_per_tenant / 1000));
  while (rows.Step()) least.emplace_back(rows.Int(0), tenant);
  TUTTI_RETURN_IF_ERROR(rows.status());
  return Remove(tx, least);
}

absl::Status Memories::StoreMemory(Transaction& tx, const v1::StoreMemoryRequest& request,
                                   v1::StoreMemoryResponse& response) const {
  v1::Memory memory = request.memory();
  if (memory.memory_id().empty()) memory.set_memory_id(ids_.NewUlid());
  TUTTI_RETURN_IF_ERROR(CheckId("memory.memory_id", memory.memory_id(), "/"));
  TUTTI_RETURN_IF_ERROR(CheckText("memory.tenant", memory.tenant(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("memory.agent", memory.agent(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("memory.content", memory.content(), kMaxMemoryBytes, /*required=*/true));
  if (memory.kind() == v1::MEMORY_KIND_UNSPECIFIED) memory.set_kind(v1::MEMORY_KIND_LONG_TERM);
  if (!v1::MemoryKind_IsValid(memory.kind())) return Invalid("memory.kind", "is not known");
  const bool working = memory.kind() == v1::MEMORY_KIND_WORKING;
  const bool short_term = memory.kind() == v1::MEMORY_KIND_SHORT_TERM;
  if (working != !memory.run_id().empty())
    return Invalid("memory.run_id", "belongs to working memories, and they need it");
  if (!short_term && !memory.session_id().empty())
    return Invalid("memory.session_id", "belongs to short-term memories");
  const std::string& scope = working ? memory.run_id() : memory.session_id();
  TUTTI_RETURN_IF_ERROR(CheckText("memory.session_id", scope, 200));
  double importance = memory.has_importance() ? memory.importance() : 0.5;
  if (!(importance >= 0 && importance <= 1)) return Invalid("memory.importance", "must be 0 to 1");
  if (memory.tags_size() > kMaxTags) return Invalid("memory.tags", absl::StrCat("has more than ", kMaxTags));
  for (const auto& tag : memory.tags()) TUTTI_RETURN_IF_ERROR(CheckText("memory.tags", tag, 64, /*required=*/true));
  if (memory.has_ttl()) TUTTI_RETURN_IF_ERROR(CheckDuration("memory.ttl", memory.ttl(), 1, int64_t{10} * 366 * 86400));
  std::vector<float> embedding;
  if (!memory.embedding().empty()) {
    TUTTI_ASSIGN_OR_RETURN(embedding, CheckEmbedding(memory.embedding(), memory.embedder()));
  } else {
    embedding = embedder_.Embed(memory.content());
    memory.set_embedder(embedder_.name());
  }
  const int64_t now = tx.NowMicros();
  int64_t expire = memory.has_ttl() ? now + ToMicros(memory.ttl()) : short_term ? now + kDefaultShortTerm : 0;
  std::vector<std::pair<int64_t, std::string>> replaced;
  {
    Statement old = tx.Prepare("SELECT number, tenant FROM memories WHERE memory_id = $1 FOR UPDATE");
    old.Bind(memory.memory_id());
    while (old.Step()) replaced.emplace_back(old.Int(0), old.Text(1));
    TUTTI_RETURN_IF_ERROR(old.status());
  }
  if (!replaced.empty() && replaced[0].second != memory.tenant()) {
    return Error(absl::StatusCode::kAlreadyExists, "MEMORY_EXISTS",
                 absl::StrCat("memory id ", memory.memory_id(), " is taken; choose another"));
  }
  if (replaced.empty()) TUTTI_RETURN_IF_ERROR(MakeRoom(tx, memory.tenant()));
  TUTTI_RETURN_IF_ERROR(Remove(tx, replaced));
  int64_t number = 0;
  {
    const CellCodec& codec = payloads_.codec();
    // The database's full text index would show what encryption hides.
    std::string search_text = codec.encrypts() ? "" : memory.content();
    Json tags = std::vector<std::string>(memory.tags().begin(), memory.tags().end());
    Statement insert = tx.Prepare(
        "INSERT INTO memories (memory_id, tenant, agent, kind, scope, content, search_text, embedding, embedder, "
        "importance, tags, size, create_time, access_time, expire_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, "
        "$10, "
        "$11, $12, $13, $13, $14) RETURNING number");
    insert.BindAll(
        memory.memory_id(), memory.tenant(), memory.agent(), NameOf(memory.kind()), scope,
        SqlArg::Bytes(codec.Seal(memory.content(), PlaceOfMemory(memory.memory_id(), "content"))), search_text,
        SqlArg::Bytes(codec.Seal(ToBytes(embedding), PlaceOfMemory(memory.memory_id(), "embedding"))),
        memory.embedder(), importance, DumpJson(tags), static_cast<int64_t>(memory.content().size()), now, expire);
    if (insert.Step()) number = insert.Int(0);
    TUTTI_RETURN_IF_ERROR(insert.status());
  }
  TUTTI_RETURN_IF_ERROR(
      tx.Prepare("INSERT INTO memory_changes (number, removed, time) VALUES ($1, 0, $2)").BindAll(number, now).Run());
  TUTTI_RETURN_IF_ERROR(Count(tx, memory.tenant(), 1));
  memory.clear_embedding();
  memory.set_importance(importance);
  SetMicros(now, memory.mutable_create_time());
  SetMicros(now, memory.mutable_access_time());
  if (expire != 0) SetMicros(expire, memory.mutable_expire_time());
  *response.mutable_memory() = std::move(memory);
  return absl::OkStatus();
}

absl::Status Memories::GetMemory(Transaction& tx, const v1::GetMemoryRequest& request,
                                 v1::GetMemoryResponse& response) const {
  Statement row =
      tx.Prepare(absl::StrCat("SELECT " TUTTI_MEMORY_COLUMNS
                              " FROM memories AS m WHERE memory_id = $1 AND (expire_time = 0 OR expire_time > $2) AND ",
                              OfOpenRun()));
  row.BindAll(request.memory_id(), tx.NowMicros());
  if (!row.Step()) return row.status().ok() ? NotFound(request.memory_id()) : row.status();
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_memory(), FromRow(row));
  return absl::OkStatus();
}

absl::Status Memories::ListMemories(Transaction& tx, const v1::ListMemoriesRequest& request,
                                    v1::ListMemoriesResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(int page, PageSize(request.page_size()));
  TUTTI_RETURN_IF_ERROR(CheckFilter(request.filter()));
  std::string bound_to = request.filter().SerializeAsString();
  TUTTI_ASSIGN_OR_RETURN(std::string cursor, DecodePageToken(request.page_token(), bound_to));
  int64_t before = std::numeric_limits<int64_t>::max();
  if (!cursor.empty() && !absl::SimpleAtoi(cursor, &before)) return Invalid("page_token", "is not one of ours");
  Condition where = Where(tx, request.filter(), 3);
  Statement rows = tx.Prepare(absl::StrCat("SELECT " TUTTI_MEMORY_COLUMNS " FROM memories AS m WHERE number < $1 AND",
                                           where.sql, " ORDER BY number DESC LIMIT $2"));
  rows.BindAll(before, page + 1);
  where.Bind(rows);
  int64_t last = 0;
  size_t bytes = 0;
  while (rows.Step()) {
    if (response.memories_size() == page || bytes > kPageBytes) {
      response.set_next_page_token(EncodePageToken(absl::StrCat(last), bound_to));
      break;
    }
    last = rows.Int(11);
    TUTTI_ASSIGN_OR_RETURN(*response.add_memories(), FromRow(rows));
    bytes += response.memories().rbegin()->ByteSizeLong();
  }
  return rows.status();
}

absl::Status Memories::DeleteMemory(Transaction& tx, const v1::DeleteMemoryRequest& request,
                                    v1::DeleteMemoryResponse&) const {
  std::vector<std::pair<int64_t, std::string>> found;
  {
    Statement row = tx.Prepare("SELECT number, tenant FROM memories WHERE memory_id = $1 FOR UPDATE");
    row.Bind(request.memory_id());
    while (row.Step()) found.emplace_back(row.Int(0), row.Text(1));
    TUTTI_RETURN_IF_ERROR(row.status());
  }
  if (found.empty()) return NotFound(request.memory_id());
  TUTTI_RETURN_IF_ERROR(Remove(tx, found));
  return absl::OkStatus();
}

absl::Status Memories::ForgetMemories(Transaction& tx, const v1::ForgetMemoriesRequest& request,
                                      v1::ForgetMemoriesResponse& response) const {
  const v1::MemoryFilter& filter = request.filter();
  TUTTI_RETURN_IF_ERROR(CheckFilter(filter));
  bool any = !filter.agent().empty() || !filter.kinds().empty() || !filter.run_id().empty() ||
             !filter.session_id().empty() || !filter.tags().empty() || filter.has_created_before() ||
             filter.has_created_after();
  if (!any && !request.all()) {
    return Invalid("filter", "names no condition; to forget everything of the tenant set `all`");
  }
  std::vector<std::pair<int64_t, std::string>> found;
  Condition where = Where(tx, filter, 2, /*to_forget=*/true);
  {
    Statement rows = tx.Prepare(absl::StrCat("SELECT number FROM memories AS m WHERE", where.sql, " LIMIT $1"));
    rows.Bind(kForgetBatch);
    where.Bind(rows);
    while (rows.Step()) found.emplace_back(rows.Int(0), filter.tenant());
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  response.set_forgotten(static_cast<int64_t>(found.size()));
  return Remove(tx, found);
}

absl::StatusOr<bool> Memories::Scrub(Transaction& tx, bool first) const {
  if (first) unscrubbed_ = false;
  if (!tx.sqlite()) return false;
  // Full text keeps removed words in old segments until they are merged: all into one, begun by a negative number of
  // pages, and done when a slice changes nothing (https://sqlite.org/fts5.html, "The 'merge' Command").
  auto changes = [&tx]() -> absl::StatusOr<int64_t> {
    Statement row = tx.Prepare("SELECT total_changes()");
    const int64_t count = row.Step() ? row.Int(0) : 0;
    TUTTI_RETURN_IF_ERROR(row.status());
    return count;
  };
  TUTTI_ASSIGN_OR_RETURN(int64_t before, changes());
  {
    Statement merge = tx.Prepare("INSERT INTO memories_text (memories_text, rank) VALUES ('merge', $1)");
    TUTTI_RETURN_IF_ERROR(merge.BindAll(first ? -kScrubbedPages : kScrubbedPages).Run());
  }
  TUTTI_ASSIGN_OR_RETURN(int64_t after, changes());
  const bool more = after - before >= 2;
  if (!more) tx.WipeDeleted();
  return more;
}

absl::Status Memories::Touch(Transaction& tx, const std::vector<std::string>& memory_ids) const {
  const int64_t minute = tx.NowMicros() / kMinute * kMinute;
  Statement touch = tx.Prepare("UPDATE memories SET access_time = $1 WHERE access_time < $1 AND memory_id = ANY($2)");
  touch.Bind(minute);
  return touch.BindList(memory_ids).Run();
}

absl::StatusOr<int64_t> Memories::Expire(Transaction& tx, int64_t limit) const {
  std::vector<std::pair<int64_t, std::string>> gone;
  const char* over = "SELECT number, tenant FROM memories WHERE expire_time > 0 AND expire_time <= $1 LIMIT $2";
  const char* without_run =
      "SELECT number, tenant FROM memories AS m WHERE kind = 'working' AND scope <> '' AND create_time < $1 AND NOT "
      "EXISTS (SELECT 1 FROM runs WHERE run_id = m.scope AND status IN ('PENDING', 'RUNNING')) LIMIT $2";
  for (const char* sql : {over, without_run}) {
    if (sql == without_run && !options_.runs_here) continue;
    Statement rows = tx.Prepare(sql);
    rows.BindAll(tx.NowMicros(), limit);
    while (rows.Step()) gone.emplace_back(rows.Int(0), rows.Text(1));
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  TUTTI_RETURN_IF_ERROR(Remove(tx, gone));
  return static_cast<int64_t>(gone.size());
}

absl::StatusOr<std::vector<std::string>> Memories::WorkingRuns(Transaction& tx, const std::string& after,
                                                               int64_t limit) const {
  std::vector<std::string> out;
  Statement rows = tx.Prepare(
      "SELECT DISTINCT scope FROM memories WHERE kind = 'working' AND scope <> '' AND scope > $1 ORDER BY scope LIMIT "
      "$2");
  rows.BindAll(after, limit);
  while (rows.Step()) out.push_back(rows.Text(0));
  TUTTI_RETURN_IF_ERROR(rows.status());
  return out;
}

absl::StatusOr<int64_t> Memories::ForgetWorking(Transaction& tx, const std::vector<std::string>& run_ids,
                                                int64_t limit) const {
  std::vector<std::pair<int64_t, std::string>> gone;
  {
    Statement rows = tx.Prepare(
        "SELECT number, tenant FROM memories WHERE kind = 'working' AND scope <> '' AND scope = ANY($1) LIMIT $2");
    rows.BindList(run_ids).Bind(limit);
    while (rows.Step()) gone.emplace_back(rows.Int(0), rows.Text(1));
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  TUTTI_RETURN_IF_ERROR(Remove(tx, gone));
  return static_cast<int64_t>(gone.size());
}

absl::StatusOr<int64_t> Memories::TrimChanges(Transaction& tx, int64_t limit) const {
  Statement trim = tx.Prepare(
      "DELETE FROM memory_changes WHERE change IN (SELECT change FROM memory_changes WHERE time < $1 LIMIT $2)");
  TUTTI_RETURN_IF_ERROR(trim.BindAll(tx.NowMicros() - kKeepChanges, limit).Run());
  return trim.Changes();
}

}  // namespace tutti::state_manager
