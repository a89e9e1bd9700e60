// Runs one agent once: asks its model, calls the tools it asks for, checks its answer, and adds up what that cost.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/async/semaphore.h"
#include "services/agent-manager/ports/model_provider.h"
#include "tutti/config/v1/config.pb.h"
#include "tutti/type/v1/usage.pb.h"

namespace tutti::agent_manager {

// Prices in nano-units per million tokens; a model nobody named costs nothing.
class PriceList {
 public:
  explicit PriceList(const google::protobuf::RepeatedPtrField<tutti::config::v1::ModelPrice>& configured);
  void SetCost(const std::string& provider, tutti::type::v1::ModelUsage* usage) const;

 private:
  std::vector<tutti::config::v1::ModelPrice> prices_;  // exact names before patterns
};

struct AgentResult {
  Json output;
  std::vector<tutti::type::v1::ModelUsage> usage;
};

// Told about each exchange with a model, for metrics.
class ModelObserver {
 public:
  virtual ~ModelObserver() = default;
  virtual void OnExchange(const tutti::type::v1::ModelUsage& usage, absl::Duration duration,
                          const absl::Status& status) = 0;
};

class AgentRunner {
 public:
  // `providers` by name; `automatic` is the one that `auto` means.
  AgentRunner(std::map<std::string, ModelProvider*> providers, std::string automatic, AgentTools& tools,
              PriceList prices, Semaphore& limiter, const Clock& clock, ModelObserver& observer);

  // INVALID_ARGUMENT: unknown provider, or the provider refused. RESOURCE_EXHAUSTED: out of turns or quota.
  // FAILED_PRECONDITION: the answer still does not fit the agent's schema after it was told so.
  // `on_text` (may be null) is told what models say as they say it; `turn` counts their answers from 1.
  using OnText = std::function<void(int turn, absl::string_view piece)>;
  Task<absl::StatusOr<AgentResult>> Run(CallContext& call, const tutti::agent::v1::Agent& agent, Json input,
                                        std::string idempotency_key, OnText on_text = nullptr);

 private:
  absl::StatusOr<ModelProvider*> ProviderFor(const tutti::agent::v1::Agent& agent) const;
  Task<absl::StatusOr<ChatResponse>> Exchange(CallContext& call, ModelProvider& provider, const ChatRequest& request,
                                              const std::string& agent,
                                              std::vector<tutti::type::v1::ModelUsage>& usage);
  Task<absl::Status> CallTools(CallContext& call, const tutti::agent::v1::Agent& agent, const ChatResponse& response,
                               ChatRequest& request);
  Task<std::string> CallTool(CallContext& call, bool allowed, ToolCall tool, std::string idempotency_key);

  const std::map<std::string, ModelProvider*> providers_;
  const std::string automatic_;
  AgentTools& tools_;
  const PriceList prices_;
  Semaphore& limiter_;
  const Clock& clock_;
  ModelObserver& observer_;
};

// The JSON value in a model's answer: the whole text, or what stands in its first code fence or between its outer
// braces.
absl::StatusOr<Json> JsonInAnswer(const std::string& text);

}  // namespace tutti::agent_manager
