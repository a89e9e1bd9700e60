// Runs as steps of others, lessons and cached answers: what a run asks the state-manager for besides its journal.
#pragma once

#include "runtime/random/random.h"
#include "services/workflow-engine/adapters/state_client.h"
#include "services/workflow-engine/domain/descendants.h"
#include "services/workflow-engine/ports/effects.h"

namespace tutti::engine {

// For one run.
class GrpcChildren final : public ChildPort {
 public:
  // `depth`: how many runs stand above this one.
  GrpcChildren(StateClient& state, IdSource& ids, Descendants& descendants, std::string tenant, std::string root,
               int depth)
      : state_(state),
        ids_(ids),
        descendants_(descendants),
        tenant_(std::move(tenant)),
        root_(std::move(root)),
        depth_(depth) {}
  // As the run's labels say it.
  static int DepthOf(const state::StoredRun& run);
  // The run at the top of those that started this one; itself, when nobody did.
  static std::string RootOf(const state::StoredRun& run);
  Task<absl::StatusOr<std::string>> StartChild(CallContext& call, Attempt attempt, Start start) override;
  Task<absl::StatusOr<Look>> LookAtChild(CallContext& call, std::string run_id) override;
  Task<absl::Status> CancelChild(CallContext& call, std::string run_id) override;

 private:
  StateClient& state_;
  IdSource& ids_;
  Descendants& descendants_;
  const std::string tenant_, root_;
  const int depth_;
};

class GrpcLessons final : public LessonPort {
 public:
  GrpcLessons(StateClient& state, std::string tenant) : state_(state), tenant_(std::move(tenant)) {}
  Task<absl::StatusOr<std::vector<std::string>>> Recall(CallContext& call, std::string agent, std::string about,
                                                        int limit) override;
  Task<absl::Status> Learn(CallContext& call, Attempt attempt, std::string agent, std::string lesson,
                           double importance) override;

 private:
  StateClient& state_;
  const std::string tenant_;
};

class GrpcCache final : public CachePort {
 public:
  GrpcCache(StateClient& state, std::string tenant) : state_(state), tenant_(std::move(tenant)) {}
  Task<absl::StatusOr<std::optional<Json>>> Get(CallContext& call, std::string key) override;
  Task<absl::Status> Put(CallContext& call, std::string key, Json value, absl::Duration ttl) override;

 private:
  StateClient& state_;
  const std::string tenant_;
};

}  // namespace tutti::engine
