// tutti-bench: load on a running suite, by REST or gRPC, closed or open loop. Loopback only, bounded in time and count.
//   tutti-bench --protocol grpc --grpc 127.0.0.1:9090 --concurrency 64 --seconds 10 --steps 3
// A unit of work is a workflow of `--steps` sequential calls of the agent `echo`, from its start until it has ended. In
// an open loop
// (--rate) latency counts from the moment the work was due, so that a stall shows in every percentile (coordinated
// omission).
#include <curl/curl.h>
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bench/workloads.h"
#include "tutti/workflow/v1/run_service.grpc.pb.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;
namespace v1 = tutti::workflow::v1;

struct Options {
  std::string protocol = "grpc", grpc = "127.0.0.1:9090", http = "http://127.0.0.1:8080", operation = "workflow";
  int concurrency = 1, steps = 3;
  double seconds = 10, rate = 0;
};

// Log-linear buckets as in HdrHistogram: 1 % wide, from a microsecond to minutes.
class Histogram {
 public:
  void Record(double millis) {
    auto bucket = static_cast<size_t>(std::max(0.0, std::log(std::max(millis, 0.001) / 0.001) / std::log(1.01)));
    buckets_[std::min(bucket, buckets_.size() - 1)].fetch_add(1, std::memory_order_relaxed);
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  double Percentile(double p) const {
    auto wanted = static_cast<int64_t>(std::ceil(static_cast<double>(count_) * p / 100));
    int64_t seen = 0;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen >= wanted && seen > 0) return 0.001 * std::pow(1.01, static_cast<double>(i) + 0.5);
    }
    return 0;
  }
  int64_t count() const { return count_; }

 private:
  std::vector<std::atomic<int64_t>> buckets_ = std::vector<std::atomic<int64_t>>(2000);
  std::atomic<int64_t> count_{0};
};

v1::WorkflowSpec Spec(int steps) {
  v1::WorkflowSpec spec;
  spec.set_name("bench");
  for (int i = 0; i < steps; ++i) {
    auto* step = spec.add_steps();
    step->set_id(absl::StrCat("s", i));
    step->mutable_agent()->set_agent("echo");
  }
  return spec;
}

class Worker {
 public:
  virtual ~Worker() = default;
  // False: failed.
  virtual bool Once() = 0;
};

class GrpcWorker final : public Worker {
 public:
  GrpcWorker(const Options& options, std::shared_ptr<grpc::Channel> channel)
      : options_(options), stub_(v1::RunService::NewStub(channel)) {
    start_.set_workflow("bench");
    (*start_.mutable_input()->mutable_struct_value()->mutable_fields())["payload"].set_string_value(
        std::string(200, 'x'));
  }
  bool Once() override {
    if (options_.operation == "list") {
      grpc::ClientContext context;
      v1::ListRunsRequest request;
      request.set_page_size(1);
      v1::ListRunsResponse response;
      return stub_->ListRuns(&context, request, &response).ok();
    }
    grpc::ClientContext context;
    v1::StartRunResponse response;
    if (!stub_->StartRun(&context, start_, &response).ok()) return false;
    grpc::ClientContext watch_context;
    v1::WatchRunRequest watch;
    watch.set_run_id(response.run().run_id());
    auto stream = stub_->WatchRun(&watch_context, watch);
    v1::WatchRunResponse event;
    bool ok = false;
    while (stream->Read(&event)) ok |= event.event().state() == v1::RUN_STATE_SUCCEEDED;
    return stream->Finish().ok() && ok;
  }

 private:
  const Options& options_;
  std::unique_ptr<v1::RunService::Stub> stub_;
  v1::StartRunRequest start_;
};

class RestWorker final : public Worker {
 public:
  explicit RestWorker(const Options& options) : options_(options), easy_(curl_easy_init()) {
    curl_easy_setopt(
        easy_, CURLOPT_WRITEFUNCTION, +[](char* data, size_t size, size_t count, void* self) {
          static_cast<std::string*>(self)->append(data, size * count);
          return size * count;
        });
    curl_easy_setopt(easy_, CURLOPT_WRITEDATA, &answer_);
    curl_easy_setopt(easy_, CURLOPT_TCP_NODELAY, 1L);
  }
  ~RestWorker() override { curl_easy_cleanup(easy_); }
  bool Once() override {
    if (options_.operation == "list") return Call("/v1/runs?page_size=1", "");
    if (!Call("/v1/runs", R"({"workflow":"bench","input":{"payload":")" + std::string(200, 'x') + "\"}}")) return false;
    Json started = Json::parse(answer_, nullptr, false);
    if (!started.is_object()) return false;
    std::string id = started["run"]["runId"];
    return Call("/v1/runs/" + id + ":watch", "") && absl::StrContains(answer_, "RUN_STATE_SUCCEEDED");
  }

 private:
  bool Call(const std::string& path, const std::string& body) {
    answer_.clear();
    std::string url = options_.http + path;
    curl_easy_setopt(easy_, CURLOPT_URL, url.c_str());
    if (body.empty()) {
      curl_easy_setopt(easy_, CURLOPT_HTTPGET, 1L);
    } else {
      curl_easy_setopt(easy_, CURLOPT_COPYPOSTFIELDS, body.c_str());
    }
    long status = 0;
    if (curl_easy_perform(easy_) != CURLE_OK) return false;
    curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
    return status == 200;
  }
  const Options& options_;
  CURL* easy_;
  std::string answer_;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app{"Load on a running Tutti suite; prints one JSON object"};
  app.add_option("--protocol", o.protocol, "grpc or rest")->check(CLI::IsMember({"grpc", "rest"}));
  app.add_option("--grpc", o.grpc, "gateway's gRPC address");
  app.add_option("--http", o.http, "gateway's REST address");
  app.add_option("--operation", o.operation, "workflow (start and follow to the end) or list")
      ->check(CLI::IsMember({"workflow", "list"}));
  app.add_option("--concurrency", o.concurrency, "workers")->check(CLI::Range(1, 1024));
  app.add_option("--seconds", o.seconds, "duration")->check(CLI::Range(0.1, 600.0));
  app.add_option("--rate", o.rate, "open loop: units a second; 0 is a closed loop");
  app.add_option("--steps", o.steps, "agent steps of the workflow")->check(CLI::Range(1, 1000));
  tutti::bench::WorkloadOptions workload;
  app.add_option("--workload", workload.workload, "instead of all that: w1, w2, w3 or w4, as engines are compared by")
      ->check(CLI::IsMember({"w1", "w2", "w3", "w4"}));
  app.add_option("--count", workload.count, "of w3: steps; of w4: runs")->check(CLI::Range(1, 1000000));
  app.add_option("--between", workload.between,
                 "of w4: a shell command when all runs wait, for example one that kills the suite and starts it again");
  CLI11_PARSE(app, argc, argv);
  curl_global_init(CURL_GLOBAL_DEFAULT);
  // No retries: a call that is repeated on the way is not the call whose time is taken.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // A server that is started anew is found when it is there, and not a channel's pause later.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetMaxReceiveMessageSize(4 << 20);
  auto channel = grpc::CreateCustomChannel(o.grpc, grpc::InsecureChannelCredentials(), arguments);
  if (!workload.workload.empty()) {
    workload.concurrency = o.concurrency;
    workload.seconds = o.seconds;
    return tutti::bench::RunWorkload(channel, workload) ? 0 : 1;
  }
  if (o.operation == "workflow") {
    grpc::ClientContext context;
    v1::CreateWorkflowRequest request;
    *request.mutable_spec() = Spec(o.steps);
    v1::CreateWorkflowResponse response;
    auto status = v1::WorkflowService::NewStub(channel)->CreateWorkflow(&context, request, &response);
    if (!status.ok()) {
      std::cerr << "error: " << status.error_message() << "\n";
      return 1;
    }
  }
  Histogram latency;
  std::atomic<int64_t> failed{0}, next{0};
  auto begin = Clock::now();
  auto end = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(o.seconds));
  std::vector<std::thread> threads;
  for (int t = 0; t < o.concurrency; ++t) {
    threads.emplace_back([&] {
      std::unique_ptr<Worker> worker;
      if (o.protocol == "grpc") {
        worker = std::make_unique<GrpcWorker>(o, channel);
      } else {
        worker = std::make_unique<RestWorker>(o);
      }
      for (;;) {
        auto due = Clock::now();
        if (o.rate > 0) {
          due = begin + std::chrono::duration_cast<Clock::duration>(
                            std::chrono::duration<double>(static_cast<double>(next++) / o.rate));
          std::this_thread::sleep_until(due);
        }
        if (due >= end) return;
        bool ok = worker->Once();
        if (!ok) ++failed;
        latency.Record(std::chrono::duration<double, std::milli>(Clock::now() - due).count());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  double elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
  std::cout << Json{{"protocol", o.protocol},
                    {"operation", o.operation},
                    {"loop", o.rate > 0 ? "open" : "closed"},
                    {"concurrency", o.concurrency},
                    {"steps", o.steps},
                    {"ops_per_s", std::round(static_cast<double>(latency.count() - failed) / elapsed * 10) / 10},
                    {"failed", failed.load()},
                    {"p50_ms", latency.Percentile(50)},
                    {"p90_ms", latency.Percentile(90)},
                    {"p99_ms", latency.Percentile(99)},
                    {"p999_ms", latency.Percentile(99.9)}}
                   .dump()
            << "\n";
  return failed > 0 ? 1 : 0;
}
