// What an agent needs of a model, whoever serves it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/async/task.h"
#include "runtime/json/json.h"
#include "runtime/rpc/call_context.h"
#include "tutti/agent/v1/agent.pb.h"

namespace tutti::agent_manager {

struct ToolCall {
  std::string id;
  std::string name;
  Json arguments;
};

struct ToolSpec {
  std::string name;
  std::string description;
  Json parameters_schema;
};

struct ChatMessage {
  enum class Role { kUser, kAssistant, kTool };
  Role role = Role::kUser;
  std::string text;
  std::vector<ToolCall> tool_calls;  // of an assistant
  std::string tool_call_id;          // of a tool's answer
  std::string tool_name;
};

struct ChatRequest {
  std::string model;
  std::string instructions;
  std::vector<ChatMessage> messages;
  std::vector<ToolSpec> tools;
  int max_output_tokens = 4096;
  std::optional<double> temperature;
  bool wants_json = false;
  Json input;  // what the agent was asked, for providers that are no language model
  tutti::agent::v1::LocalTask local_task = tutti::agent::v1::LOCAL_TASK_UNSPECIFIED;
  std::string idempotency_key;
  // Told pieces of the answer's text as they come, where the provider can; the response has all of it. Null: nobody
  // listens.
  std::function<void(absl::string_view)> on_text;
};

struct ChatResponse {
  std::string text;
  std::vector<ToolCall> tool_calls;
  std::string model;  // that answered
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
};

class ModelProvider {
 public:
  virtual ~ModelProvider() = default;
  virtual std::string name() const = 0;
  virtual std::string default_model() const = 0;
  // UNAVAILABLE: cannot be reached or overloaded. RESOURCE_EXHAUSTED: quota. UNAUTHENTICATED: the key.
  // INVALID_ARGUMENT: refused.
  virtual Task<absl::StatusOr<ChatResponse>> Chat(CallContext& call, const ChatRequest& request) = 0;
};

class AgentTools {
 public:
  virtual ~AgentTools() = default;
  virtual Task<absl::StatusOr<std::vector<ToolSpec>>> Describe(CallContext& call, std::vector<std::string> names) = 0;
  virtual Task<absl::StatusOr<Json>> Call(CallContext& call, std::string tool, Json arguments,
                                          std::string idempotency_key) = 0;
};

}  // namespace tutti::agent_manager
