#include "bench/workloads.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
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

// A call on its way; the tag of its end in the queue.
class Flight {
 public:
  virtual ~Flight() = default;
  // After its end.
  virtual bool Succeeded() = 0;
  const Clock::time_point began = Clock::now();
};

template <class Response>
class UnaryFlight final : public Flight {
 public:
  // `start` begins the call: a stub's Async method. `check` says of an OK answer whether it is what was wanted.
  template <class Start>
  UnaryFlight(grpc::CompletionQueue& queue, Start start, std::function<bool(const Response&)> check)
      : check_(std::move(check)), reader_(start(&context_, &queue)) {
    reader_->Finish(&response_, &status_, static_cast<Flight*>(this));
  }
  bool Succeeded() override { return status_.ok() && check_(response_); }

 private:
  const std::function<bool(const Response&)> check_;
  grpc::ClientContext context_;
  Response response_;
  grpc::Status status_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader_;
};

// So many calls in flight all the time, until `more` says no. One thread that starts calls and waits for their ends
// itself: gRPC's callbacks and their threads cost a third more, on the cores that are measured.
class ClosedLoop {
 public:
  using Start = std::function<std::unique_ptr<Flight>(int64_t index, grpc::CompletionQueue& queue)>;
  ClosedLoop(int concurrency, std::function<bool(int64_t index)> more, Start start)
      : concurrency_(concurrency), more_(std::move(more)), start_(std::move(start)) {}

  void Run() {
    auto begin = Clock::now();
    grpc::CompletionQueue queue;
    int64_t next = 0;
    int live = 0;
    auto start = [&] {
      if (!more_(next)) return;
      start_(next++, queue).release();  // the queue gives it back
      ++live;
    };
    for (int i = 0; i < concurrency_; ++i) start();
    void* tag = nullptr;
    bool ok = false;
    while (live > 0 && queue.Next(&tag, &ok)) {
      std::unique_ptr<Flight> flight(static_cast<Flight*>(tag));
      --live;
      if (flight->Succeeded()) {
        millis_.push_back(static_cast<float>(Millis(Clock::now() - flight->began)));
      } else {
        ++failed_;
      }
      start();
    }
    elapsed_ = std::chrono::duration<double>(Clock::now() - begin).count();
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
  const int concurrency_;
  const std::function<bool(int64_t)> more_;
  const Start start_;
  double elapsed_ = 0;
  int64_t failed_ = 0;
  std::vector<float> millis_;
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
  std::vector<std::string> ids;
  auto start = [&](int64_t, grpc::CompletionQueue& queue) -> std::unique_ptr<Flight> {
    return std::make_unique<UnaryFlight<v1::StartRunResponse>>(
        queue, [&](auto* context, auto* calls) { return stub->AsyncStartRun(context, request, calls); },
        [&](const v1::StartRunResponse& response) {
          if (!waits) return response.run().state() == v1::RUN_STATE_SUCCEEDED;
          ids.push_back(response.run().run_id());
          return true;
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
      context.set_wait_for_ready(true);  // a channel looks for the server again while somebody waits
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
      v1::GetRunRequest get;
      get.set_run_id(ids.empty() ? "none" : ids.back());
      v1::GetRunResponse response;
      answered = stub->GetRun(&context, get, &response).ok();
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
      [&](int64_t index, grpc::CompletionQueue& queue) -> std::unique_ptr<Flight> {
        v1::SignalRunRequest signal;
        signal.set_run_id(ids[static_cast<size_t>(index)]);
        signal.set_signal("go");
        return std::make_unique<UnaryFlight<v1::SignalRunResponse>>(
            queue, [&](auto* context, auto* calls) { return stub->AsyncSignalRun(context, signal, calls); },
            [](const v1::SignalRunResponse&) { return true; });
      });
  signals.Run();
  Json report = Report(options, "signals", signals);
  if (signals.failed() > 0) {
    std::cout << report.dump() << "\n";
    return false;
  }
  while (CountRuns(*stub, spec.name(), "WAITING") != 0 || CountRuns(*stub, spec.name(), "RUNNING") != 0 ||
         CountRuns(*stub, spec.name(), "PENDING") != 0) {
  }
  report["wake_ups_per_s"] =
      std::round(static_cast<double>(ids.size()) / std::chrono::duration<double>(Clock::now() - begin).count());
  std::cout << report.dump() << "\n";
  return loop.failed() == 0;
}

}  // namespace tutti::bench
