// The state-manager as processes of its own, over the databases of a test.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/postgres_server.h"
#include "tests/support/suite_process.h"
#include "tutti/state/v1/journal_service.grpc.pb.h"
#include "tutti/state/v1/lease_service.grpc.pb.h"
#include "tutti/state/v1/run_store_service.grpc.pb.h"

namespace tutti::testing {

namespace v1 = tutti::state::v1;

class StateManagerProcesses {
 public:
  StateManagerProcesses() : dir_(NewTempDir("state")) { signal(SIGPIPE, SIG_IGN); }
  ~StateManagerProcesses() { std::filesystem::remove_all(dir_); }

  // One process and a channel to it.
  struct Replica {
    int port = 0;
    std::vector<std::string> command;
    std::string log;
    std::unique_ptr<ChildProcess> process;
    std::shared_ptr<grpc::Channel> channel;
    void Start() {
      process = std::make_unique<ChildProcess>(command, log);
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
      arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
      arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
      channel =
          grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials(), arguments);
    }
    bool Ready() { return channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20)); }
  };
  // `clock_shift`: by how many seconds its clock differs.
  Replica NewReplica(const std::string& name, const std::vector<std::string>& flags = {}, int clock_shift = 0) {
    Replica out;
    out.port = FreePorts(1)[0];
    out.log = dir_ + "/" + name + ".log";
    out.command = {BinDir() + "/tutti-state-manager", absl::StrCat("--state-manager.grpc-port=", out.port),
                   "--telemetry.metrics-port=-1", "--state-manager.data-dir=" + dir_ + "/data"};
    if (!dsn_.empty()) out.command.push_back("--state-manager.postgres.dsn=" + dsn_);
    for (const auto& dsn : shard_dsns_) out.command.push_back("--state-manager.postgres.shard-dsns=" + dsn);
    out.command.insert(out.command.end(), flags.begin(), flags.end());
    if (clock_shift != 0) {
      const std::vector<std::string> shifted = {"/usr/bin/env", "LD_PRELOAD=" TUTTI_SHIFTED_CLOCK,
                                                absl::StrCat("SHIFTED_CLOCK_SECONDS=", clock_shift)};
      out.command.insert(out.command.begin(), shifted.begin(), shifted.end());
    }
    out.Start();
    EXPECT_TRUE(out.Ready()) << ReadAll(out.log);
    return out;
  }
  v1::InstanceRef Register(Replica& replica, int lease_seconds = 60, const std::string& name = "e",
                           const std::string& incarnation = "1") {
    auto stub = v1::LeaseService::NewStub(replica.channel);
    v1::RegisterInstanceRequest request;
    request.mutable_instance()->set_name(name);
    request.mutable_instance()->set_incarnation(incarnation);
    request.mutable_lease_duration()->set_seconds(lease_seconds);
    v1::RegisterInstanceResponse response;
    grpc::ClientContext context;
    EXPECT_TRUE(stub->RegisterInstance(&context, request, &response).ok());
    return request.instance();
  }
  void CreateRun(Replica& replica, const std::string& id, const v1::InstanceRef& owner) {
    auto stub = v1::RunStoreService::NewStub(replica.channel);
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(id);
    *request.mutable_owner() = owner;
    v1::CreateRunResponse response;
    grpc::ClientContext context;
    ASSERT_TRUE(stub->CreateRun(&context, request, &response).ok());
  }
  static v1::AppendRequest Entry(const std::string& run, int64_t seq, bool finish = false) {
    v1::AppendRequest request;
    request.set_request_number(seq);
    request.set_run_id(run);
    request.set_lease_epoch(1);
    request.set_writer_seq(seq);
    if (finish) {
      request.add_entries()->mutable_run_finished()->set_outcome(v1::OUTCOME_SUCCEEDED);
    } else {
      request.add_entries()->mutable_step_completed()->set_path(absl::StrCat("s", seq));
    }
    return request;
  }
  static std::vector<std::string> Paths(Replica& replica, const std::string& run) {
    auto stub = v1::JournalService::NewStub(replica.channel);
    v1::ReadJournalRequest request;
    request.set_run_id(run);
    grpc::ClientContext context;
    auto stream = stub->ReadJournal(&context, request);
    std::vector<std::string> paths;
    v1::ReadJournalResponse page;
    while (stream->Read(&page)) {
      for (const auto& entry : page.entries()) paths.push_back(entry.step_completed().path());
    }
    EXPECT_TRUE(stream->Finish().ok());
    return paths;
  }

  const std::string dir_;
  std::string dsn_;                      // empty: SQLite
  std::vector<std::string> shard_dsns_;  // further databases
};

}  // namespace tutti::testing
