#include "services/agent-manager/domain/agent_runner.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/async/when_all.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::agent_manager {
namespace {

constexpr int kDefaultTurns = 8;
constexpr int kRepairs = 2;
constexpr absl::Duration kDefaultTimeout = absl::Seconds(120);
constexpr size_t kMaxToolCallsPerTurn = 32;

tutti::type::v1::ModelUsage& UsageOf(std::vector<tutti::type::v1::ModelUsage>& all, const std::string& agent,
                                     const std::string& provider, const std::string& model) {
  for (auto& usage : all) {
    if (usage.model() == model && usage.provider() == provider) return usage;
  }
  all.emplace_back();
  all.back().set_agent(agent);
  all.back().set_provider(provider);
  all.back().set_model(model);
  all.back().set_currency_code("USD");
  return all.back();
}

}  // namespace

PriceList::PriceList(const google::protobuf::RepeatedPtrField<tutti::config::v1::ModelPrice>& configured)
    : prices_(configured.begin(), configured.end()) {
  std::stable_sort(prices_.begin(), prices_.end(), [](const auto& a, const auto& b) {
    return !absl::EndsWith(a.model(), "*") && absl::EndsWith(b.model(), "*");
  });
}

void PriceList::SetCost(const std::string& provider, tutti::type::v1::ModelUsage* usage) const {
  if (provider == "local") return;
  for (const auto& price : prices_) {
    bool pattern = absl::EndsWith(price.model(), "*");
    bool fits = pattern ? absl::StartsWith(usage->model(), price.model().substr(0, price.model().size() - 1))
                        : usage->model() == price.model();
    if (!fits) continue;
    // Rounded up: a cost is never reported lower than it is.
    auto cost = static_cast<__int128>(usage->input_tokens()) * price.input_nano_units_per_million() +
                static_cast<__int128>(usage->output_tokens()) * price.output_nano_units_per_million();
    usage->set_cost_nano_units(static_cast<int64_t>((cost + 999999) / 1000000));
    usage->set_currency_code(price.currency_code().empty() ? "USD" : price.currency_code());
    return;
  }
}

absl::StatusOr<Json> JsonInAnswer(const std::string& text) {
  auto whole = ParseJson(absl::StripAsciiWhitespace(text));
  if (whole.ok()) return whole;
  size_t fence = text.find("```");
  if (fence != std::string::npos) {
    size_t begin = text.find('\n', fence);
    size_t end = begin == std::string::npos ? begin : text.find("```", begin);
    if (end != std::string::npos) {
      auto inner = ParseJson(text.substr(begin, end - begin));
      if (inner.ok()) return inner;
    }
  }
  size_t begin = text.find('{'), end = text.rfind('}');
  if (begin != std::string::npos && end != std::string::npos && begin < end) {
    auto inner = ParseJson(text.substr(begin, end - begin + 1));
    if (inner.ok()) return inner;
  }
  return whole;
}

AgentRunner::AgentRunner(std::map<std::string, ModelProvider*> providers, std::string automatic, AgentTools& tools,
                         PriceList prices, Semaphore& limiter, const Clock& clock, ModelObserver& observer)
    : providers_(std::move(providers)),
      automatic_(std::move(automatic)),
      tools_(tools),
      prices_(std::move(prices)),
      limiter_(limiter),
      clock_(clock),
      observer_(observer) {}

absl::StatusOr<ModelProvider*> AgentRunner::ProviderFor(const tutti::agent::v1::Agent& agent) const {
  std::string name = agent.model().provider();
  if (name.empty() || name == "auto") name = automatic_;
  auto it = providers_.find(name);
  if (it != providers_.end()) return it->second;
  return Error(
      absl::StatusCode::kInvalidArgument, "UNKNOWN_PROVIDER",
      absl::StrCat("agent ", agent.name(), ": provider \"", name, "\" is none of auto, local, openai, anthropic"));
}

Task<absl::StatusOr<ChatResponse>> AgentRunner::Exchange(CallContext& call, ModelProvider& provider,
                                                         const ChatRequest& request, const std::string& agent,
                                                         std::vector<tutti::type::v1::ModelUsage>& usage) {
  if (!co_await limiter_.Acquire()) {
    co_return Error(absl::StatusCode::kResourceExhausted, "MODEL_CALLS_BUSY",
                    absl::StrCat(limiter_.waiting(), " calls of models wait already; try again later"))
        .RetryAfter(absl::Seconds(1));
  }
  Span span = call.tracer->Start(absl::StrCat("chat ", request.model), SpanKind::kClient, call.trace);
  span.Set("gen_ai.operation.name", "chat");
  span.Set("gen_ai.provider.name", provider.name());
  span.Set("gen_ai.request.model", request.model);
  span.Set("gen_ai.agent.name", agent);
  absl::Time start = clock_.Now();
  auto response = co_await provider.Chat(call, request);
  limiter_.Release();
  tutti::type::v1::ModelUsage one;
  one.set_agent(agent);
  one.set_provider(provider.name());
  one.set_model(request.model);
  if (response.ok()) {
    if (!response->model.empty()) one.set_model(response->model);
    one.set_calls(1);
    one.set_input_tokens(response->input_tokens);
    one.set_output_tokens(response->output_tokens);
    prices_.SetCost(provider.name(), &one);
    auto& sum = UsageOf(usage, agent, provider.name(), one.model());
    sum.set_calls(sum.calls() + 1);
    sum.set_input_tokens(sum.input_tokens() + one.input_tokens());
    sum.set_output_tokens(sum.output_tokens() + one.output_tokens());
    sum.set_cost_nano_units(sum.cost_nano_units() + one.cost_nano_units());
    if (!one.currency_code().empty()) sum.set_currency_code(one.currency_code());
    span.Set("gen_ai.response.model", one.model());
    span.Set("gen_ai.usage.input_tokens", absl::StrCat(one.input_tokens()));
    span.Set("gen_ai.usage.output_tokens", absl::StrCat(one.output_tokens()));
  }
  span.SetStatus(response.status());
  observer_.OnExchange(one, clock_.Now() - start, response.status());
  co_return response;
}

Task<std::string> AgentRunner::CallTool(CallContext& call, bool allowed, ToolCall tool, std::string idempotency_key) {
  if (!allowed) co_return absl::StrCat("error: the tool ", tool.name, " is not one of yours");
  auto result = co_await tools_.Call(call, tool.name, tool.arguments, std::move(idempotency_key));
  // A tool's failure is an answer to the model, which may do better.
  co_return result.ok() ? DumpJson(*result) : absl::StrCat("error: ", result.status().message());
}

Task<absl::Status> AgentRunner::CallTools(CallContext& call, const tutti::agent::v1::Agent& agent,
                                          const ChatResponse& response, ChatRequest& request) {
  ChatMessage asked;
  asked.role = ChatMessage::Role::kAssistant;
  asked.text = response.text;
  asked.tool_calls = response.tool_calls;
  if (asked.tool_calls.size() > kMaxToolCallsPerTurn) asked.tool_calls.resize(kMaxToolCallsPerTurn);
  request.messages.push_back(asked);
  std::vector<Task<std::string>> calls;
  for (size_t i = 0; i < asked.tool_calls.size(); ++i) {
    bool allowed =
        std::find(agent.tools().begin(), agent.tools().end(), asked.tool_calls[i].name) != agent.tools().end();
    calls.push_back(CallTool(call, allowed, asked.tool_calls[i],
                             absl::StrCat(request.idempotency_key, "/", request.messages.size(), "/", i)));
  }
  std::vector<std::string> answers = co_await WhenAll(std::move(calls));
  for (size_t i = 0; i < answers.size(); ++i) {
    ChatMessage answer;
    answer.role = ChatMessage::Role::kTool;
    answer.tool_call_id = asked.tool_calls[i].id;
    answer.tool_name = asked.tool_calls[i].name;
    answer.text = std::move(answers[i]);
    request.messages.push_back(std::move(answer));
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<AgentResult>> AgentRunner::Run(CallContext& call, const tutti::agent::v1::Agent& agent, Json input,
                                                   std::string idempotency_key, OnText on_text) {
  TUTTI_CO_ASSIGN_OR_RETURN(ModelProvider * provider, ProviderFor(agent));
  absl::Duration timeout = agent.has_timeout()
                               ? absl::Seconds(agent.timeout().seconds()) + absl::Nanoseconds(agent.timeout().nanos())
                               : kDefaultTimeout;
  call.deadline = std::min(call.deadline, clock_.Now() + timeout);
  ChatRequest request;
  request.model = agent.model().model().empty() ? provider->default_model() : agent.model().model();
  request.instructions = agent.instructions();
  request.max_output_tokens = agent.model().max_output_tokens() > 0 ? agent.model().max_output_tokens() : 4096;
  if (agent.model().has_temperature()) request.temperature = agent.model().temperature();
  request.wants_json = agent.has_output_schema();
  request.local_task = agent.model().local_task();
  request.idempotency_key = std::move(idempotency_key);
  if (!agent.tools().empty()) {
    std::vector<std::string> names(agent.tools().begin(), agent.tools().end());
    TUTTI_CO_ASSIGN_OR_RETURN(request.tools, co_await tools_.Describe(call, std::move(names)));
  }
  ChatMessage question;
  question.text = input.is_string() ? input.get<std::string>() : DumpJson(input);
  request.messages.push_back(std::move(question));
  request.input = std::move(input);

  AgentResult result;
  int repairs = 0;
  int turns = agent.max_turns() > 0 ? agent.max_turns() : kDefaultTurns;
  for (int turn = 0; turn < turns; ++turn) {
    if (on_text) request.on_text = [&on_text, turn](absl::string_view piece) { on_text(turn + 1, piece); };
    TUTTI_CO_ASSIGN_OR_RETURN(ChatResponse response,
                              co_await Exchange(call, *provider, request, agent.name(), result.usage));
    if (!response.tool_calls.empty()) {
      TUTTI_CO_RETURN_IF_ERROR(co_await CallTools(call, agent, response, request));
      continue;
    }
    if (!agent.has_output_schema()) {
      result.output = std::move(response.text);
      co_return result;
    }
    auto parsed = JsonInAnswer(response.text);
    absl::Status fits = parsed.status();
    if (fits.ok() && agent.output_schema().fields_size() > 0) {
      fits = ValidateJson(ToJson(agent.output_schema()), *parsed, "answer");
    }
    if (fits.ok()) {
      result.output = *std::move(parsed);
      co_return result;
    }
    if (++repairs > kRepairs) {
      co_return Error(absl::StatusCode::kFailedPrecondition, "BAD_ANSWER",
                      absl::StrCat("agent ", agent.name(), " did not answer as its schema asks: ", fits.message()));
    }
    ChatMessage said, told;
    said.role = ChatMessage::Role::kAssistant;
    said.text = response.text;
    told.text =
        absl::StrCat("That does not fit what was asked: ", fits.message(), ". Answer again with one JSON object only.");
    request.messages.push_back(std::move(said));
    request.messages.push_back(std::move(told));
  }
  co_return Error(
      absl::StatusCode::kResourceExhausted, "OUT_OF_TURNS",
      absl::StrCat("agent ", agent.name(), " used all its ", turns, " turns without an answer; raise max_turns"));
}

}  // namespace tutti::agent_manager
