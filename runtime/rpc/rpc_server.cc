#include "runtime/rpc/rpc_server.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "absl/strings/str_cat.h"
#include "runtime/rpc/channel.h"
#include "runtime/rpc/reflection.h"
#include "runtime/status/error.h"

namespace tutti {

RpcServer::RpcServer() = default;
RpcServer::~RpcServer() { Shutdown(absl::Now()); }

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(Options options) {
  std::unique_ptr<RpcServer> out(new RpcServer());
  out->max_message_bytes_ = options.max_message_bytes;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port must be an error, not a shared one
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  int port = 0;
  if (!options.address.empty()) builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
  std::vector<std::string> names = options.reflected;
  for (auto* service : options.services) {
    builder.RegisterService(service);
  }
  if (options.generic) builder.RegisterCallbackGenericService(options.generic);
  out->reflection_v1_ = std::make_unique<ReflectionV1>(names);
  out->reflection_v1alpha_ = std::make_unique<ReflectionV1Alpha>(names);
  builder.RegisterService(out->reflection_v1_.get());
  builder.RegisterService(out->reflection_v1alpha_.get());
  out->server_ = builder.BuildAndStart();
  if (!out->server_ || (!options.address.empty() && port == 0)) {
    return Error(absl::StatusCode::kUnavailable, "PORT_TAKEN",
                 absl::StrCat(options.name, ": cannot listen on ", options.address,
                              " (another process has the port?); choose another with ", options.port_flag))
        .Metadata("address", options.address);
  }
  out->port_ = port;
  out->SetServing(true);
  return out;
}

std::shared_ptr<grpc::Channel> RpcServer::InProcess() const {
  return server_->InProcessChannel(DefaultChannelArguments(max_message_bytes_));
}

void RpcServer::SetServing(bool serving) {
  if (server_ && server_->GetHealthCheckService()) server_->GetHealthCheckService()->SetServingStatus(serving);
}

void RpcServer::Shutdown(absl::Time deadline) {
  if (!server_) return;
  SetServing(false);
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
  server_.reset();
}

}  // namespace tutti
