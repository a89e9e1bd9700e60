#include "services/state-manager/store/contexts.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/state-manager/domain/json_merge.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr size_t kMaxDocument = size_t{4} << 20;
constexpr size_t kMaxMessage = size_t{6} << 20;
constexpr int kMaxTags = 16;
constexpr size_t kMaxTaggedFields = 1000;
constexpr size_t kMaxViews = 1000;
constexpr int kMaxConflictsInError = 10;

std::string OwnerOf(absl::string_view context_id) { return absl::StrCat("contexts/", context_id); }
std::string FieldOf(int64_t version) { return absl::StrCat("versions/", version); }
std::string EtagOf(int64_t version) { return absl::StrCat("v", version); }

absl::Status NotFound(absl::string_view context_id) {
  return Error(absl::StatusCode::kNotFound, "CONTEXT_NOT_FOUND",
               absl::StrCat("context ", context_id, " does not exist"))
      .Metadata("context_id", context_id);
}

absl::Status Stale(absl::string_view context_id, absl::string_view what, int64_t version) {
  return Error(absl::StatusCode::kAborted, "CONTEXT_CHANGED",
               absl::StrCat("context ", context_id, ": ", what, "; the newest version is ", version,
                            ". Read it, merge, and try again"))
      .Metadata("version", absl::StrCat(version))
      .Metadata("etag", EtagOf(version));
}

using TagMap = google::protobuf::Map<std::string, v1::Tags>;

absl::Status CheckTags(const TagMap& tags) {
  if (tags.size() > kMaxTaggedFields)
    return Invalid("field_tags", absl::StrCat("has more than ", kMaxTaggedFields, " fields"));
  for (const auto& [field, list] : tags) {
    std::string name = absl::StrCat("field_tags.", field);
    TUTTI_RETURN_IF_ERROR(CheckText(name, field, 200, /*required=*/true));
    if (list.tags_size() > kMaxTags) return Invalid(name, absl::StrCat("has more than ", kMaxTags, " tags"));
    for (const auto& tag : list.tags()) TUTTI_RETURN_IF_ERROR(CheckText(name, tag, 64, /*required=*/true));
  }
  return absl::OkStatus();
}

void MergeTags(const TagMap& tags, Json& into) {
  for (const auto& [field, list] : tags) {
    if (list.tags().empty()) {
      into.erase(field);
    } else {
      into[field] = std::vector<std::string>(list.tags().begin(), list.tags().end());
    }
  }
}

absl::Status CheckDocument(const Json& document) {
  const size_t bytes = DumpJson(document).size();
  if (bytes > kMaxDocument) {
    return Invalid("document", absl::StrCat("would have ", bytes, " bytes; at most ", kMaxDocument));
  }
  // As a message, lists of small numbers take several times the room.
  if (bytes <= kMaxMessage / 8) return absl::OkStatus();
  google::protobuf::Value message;
  ToProto(document, &message);
  if (message.ByteSizeLong() <= kMaxMessage) return absl::OkStatus();
  return Invalid("document",
                 absl::StrCat("would have ", message.ByteSizeLong(), " bytes as a message; at most ", kMaxMessage));
}

Json ViewToJson(const v1::ContextView& view) {
  return Json{{"fields", std::vector<std::string>(view.fields().begin(), view.fields().end())},
              {"tags", std::vector<std::string>(view.tags().begin(), view.tags().end())},
              {"max_bytes", view.max_bytes()}};
}

DocumentView ViewFrom(const Json& json) {
  DocumentView view;
  view.fields = json.value("fields", std::vector<std::string>());
  view.tags = json.value("tags", std::vector<std::string>());
  view.max_bytes = json.value("max_bytes", int64_t{0});
  return view;
}

const char* NameOf(v1::MergeStrategy strategy) {
  switch (strategy) {
    case v1::MERGE_STRATEGY_OVERWRITE:
      return "overwrite";
    case v1::MERGE_STRATEGY_APPEND:
      return "append";
    case v1::MERGE_STRATEGY_THREE_WAY:
      return "three_way";
    default:
      return "deep_merge";
  }
}

OnConflict PolicyOf(v1::ConflictPolicy policy) {
  switch (policy) {
    case v1::CONFLICT_POLICY_OURS:
      return OnConflict::kOurs;
    case v1::CONFLICT_POLICY_THEIRS:
      return OnConflict::kTheirs;
    case v1::CONFLICT_POLICY_KEEP_BOTH:
      return OnConflict::kKeepBoth;
    default:
      return OnConflict::kFail;
  }
}

void ToProto(const Conflict& conflict, v1::MergeConflict* out) {
  out->set_path(conflict.path);
  tutti::ToProto(conflict.base, out->mutable_base());
  tutti::ToProto(conflict.ours, out->mutable_ours());
  tutti::ToProto(conflict.theirs, out->mutable_theirs());
}

}  // namespace

struct Contexts::Row {
  std::string context_id, tenant;
  int64_t version = 0;
  StringMap labels;
  Json field_tags = Json::object(), views = Json::object();
};

absl::StatusOr<Contexts::Row> Contexts::Load(Transaction& tx, const std::string& context_id, bool lock) const {
  Statement row =
      tx.Prepare(absl::StrCat("SELECT tenant, version, labels, field_tags, views FROM contexts WHERE context_id = $1",
                              lock ? " FOR UPDATE" : ""));
  row.Bind(context_id);
  if (!row.Step()) return row.status().ok() ? NotFound(context_id) : row.status();
  Row out;
  out.context_id = context_id;
  out.tenant = row.Text(0);
  out.version = row.Int(1);
  FromJsonText(row.Text(2), &out.labels);
  out.field_tags = Json::parse(row.Text(3), nullptr, false);
  out.views = Json::parse(row.Text(4), nullptr, false);
  return out;
}

absl::StatusOr<Contexts::Version> Contexts::LoadVersion(Transaction& tx, const Row& row, int64_t version) const {
  Statement stored = tx.Prepare(
      "SELECT author, time, message, size, document FROM context_versions WHERE context_id = $1 AND version = $2");
  stored.BindAll(row.context_id, version);
  if (!stored.Step()) {
    TUTTI_RETURN_IF_ERROR(stored.status());
    return Error(absl::StatusCode::kNotFound, "CONTEXT_VERSION_NOT_FOUND",
                 absl::StrCat("context ", row.context_id, " has no version ", version, "; it has 1 to ", row.version))
        .Metadata("context_id", row.context_id);
  }
  Version out;
  out.proto.set_context_id(row.context_id);
  out.proto.set_tenant(row.tenant);
  out.proto.set_version(version);
  out.proto.set_etag(EtagOf(version));
  out.proto.set_author(stored.Text(0));
  SetMicros(stored.Int(1), out.proto.mutable_time());
  out.proto.set_message(stored.Text(2));
  out.proto.set_size_bytes(stored.Int(3));
  *out.proto.mutable_labels() = row.labels;
  for (const auto& [field, tags] : row.field_tags.items()) {
    for (const auto& tag : tags) (*out.proto.mutable_field_tags())[field].add_tags(tag.get<std::string>());
  }
  TUTTI_ASSIGN_OR_RETURN(std::string text,
                         payloads_.Get(tx, OwnerOf(row.context_id), FieldOf(version), stored.Bytes(4)));
  TUTTI_ASSIGN_OR_RETURN(out.document, ParseJson(text));
  return out;
}

absl::Status Contexts::InsertVersion(Transaction& tx, const v1::Context& context, const std::string& strategy,
                                     const Json& document) const {
  std::string text = DumpJson(document);
  TUTTI_ASSIGN_OR_RETURN(std::string cell,
                         payloads_.Put(tx, OwnerOf(context.context_id()), FieldOf(context.version()), text));
  return tx
      .Prepare(
          "INSERT INTO context_versions (context_id, version, author, time, message, strategy, size, document) VALUES "
          "($1, $2, $3, $4, $5, $6, $7, $8)")
      .BindAll(context.context_id(), context.version(), context.author(), tx.NowMicros(), context.message(), strategy,
               static_cast<int64_t>(text.size()), SqlArg::Bytes(cell))
      .Run();
}

absl::Status Contexts::CreateContext(Transaction& tx, const v1::CreateContextRequest& request,
                                     v1::CreateContextResponse& response) const {
  std::string id = request.context_id().empty() ? ids_.NewUlid() : request.context_id();
  TUTTI_RETURN_IF_ERROR(CheckId("context_id", id));
  TUTTI_RETURN_IF_ERROR(CheckText("tenant", request.tenant(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("author", request.author(), 200));
  TUTTI_RETURN_IF_ERROR(CheckLabels("labels", request.labels()));
  TUTTI_RETURN_IF_ERROR(CheckTags(request.field_tags()));
  Json document = request.has_document() ? ToJson(request.document()) : Json::object();
  TUTTI_RETURN_IF_ERROR(CheckDocument(document));
  if (JsonDepth(DumpJson(document)) > kMaxJsonDepth) {
    return Invalid("document", absl::StrCat("nests deeper than ", kMaxJsonDepth, " levels"));
  }
  Json tags = Json::object();
  MergeTags(request.field_tags(), tags);
  const int64_t now = tx.NowMicros();
  bool made = false;
  {
    Statement insert = tx.Prepare(
        "INSERT INTO contexts (context_id, tenant, version, create_time, update_time, labels, field_tags, views) "
        "VALUES "
        "($1, $2, 1, $3, $3, $4, $5, '{}') ON CONFLICT DO NOTHING");
    insert.BindAll(id, request.tenant(), now, ToJsonText(request.labels()), DumpJson(tags));
    TUTTI_RETURN_IF_ERROR(insert.Run());
    made = insert.Changes() > 0;
  }
  if (made) {
    v1::Context context;
    context.set_context_id(id);
    context.set_version(1);
    context.set_author(request.author());
    TUTTI_RETURN_IF_ERROR(InsertVersion(tx, context, "overwrite", document));
    tx.Announce({News::Kind::kContext, id, ""});
  }
  TUTTI_ASSIGN_OR_RETURN(Row row, Load(tx, id, /*lock=*/false));
  TUTTI_ASSIGN_OR_RETURN(Version first, LoadVersion(tx, row, 1));
  if (!made && (row.tenant != request.tenant() || first.document != document)) {
    return Error(absl::StatusCode::kAlreadyExists, "CONTEXT_EXISTS",
                 absl::StrCat("context ", id, " exists with another first version; choose another id"))
        .Metadata("context_id", id);
  }
  *response.mutable_context() = std::move(first.proto);
  tutti::ToProto(first.document, response.mutable_context()->mutable_document());
  return absl::OkStatus();
}

absl::Status Contexts::GetContext(Transaction& tx, const v1::GetContextRequest& request,
                                  v1::GetContextResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(Row row, Load(tx, request.context_id(), /*lock=*/false));
  if (request.version() < 0) return Invalid("version", "must not be negative");
  TUTTI_ASSIGN_OR_RETURN(Version version,
                         LoadVersion(tx, row, request.version() == 0 ? row.version : request.version()));
  *response.mutable_context() = std::move(version.proto);
  Json view;
  if (request.has_view()) {
    if (request.view().max_bytes() < 0) return Invalid("view.max_bytes", "must not be negative");
    view = ViewToJson(request.view());
  } else if (!request.agent().empty() && row.views.contains(request.agent())) {
    view = row.views[request.agent()];
  }
  if (view.is_object()) {
    ViewResult shown = ApplyView(version.document, ViewFrom(view),
                                 row.field_tags.get<std::map<std::string, std::vector<std::string>>>());
    version.document = std::move(shown.document);
    for (auto& field : shown.omitted) response.mutable_context()->add_omitted_fields(std::move(field));
  }
  tutti::ToProto(version.document, response.mutable_context()->mutable_document());
  return absl::OkStatus();
}

absl::Status Contexts::ListContexts(Transaction& tx, const v1::ListContextsRequest& request,
                                    v1::ListContextsResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(int page, PageSize(request.page_size()));
  TUTTI_ASSIGN_OR_RETURN(std::string after, DecodePageToken(request.page_token(), request.tenant()));
  Statement rows = tx.Prepare(
      "SELECT context_id, version, update_time, labels FROM contexts WHERE tenant = $1 AND context_id > $2 ORDER BY "
      "context_id LIMIT $3");
  rows.BindAll(request.tenant(), after, page + 1);
  while (rows.Step()) {
    if (response.contexts_size() == page) {
      response.set_next_page_token(EncodePageToken(response.contexts().rbegin()->context_id(), request.tenant()));
      break;
    }
    auto* context = response.add_contexts();
    context->set_context_id(rows.Text(0));
    context->set_tenant(request.tenant());
    context->set_version(rows.Int(1));
    context->set_etag(EtagOf(rows.Int(1)));
    SetMicros(rows.Int(2), context->mutable_time());
    FromJsonText(rows.Text(3), context->mutable_labels());
  }
  return rows.status();
}

absl::Status Contexts::UpdateContext(Transaction& tx, const v1::UpdateContextRequest& request,
                                     v1::UpdateContextResponse& response) const {
  TUTTI_RETURN_IF_ERROR(CheckText("author", request.author(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("message", request.message(), 4096));
  TUTTI_RETURN_IF_ERROR(CheckTags(request.field_tags()));
  if (!request.has_document()) return Invalid("document", "must be given");
  TUTTI_ASSIGN_OR_RETURN(Row row, Load(tx, request.context_id(), /*lock=*/true));
  if (!request.etag().empty() && request.etag() != EtagOf(row.version)) {
    return Stale(row.context_id, absl::StrCat("the etag \"", request.etag(), "\" is not the newest"), row.version);
  }
  TUTTI_ASSIGN_OR_RETURN(Version newest, LoadVersion(tx, row, row.version));
  Json given = ToJson(request.document());
  Json merged;
  switch (request.strategy()) {
    case v1::MERGE_STRATEGY_OVERWRITE:
      merged = std::move(given);
      break;
    case v1::MERGE_STRATEGY_APPEND:
      merged = AppendMerge(newest.document, given);
      break;
    case v1::MERGE_STRATEGY_THREE_WAY: {
      if (request.base_version() < 1) return Invalid("base_version", "must be given for a three-way merge");
      TUTTI_ASSIGN_OR_RETURN(Version base, LoadVersion(tx, row, request.base_version()));
      ThreeWayResult result = ThreeWayMerge(base.document, newest.document, given, PolicyOf(request.conflict_policy()));
      if (!result.conflicts.empty() && PolicyOf(request.conflict_policy()) == OnConflict::kFail) {
        Error error(absl::StatusCode::kAborted, "MERGE_CONFLICT",
                    absl::StrCat("context ", row.context_id, ": ", result.conflicts.size(),
                                 " fields were changed on both sides since version ", request.base_version()));
        error.Metadata("version", absl::StrCat(row.version));
        int shown = 0;
        for (const auto& conflict : result.conflicts) {
          if (++shown > kMaxConflictsInError) break;
          error.Violation(conflict.path,
                          absl::StrCat("ours ", DumpJson(conflict.ours), ", theirs ", DumpJson(conflict.theirs)));
        }
        return error;
      }
      for (const auto& conflict : result.conflicts) ToProto(conflict, response.add_conflicts());
      merged = std::move(result.merged);
      break;
    }
    default:
      merged = DeepMerge(newest.document, given);
  }
  TUTTI_RETURN_IF_ERROR(CheckDocument(merged));
  if (JsonDepth(DumpJson(merged)) > kMaxJsonDepth) {
    return Invalid("document", absl::StrCat("would nest deeper than ", kMaxJsonDepth, " levels"));
  }
  MergeTags(request.field_tags(), row.field_tags);
  if (row.field_tags.size() > kMaxTaggedFields) {
    return Invalid("field_tags", absl::StrCat("would tag more than ", kMaxTaggedFields, " fields"));
  }
  v1::Context next;
  next.set_context_id(row.context_id);
  next.set_version(row.version + 1);
  next.set_author(request.author());
  next.set_message(request.message());
  TUTTI_RETURN_IF_ERROR(InsertVersion(tx, next, NameOf(request.strategy()), merged));
  TUTTI_RETURN_IF_ERROR(
      tx.Prepare("UPDATE contexts SET version = $2, update_time = $3, field_tags = $4 WHERE context_id = $1")
          .BindAll(row.context_id, next.version(), tx.NowMicros(), DumpJson(row.field_tags))
          .Run());
  row.version = next.version();
  TUTTI_ASSIGN_OR_RETURN(Version written, LoadVersion(tx, row, row.version));
  *response.mutable_context() = std::move(written.proto);
  tutti::ToProto(merged, response.mutable_context()->mutable_document());
  tx.Announce({News::Kind::kContext, row.context_id, ""});
  return absl::OkStatus();
}

absl::Status Contexts::DiffContext(Transaction& tx, const v1::DiffContextRequest& request,
                                   v1::DiffContextResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(Row row, Load(tx, request.context_id(), /*lock=*/false));
  TUTTI_ASSIGN_OR_RETURN(Version from, LoadVersion(tx, row, request.from_version()));
  TUTTI_ASSIGN_OR_RETURN(Version to,
                         LoadVersion(tx, row, request.to_version() == 0 ? row.version : request.to_version()));
  for (const auto& change : DiffJson(from.document, to.document)) {
    auto* out = response.add_changes();
    out->set_path(change.path);
    out->set_op(change.op == JsonChange::Op::kAdd      ? "add"
                : change.op == JsonChange::Op::kRemove ? "remove"
                                                       : "replace");
    if (change.op != JsonChange::Op::kAdd) tutti::ToProto(change.old_value, out->mutable_old_value());
    if (change.op != JsonChange::Op::kRemove) tutti::ToProto(change.new_value, out->mutable_new_value());
  }
  return absl::OkStatus();
}

absl::Status Contexts::ListContextVersions(Transaction& tx, const v1::ListContextVersionsRequest& request,
                                           v1::ListContextVersionsResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(int page, PageSize(request.page_size()));
  TUTTI_ASSIGN_OR_RETURN(std::string cursor, DecodePageToken(request.page_token(), request.context_id()));
  TUTTI_ASSIGN_OR_RETURN(Row row, Load(tx, request.context_id(), /*lock=*/false));
  int64_t before = row.version + 1;
  if (!cursor.empty() && !absl::SimpleAtoi(cursor, &before)) return Invalid("page_token", "is not one of ours");
  Statement rows = tx.Prepare(
      "SELECT version, author, time, message, size FROM context_versions WHERE context_id = $1 AND version < $2 ORDER "
      "BY "
      "version DESC LIMIT $3");
  rows.BindAll(row.context_id, before, page + 1);
  while (rows.Step()) {
    if (response.versions_size() == page) {
      response.set_next_page_token(
          EncodePageToken(absl::StrCat(response.versions().rbegin()->version()), request.context_id()));
      break;
    }
    auto* version = response.add_versions();
    version->set_context_id(row.context_id);
    version->set_tenant(row.tenant);
    version->set_version(rows.Int(0));
    version->set_etag(EtagOf(rows.Int(0)));
    version->set_author(rows.Text(1));
    SetMicros(rows.Int(2), version->mutable_time());
    version->set_message(rows.Text(3));
    version->set_size_bytes(rows.Int(4));
  }
  return rows.status();
}

absl::Status Contexts::SetContextView(Transaction& tx, const v1::SetContextViewRequest& request,
                                      v1::SetContextViewResponse&) const {
  TUTTI_RETURN_IF_ERROR(CheckText("agent", request.agent(), 200, /*required=*/true));
  for (const auto& field : request.view().fields()) TUTTI_RETURN_IF_ERROR(CheckText("view.fields", field, 500, true));
  for (const auto& tag : request.view().tags()) TUTTI_RETURN_IF_ERROR(CheckText("view.tags", tag, 64, true));
  if (request.view().fields_size() > 1000 || request.view().tags_size() > 100) return Invalid("view", "is too long");
  if (request.view().max_bytes() < 0) return Invalid("view.max_bytes", "must not be negative");
  TUTTI_ASSIGN_OR_RETURN(Row row, Load(tx, request.context_id(), /*lock=*/true));
  if (request.has_view()) {
    row.views[request.agent()] = ViewToJson(request.view());
  } else {
    row.views.erase(request.agent());
  }
  if (row.views.size() > kMaxViews) return Invalid("agent", absl::StrCat("is one more than ", kMaxViews, " views"));
  return tx.Prepare("UPDATE contexts SET views = $2 WHERE context_id = $1")
      .BindAll(row.context_id, DumpJson(row.views))
      .Run();
}

absl::Status Contexts::DeleteContext(Transaction& tx, const v1::DeleteContextRequest& request,
                                     v1::DeleteContextResponse&) const {
  Statement remove = tx.Prepare("DELETE FROM contexts WHERE context_id = $1");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(request.context_id()).Run());
  if (remove.Changes() == 0) return NotFound(request.context_id());
  TUTTI_RETURN_IF_ERROR(
      tx.Prepare("DELETE FROM context_versions WHERE context_id = $1").BindAll(request.context_id()).Run());
  tx.Announce({News::Kind::kContext, request.context_id(), ""});
  return Payloads::Forget(tx, OwnerOf(request.context_id()));
}

absl::StatusOr<std::vector<v1::Context>> Contexts::VersionsAfter(Transaction& tx, const std::string& context_id,
                                                                 int64_t version, int limit) const {
  TUTTI_ASSIGN_OR_RETURN(Row row, Load(tx, context_id, /*lock=*/false));
  if (version > row.version) {
    return Error(absl::StatusCode::kAborted, "CONTEXT_REPLACED",
                 absl::StrCat("context ", context_id, " has no version ", version, ", its newest is ", row.version,
                              ": it was deleted and made anew; watch it from 0"));
  }
  std::vector<v1::Context> out;
  for (int64_t next = version + 1; next <= row.version && static_cast<int>(out.size()) < limit; ++next) {
    TUTTI_ASSIGN_OR_RETURN(Version loaded, LoadVersion(tx, row, next));
    tutti::ToProto(loaded.document, loaded.proto.mutable_document());
    out.push_back(std::move(loaded.proto));
  }
  return out;
}

}  // namespace tutti::state_manager
