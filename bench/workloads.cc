#include "bench/workloads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tutti/workflow/v1/run_service.grpc.pb.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::bench {
namespace {

namespace v1 = tutti::workflow::v1;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

constexpr int kFanOut = 50;
constexpr int kWaitSeconds = 300;

double Millis(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

void EchoStep(v1::Step* step, const std::string& id, const std::string& input) {
  step->set_id(id);
  step->mutable_agent()->set_agent("echo");
  if (!input.empty()) step->mutable_agent()->mutable_input()->set_string_value(input);
}

v1::WorkflowSpec SpecOf(const WorkloadOptions& options) {
  v1::WorkflowSpec spec;
  spec.set_name("bench-" + options.workload);
  if (options.workload == "w1") {
    for (int i = 0; i < 3; ++i)
      EchoStep(spec.add_steps(), absl::StrCat("s", i), i == 0 ? "" : absl::StrCat("${ .s", i - 1, " }"));
  } else if (options.workload == "w2") {
    auto* fan = spec.add_steps();
    fan->set_id("fan");
    for (int i = 0; i < kFanOut; ++i) {
      auto* branch = fan->mutable_parallel()->add_branches();
      branch->set_id(absl::StrCat("b", i));
      EchoStep(branch->add_steps(), "s", "");
    }
    EchoStep(spec.add_steps(), "aggregate", "${ .fan | length }");
  } else if (options.workload == "w3") {
    auto* loop = spec.add_steps();
    loop->set_id("loop");
    loop->mutable_while_()->set_condition(absl::StrCat(".iteration < ", options.count));
    loop->mutable_while_()->set_max_iterations(1000000);
    EchoStep(loop->mutable_while_()->add_steps(), "s", "");
    spec.mutable_output()->set_string_value("done");
  } else {
    auto* wait = spec.add_steps();
    wait->set_id("wait");
    wait->mutable_wait_for_signal()->set_signal("go");
  }
  return spec;
}

// So many calls in flight all the time, until `more` says no. `Call` is one call: prepares itself, starts, says how it
// went.
class ClosedLoop {
 public:
  // Starts call number `index` with `done(ok)` at its end.
  using Start = std::function<void(int64_t index, std::function<void(bool)> done)>;
  ClosedLoop(int concurrency, std::function<bool(int64_t index)> more, Start start)
      : concurrency_(concurrency), more_(std::move(more)), start_(std::move(start)) {}

  void Run() {
    begin_ = Clock::now();
    live_ = concurrency_;
    for (int i = 0; i < concurrency_; ++i) Next();
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return live_ == 0; });
    elapsed_ = std::chrono::duration<double>(Clock::now() - begin_).count();
    std::sort(millis_.begin(), millis_.end());
  }
  int64_t failed() const { return failed_; }
  int64_t done() const { return static_cast<int64_t>(millis_.size()); }
  double per_second() const { return static_cast<double>(millis_.size()) / elapsed_; }
  double elapsed() const { return elapsed_; }
  double Percentile(double p) const {
    if (millis_.empty()) return 0;
    auto at = static_cast<size_t>(p / 100 * static_cast<double>(millis_.size()));
    return millis_[std::min(at, millis_.size() - 1)];
  }

 private:
  void Next() {
    int64_t index = next_++;
    if (!more_(index)) {
      std::lock_guard lock(mutex_);
      if (--live_ == 0) ended_.notify_all();
      return;
    }
    auto began = Clock::now();
    start_(index, [this, began](bool ok) {
      {
        std::lock_guard lock(mutex_);
        if (ok) {
          millis_.push_back(static_cast<float>(Millis(Clock::now() - began)));
        } else {
          ++failed_;
        }
      }
      Next();
    });
  }

  const int concurrency_;
  const std::function<bool(int64_t)> more_;
  const Start start_;
  Clock::time_point begin_;
  double elapsed_ = 0;
  std::atomic<int64_t> next_{0}, failed_{0};
  std::mutex mutex_;
  std::condition_variable ended_;
  int live_ = 0;
  std::vector<float> millis_;
};

struct StartCall {
  grpc::ClientContext context;
  v1::StartRunResponse response;
};

Json Report(const WorkloadOptions& options, const char* what, const ClosedLoop& loop) {
  return {{"workload", options.workload},
          {"what", what},
          {"concurrency", options.concurrency},
          {"ops_per_s", std::round(loop.per_second() * 10) / 10},
          {"p50_ms", loop.Percentile(50)},
          {"p99_ms", loop.Percentile(99)},
          {"done", loop.done()},
          {"failed", loop.failed()}};
}

// How many runs of the workload are in that state, up to a page.
int CountRuns(v1::RunService::Stub& stub, const std::string& workflow, const std::string& state) {
  grpc::ClientContext context;
  v1::ListRunsRequest request;
  request.set_filter(absl::StrCat("state = \"", state, "\" AND workflow = \"", workflow, "\""));
  request.set_page_size(1);
  v1::ListRunsResponse response;
  return stub.ListRuns(&context, request, &response).ok() ? response.runs_size() : -1;
}

}  // namespace

bool RunWorkload(const std::shared_ptr<grpc::Channel>& channel, const WorkloadOptions& options) {
  auto stub = v1::RunService::NewStub(channel);
  const v1::WorkflowSpec spec = SpecOf(options);
  {
    grpc::ClientContext context;
    v1::CreateWorkflowRequest request;
    *request.mutable_spec() = spec;
    v1::CreateWorkflowResponse response;
    auto status = v1::WorkflowService::NewStub(channel)->CreateWorkflow(&context, request, &response);
    if (!status.ok()) {
      std::cerr << "error: " << status.error_message() << "\n";
      return false;
    }
  }
  const bool waits = options.workload == "w4";
  v1::StartRunRequest request;
  request.set_workflow(spec.name());
  auto& fields = *request.mutable_input()->mutable_struct_value()->mutable_fields();
  fields["payload"].set_string_value(std::string(180, 'x'));
  fields["n"].set_number_value(1);
  if (!waits) request.mutable_wait_timeout()->set_seconds(kWaitSeconds);
  std::mutex mutex;
  std::vector<std::string> ids;
  auto start = [&](int64_t, std::function<void(bool)> done) {
    auto call = std::make_shared<StartCall>();
    stub->async()->StartRun(&call->context, &request, &call->response,
                            [&, call, done = std::move(done)](const grpc::Status& status) {
                              bool ok = status.ok();
                              if (waits && ok) {
                                std::lock_guard lock(mutex);
                                ids.push_back(call->response.run().run_id());
                              } else if (ok) {
                                ok = call->response.run().state() == v1::RUN_STATE_SUCCEEDED;
                              }
                              done(ok);
                            });
  };
  auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.seconds));
  if (options.workload == "w3") {
    ClosedLoop once(
        1, [](int64_t index) { return index == 0; }, start);
    once.Run();
    Json report = Report(options, "sequential steps", once);
    report["steps"] = options.count;
    report["steps_per_s"] = std::round(options.count / once.elapsed());
    std::cout << report.dump() << "\n";
    return once.failed() == 0;
  }
  ClosedLoop loop(
      options.concurrency, [&](int64_t index) { return waits ? index < options.count : Clock::now() < end; }, start);
  loop.Run();
  std::cout << Report(options, waits ? "starts of waiting runs" : "workflows", loop).dump() << "\n";
  if (!waits) return loop.failed() == 0;
  if (!options.between.empty()) {
    // For example a kill -9 and a new start: how long until the first run can be woken.
    auto away = Clock::now();
    if (std::system(options.between.c_str()) != 0) std::cerr << "the command between starts and signals has failed\n";
    auto back = Clock::now();
    bool answered = false;
    while (!answered && Clock::now() - back < std::chrono::minutes(2)) {
      grpc::ClientContext context;
      v1::GetRunRequest get;
      get.set_run_id(ids.empty() ? "none" : ids.back());
      v1::GetRunResponse response;
      answered = stub->GetRun(&context, get, &response).ok();
      if (!answered) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    auto seconds = [](Clock::duration duration) { return std::chrono::duration<double>(duration).count(); };
    std::cout << Json({{"workload", options.workload},
                       {"what", "between starts and signals"},
                       {"command_s", seconds(back - away)},
                       {"answers_after_s", seconds(Clock::now() - back)}})
                     .dump()
              << "\n";
  }
  auto begin = Clock::now();
  ClosedLoop signals(
      options.concurrency, [&](int64_t index) { return index < static_cast<int64_t>(ids.size()); },
      [&](int64_t index, std::function<void(bool)> done) {
        struct SignalCall {
          grpc::ClientContext context;
          v1::SignalRunRequest request;
          v1::SignalRunResponse response;
        };
        auto call = std::make_shared<SignalCall>();
        call->request.set_run_id(ids[static_cast<size_t>(index)]);
        call->request.set_signal("go");
        stub->async()->SignalRun(&call->context, &call->request, &call->response,
                                 [call, done = std::move(done)](const grpc::Status& status) { done(status.ok()); });
      });
  signals.Run();
  Json report = Report(options, "signals", signals);
  while (CountRuns(*stub, spec.name(), "WAITING") != 0 || CountRuns(*stub, spec.name(), "RUNNING") != 0 ||
         CountRuns(*stub, spec.name(), "PENDING") != 0) {
  }
  report["wake_ups_per_s"] =
      std::round(static_cast<double>(ids.size()) / std::chrono::duration<double>(Clock::now() - begin).count());
  std::cout << report.dump() << "\n";
  return loop.failed() == 0 && signals.failed() == 0;
}

}  // namespace tutti::bench
