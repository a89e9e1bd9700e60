#include "services/agent-manager/module.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/http/curl_http_client.h"
#include "runtime/process/service_server.h"
#include "runtime/status/macros.h"
#include "services/agent-manager/adapters/grpc_tools.h"
#include "services/agent-manager/adapters/providers.h"
#include "services/agent-manager/rpc/services.h"

namespace tutti::agent_manager {
namespace {

// gen_ai.client.* of OpenTelemetry's GenAI conventions v1.41.1, as Prometheus writes them.
class ModelMetrics final : public ModelObserver {
 public:
  explicit ModelMetrics(prometheus::Registry& registry)
      : tokens_(prometheus::BuildCounter()
                    .Name("tutti_model_tokens_total")
                    .Help("Tokens by provider, model and type.")
                    .Register(registry)),
        cost_(prometheus::BuildCounter()
                  .Name("tutti_model_cost_nano_units_total")
                  .Help("Cost of model calls in nano-units.")
                  .Register(registry)),
        duration_(prometheus::BuildHistogram()
                      .Name("gen_ai_client_operation_duration_seconds")
                      .Help("Duration of model calls.")
                      .Register(registry)) {}
  void OnExchange(const tutti::type::v1::ModelUsage& usage, absl::Duration duration,
                  const absl::Status& status) override {
    Series& series = SeriesOf(usage.provider(), usage.model());
    series.input->Increment(static_cast<double>(usage.input_tokens()));
    series.output->Increment(static_cast<double>(usage.output_tokens()));
    series.cost->Increment(static_cast<double>(usage.cost_nano_units()));
    prometheus::Histogram*& durations = series.durations[status.code()];
    if (durations == nullptr) {
      static const prometheus::Histogram::BucketBoundaries kBuckets = {.01,  .02,  .04,  .08,   .16,   .32,   .64,
                                                                       1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
      auto labels = series.labels;
      labels["error_type"] = status.ok() ? "" : absl::StatusCodeToString(status.code());
      durations = &duration_.Add(labels, kBuckets);
    }
    durations->Observe(absl::ToDoubleSeconds(duration));
  }

 private:
  // Looked up once: to find a series by its labels takes as long as an agent that does nothing.
  struct Series {
    std::map<std::string, std::string> labels;
    prometheus::Counter *input, *output, *cost;
    std::map<absl::StatusCode, prometheus::Histogram*> durations;
  };
  // Callers may name any model: the first hundred have series of their own.
  Series& SeriesOf(const std::string& provider, const std::string& model) {
    auto known = series_.find({provider, model});
    if (known != series_.end()) return known->second;
    const std::string name = models_.count(model) == 0 && models_.size() >= 100 ? "other" : model;
    models_.insert(name);
    auto [it, made] = series_.try_emplace({provider, name});
    Series& series = it->second;
    if (!made) return series;
    series.labels = {{"gen_ai_provider_name", provider}, {"gen_ai_request_model", name}};
    auto tokens = [&](const char* type) {
      auto labels = series.labels;
      labels["gen_ai_token_type"] = type;
      return &tokens_.Add(labels);
    };
    series.input = tokens("input");
    series.output = tokens("output");
    series.cost = &cost_.Add(series.labels);
    return series;
  }
  std::map<std::pair<std::string, std::string>, Series> series_;
  std::set<std::string> models_;
  prometheus::Family<prometheus::Counter>& tokens_;
  prometheus::Family<prometheus::Counter>& cost_;
  prometheus::Family<prometheus::Histogram>& duration_;
};

std::string AutomaticProvider(const tutti::config::v1::AgentManager& config) {
  if (!config.default_provider().empty()) return config.default_provider();
  if (!config.anthropic().api_key().empty()) return "anthropic";
  if (!config.openai().api_key().empty()) return "openai";
  return "local";
}

class AgentManagerModule final : public Module {
 public:
  AgentManagerModule(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone)
      : config_(config),
        standalone_(standalone),
        metrics_(*runtime.metrics),
        http_(NewCurlHttpClient()),
        openai_(NewOpenAiProvider(*http_, config.agent_manager().openai().base_url(),
                                  config.agent_manager().openai().api_key(), config.agent_manager().openai().model(),
                                  config.agent_manager().openai().whole_answers())),
        anthropic_(NewAnthropicProvider(*http_, config.agent_manager().anthropic().base_url(),
                                        config.agent_manager().anthropic().api_key(),
                                        config.agent_manager().anthropic().model())),
        local_(NewLocalProvider()),
        serving_(runtime, "agent-manager"),
        limiter_(serving_.loop(), std::max(1, config.agent_manager().max_concurrent_calls()),
                 static_cast<size_t>(std::max(1, config.agent_manager().max_concurrent_calls())) * 4) {}
  ~AgentManagerModule() override { Drain(absl::Now()); }

  absl::Status Start(const Peers& peers) override {
    const auto& options = config_.agent_manager();
    TUTTI_ASSIGN_OR_RETURN(directory_, AgentDirectory::Create(options.agents()));
    tools_ = std::make_unique<GrpcAgentTools>(peers.tool_service, serving_.runtime().local_methods,
                                              serving_.runtime().clock);
    std::map<std::string, ModelProvider*> providers = {
        {"openai", openai_.get()}, {"anthropic", anthropic_.get()}, {"local", local_.get()}};
    std::string automatic = AutomaticProvider(options);
    runner_ = std::make_unique<AgentRunner>(std::move(providers), automatic, *tools_, PriceList(options.prices()),
                                            limiter_, serving_.runtime().clock, metrics_);
    agent_rpc_ = std::make_unique<AgentRpc>(serving_.env(), directory_, *runner_, serving_.runtime().ids);
    publisher_ = std::make_unique<TextPublisher>(peers.state_manager, serving_.runtime().local_methods, serving_.loop(),
                                                 serving_.runtime().timers, serving_.tracer());
    execution_rpc_ = std::make_unique<AgentExecutionRpc>(serving_.env(), directory_, *runner_, *publisher_);
    agent_rpc_->Offer(serving_.runtime().local_methods);
    execution_rpc_->Offer(serving_.runtime().local_methods);
    RpcServer::Options server;
    if (!standalone_) server.address = absl::StrCat(config_.process().bind_address(), ":", options.grpc_port());
    server.port_flag = "--agent-manager.grpc-port";
    server.max_message_bytes = static_cast<int>(2 * config_.process().max_message_bytes());
    server.reflected = {"tutti.agent.v1.AgentService", "tutti.agent.v1.AgentExecutionService"};
    TUTTI_RETURN_IF_ERROR(serving_.Serve(std::move(server)));
    serving_.log().Info("agents ready", {{"auto_provider", automatic}});
    return absl::OkStatus();
  }
  void Drain(absl::Time deadline) override {
    serving_.Drain(deadline);
    if (publisher_) publisher_->Stop();
  }

 private:
  const tutti::config::v1::Config& config_;
  const bool standalone_;
  ModelMetrics metrics_;
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<ModelProvider> openai_, anthropic_, local_;
  AgentDirectory directory_;
  ServiceServer serving_;
  Semaphore limiter_;
  std::unique_ptr<GrpcAgentTools> tools_;
  std::unique_ptr<AgentRunner> runner_;
  std::unique_ptr<TextPublisher> publisher_;
  std::unique_ptr<AgentRpc> agent_rpc_;
  std::unique_ptr<AgentExecutionRpc> execution_rpc_;
};

}  // namespace

std::unique_ptr<Module> NewAgentManager(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone) {
  return std::make_unique<AgentManagerModule>(runtime, config, standalone);
}

}  // namespace tutti::agent_manager
