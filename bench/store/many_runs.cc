#include <cstdio>

#include "bench/store/measuring.h"
#include "bench/store/reads.h"
#include "tutti/state/v1/lease_service.grpc.pb.h"

namespace tutti::state_manager {

void ManyRuns(const StoreConfig& config, const char* engine, int count) {
  {
    OpenedStore store(config);
    auto begin = Steady::now();
    store.WriteMany(count, [&](int i) {
      bool waits = i % 11 == 10;  // 1,000,000 finished for 100,000 waiting
      v1::CreateRunRequest create;
      create.mutable_run()->set_run_id(store.ids.NewUlid());
      create.mutable_run()->set_workflow("bench");
      create.mutable_run()->mutable_input()->set_data("{\"topic\":\"x\"}");
      return [&store, create, waits](Transaction& tx) -> absl::Status {
        v1::CreateRunResponse response;
        absl::Status status = store.store.runs.CreateRun(tx, create, response);
        if (!status.ok() || waits) return status;
        return tx.Prepare("UPDATE runs SET status = 'SUCCEEDED', end_time = create_time WHERE run_id = $1")
            .BindAll(create.run().run_id())
            .Run();
      };
    });
    std::printf("%-9s %d runs stored in %.0f s\n", engine, count, Seconds(begin));
  }
  double before = RssMb();
  auto begin = Steady::now();
  ServedStore served(config);
  double open = Seconds(begin);
  auto leases = v1::LeaseService::NewStub(served.channel);
  v1::RegisterInstanceRequest request;
  request.mutable_instance()->set_name("bench");
  request.mutable_instance()->set_incarnation("2");
  request.mutable_lease_duration()->set_seconds(60);
  v1::RegisterInstanceResponse registered;
  grpc::ClientContext first;
  (void)leases->RegisterInstance(&first, request, &registered);
  begin = Steady::now();
  v1::HeartbeatRequest beat;
  *beat.mutable_instance() = request.instance();
  v1::HeartbeatResponse answer;
  grpc::ClientContext second;
  (void)leases->Heartbeat(&second, beat, &answer);
  double heartbeat = Seconds(begin);
  begin = Steady::now();
  v1::ClaimRunsRequest claim;
  *claim.mutable_instance() = request.instance();
  claim.set_max_runs(1000);
  v1::ClaimRunsResponse claimed;
  grpc::ClientContext third;
  (void)leases->ClaimRuns(&third, claim, &claimed);
  std::printf(
      "%-9s with them: open in %.0f ms, heartbeat (counts %ld waiting) %.0f ms, claim of %d %.0f ms; RSS %.0f MB "
      "(%.0f MB before)\n",
      engine, open * 1000, static_cast<long>(answer.claimable_runs()), heartbeat * 1000, claimed.runs_size(),
      Seconds(begin) * 1000, RssMb(), before);
  served.module->Drain(absl::Now() + absl::Seconds(1));
}

}  // namespace tutti::state_manager
