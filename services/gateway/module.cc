#include "services/gateway/module.h"

#include "absl/strings/str_cat.h"
#include "runtime/process/service_server.h"
#include "runtime/status/macros.h"
#include "services/gateway/adapters/http_server.h"
#include "services/gateway/rpc/passthrough.h"
#include "services/gateway/rpc/rest_handler.h"

namespace tutti::gateway {
namespace {

class Gateway final : public Module {
 public:
  Gateway(Runtime& runtime, const tutti::config::v1::Config& config, bool)
      : config_(config), serving_(runtime, "gateway") {
    serving_.env().edge = true;
  }
  ~Gateway() override { Drain(absl::Now()); }

  absl::Status Start(const Peers& peers) override {
    const auto& options = config_.gateway();
    methods_ = std::make_unique<PublicMethods>(peers);
    TUTTI_ASSIGN_OR_RETURN(transcoder_, Transcoder::Create(methods_->services()));
    passthrough_ = std::make_unique<Passthrough>(serving_.env(), *methods_, serving_.runtime().local_methods,
                                                 serving_.runtime().ids);
    const auto& wait = options.request_timeout();
    CallerRules rules;
    rules.allowed_hosts.assign(options.allowed_hosts().begin(), options.allowed_hosts().end());
    rules.allowed_origins.assign(options.allowed_origins().begin(), options.allowed_origins().end());
    rest_ = std::make_unique<RestHandler>(serving_, *transcoder_, *methods_, std::move(rules),
                                          absl::Seconds(wait.seconds()) + absl::Nanoseconds(wait.nanos()));
    RpcServer::Options server;
    server.address = absl::StrCat(config_.process().bind_address(), ":", options.grpc_port());
    server.port_flag = "--gateway.grpc-port";
    server.max_message_bytes = static_cast<int>(config_.process().max_message_bytes());
    server.methods = passthrough_.get();
    server.reflected = methods_->services();
    TUTTI_RETURN_IF_ERROR(serving_.Serve(std::move(server)));
    TUTTI_ASSIGN_OR_RETURN(http_,
                           HttpServer::Start({.address = config_.process().bind_address(),
                                              .port = options.http_port(),
                                              .port_flag = "--gateway.http-port",
                                              .max_body_bytes = options.max_body_bytes(),
                                              .max_connections = options.max_connections(),
                                              .max_connections_per_address = options.max_connections_per_address(),
                                              .on_refused =
                                                  [this](const std::string& what) {
                                                    serving_.log().Warning("connections refused", {{"reason", what}});
                                                  }},
                                             *rest_));
    serving_.log().Info("listening",
                        {{"http", absl::StrCat(http_->port())}, {"grpc", absl::StrCat(serving_.server().port())}});
    return absl::OkStatus();
  }
  void Drain(absl::Time deadline) override {
    if (http_) http_->Drain(deadline);
    serving_.Drain(deadline);
  }

 private:
  const tutti::config::v1::Config& config_;
  ServiceServer serving_;
  std::unique_ptr<PublicMethods> methods_;
  std::unique_ptr<Transcoder> transcoder_;
  std::unique_ptr<Passthrough> passthrough_;
  std::unique_ptr<RestHandler> rest_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace

std::unique_ptr<Module> NewGateway(Runtime& runtime, const tutti::config::v1::Config& config, bool standalone) {
  return std::make_unique<Gateway>(runtime, config, standalone);
}

}  // namespace tutti::gateway
