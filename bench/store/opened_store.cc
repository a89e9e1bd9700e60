#include "bench/store/opened_store.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>

#include "bench/store/measuring.h"

namespace tutti::state_manager {

OpenedStore::OpenedStore(const StoreConfig& config) {
  auto result = OpenDatabase(config, clock, hub, &store.journal);
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", std::string(result.status().message()).c_str());
    std::exit(1);
  }
  opened = *std::move(result);
}

absl::Status OpenedStore::Write(std::function<absl::Status(Transaction&)> body) {
  std::promise<absl::Status> done;
  WriteOp op;
  op.apply = std::move(body);
  op.finish = [&done](const absl::Status& status) { done.set_value(status); };
  opened.database->Write(std::move(op));
  return done.get_future().get();
}

void OpenedStore::WriteMany(int count, const std::function<std::function<absl::Status(Transaction&)>(int)>& body) {
  constexpr size_t kAtOnce = 1000;
  std::vector<std::future<absl::Status>> pending;
  auto await_all = [&] {
    for (auto& one : pending) {
      absl::Status status = one.get();
      if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    }
    pending.clear();
  };
  for (int i = 0; i < count; ++i) {
    auto done = std::make_shared<std::promise<absl::Status>>();
    pending.push_back(done->get_future());
    WriteOp op;
    op.apply = body(i);
    op.finish = [done](const absl::Status& status) { done->set_value(status); };
    opened.database->Write(std::move(op));
    if (pending.size() == kAtOnce) await_all();
  }
  await_all();
}

absl::Status OpenedStore::Read(std::function<absl::Status(Transaction&)> body) {
  std::promise<absl::Status> done;
  ReadOp op;
  op.query = std::move(body);
  op.finish = [&done](const absl::Status& status) { done.set_value(status); };
  opened.database->Read(std::move(op));
  return done.get_future().get();
}

std::vector<std::string> OpenedStore::NewRuns(int count) {
  v1::RegisterInstanceRequest request;
  request.mutable_instance()->set_name("bench");
  request.mutable_instance()->set_incarnation("1");
  request.mutable_lease_duration()->set_seconds(60);
  (void)Write([&](Transaction& tx) {
    v1::RegisterInstanceResponse response;
    return store.leases.RegisterInstance(tx, request, response);
  });
  std::vector<std::string> runs;
  for (int i = 0; i < count; ++i) {
    v1::CreateRunRequest create;
    create.mutable_run()->set_run_id(ids.NewUlid());
    create.mutable_run()->set_workflow("bench");
    *create.mutable_owner() = request.instance();
    runs.push_back(create.run().run_id());
    std::promise<absl::Status> created;
    store.journal.Create(*opened.database, std::move(create),
                         [&](const auto& answer) { created.set_value(answer.status()); });
    absl::Status status = created.get_future().get();
    if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  }
  return runs;
}

ServedStore::ServedStore(const StoreConfig& state) {
  config = DefaultConfig([](const char*) -> const char* { return nullptr; });
  *config.mutable_state_manager() = state;
  config.mutable_state_manager()->set_grpc_port(39094);
  config.mutable_telemetry()->set_log_level("error");
  runtime = std::make_unique<Runtime>(config);
  module = NewStateManager(*runtime, config, /*standalone=*/false);
  absl::Status status = module->Start({});
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    std::exit(1);
  }
  channel = grpc::CreateChannel("127.0.0.1:39094", grpc::InsecureChannelCredentials());
}

double RssMb() {
  std::ifstream in("/proc/self/statm");
  double pages = 0, rss = 0;
  in >> pages >> rss;
  return rss * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

}  // namespace tutti::state_manager
