// Shared documents of agents, in versions.
#pragma once

#include <string>

#include "runtime/json/json.h"
#include "runtime/random/random.h"
#include "services/state-manager/ports/database.h"
#include "services/state-manager/store/payloads.h"
#include "tutti/state/v1/context_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class Contexts {
 public:
  Contexts(const Payloads& payloads, IdSource& ids) : payloads_(payloads), ids_(ids) {}

  absl::Status CreateContext(Transaction& tx, const v1::CreateContextRequest& request,
                             v1::CreateContextResponse& response) const;
  absl::Status GetContext(Transaction& tx, const v1::GetContextRequest& request,
                          v1::GetContextResponse& response) const;
  absl::Status ListContexts(Transaction& tx, const v1::ListContextsRequest& request,
                            v1::ListContextsResponse& response) const;
  absl::Status UpdateContext(Transaction& tx, const v1::UpdateContextRequest& request,
                             v1::UpdateContextResponse& response) const;
  absl::Status DiffContext(Transaction& tx, const v1::DiffContextRequest& request,
                           v1::DiffContextResponse& response) const;
  absl::Status ListContextVersions(Transaction& tx, const v1::ListContextVersionsRequest& request,
                                   v1::ListContextVersionsResponse& response) const;
  absl::Status SetContextView(Transaction& tx, const v1::SetContextViewRequest& request,
                              v1::SetContextViewResponse& response) const;
  absl::Status DeleteContext(Transaction& tx, const v1::DeleteContextRequest& request,
                             v1::DeleteContextResponse& response) const;

  // Whole versions after one, at most `limit`. NOT_FOUND: no such context.
  absl::StatusOr<std::vector<v1::Context>> VersionsAfter(Transaction& tx, const std::string& context_id,
                                                         int64_t version, int limit) const;

 private:
  struct Row;
  absl::StatusOr<Row> Load(Transaction& tx, const std::string& context_id, bool lock) const;
  // A version's author, time and document.
  struct Version {
    v1::Context proto;  // without the document
    Json document;
  };
  absl::StatusOr<Version> LoadVersion(Transaction& tx, const Row& row, int64_t version) const;
  absl::Status InsertVersion(Transaction& tx, const v1::Context& context, const std::string& strategy,
                             const Json& document) const;

  const Payloads& payloads_;
  IdSource& ids_;
};

}  // namespace tutti::state_manager
