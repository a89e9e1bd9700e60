#include "services/workflow-engine/rpc/spec_library.h"

#include "runtime/status/macros.h"

namespace tutti::engine {

Task<absl::StatusOr<std::shared_ptr<const Definition>>> SpecLibrary::Get(CallContext& call, std::string name,
                                                                         int64_t version, bool fresh) {
  int64_t wanted = version;
  if (wanted == 0 && !fresh) {
    if (auto latest = latest_.find(name); latest != latest_.end()) wanted = latest->second;
  }
  if (wanted > 0) {
    if (auto kept = kept_.find({name, wanted}); kept != kept_.end()) co_return kept->second;
  }
  state::GetWorkflowRequest get;
  get.set_name(name);
  get.set_version(version);
  TUTTI_CO_ASSIGN_OR_RETURN(state::GetWorkflowResponse stored, co_await state_.GetWorkflow(call, get));
  auto definition = std::make_shared<Definition>();
  definition->name = stored.workflow().name();
  definition->version = stored.workflow().version();
  definition->bytes = stored.workflow().spec().data();
  if (!definition->spec.ParseFromString(definition->bytes)) {
    co_return absl::DataLossError("the stored spec cannot be read");
  }
  if (kept_.size() >= kMostKept) {
    kept_.clear();
    latest_.clear();
  }
  kept_[{name, definition->version}] = definition;
  if (version == 0) latest_[name] = definition->version;
  co_return std::shared_ptr<const Definition>(definition);
}

}  // namespace tutti::engine
