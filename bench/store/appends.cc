#include "bench/store/appends.h"

#include <atomic>
#include <cstdio>
#include <functional>
#include <future>

#include "absl/strings/str_cat.h"
#include "tutti/state/v1/journal_service.grpc.pb.h"

namespace tutti::state_manager {

namespace {

constexpr size_t kResultBytes = 300;

std::string Result() {
  // Not compressible to nothing: as real results are.
  Xoshiro rng(1);
  std::string out;
  while (out.size() < kResultBytes) absl::StrAppend(&out, absl::Hex(rng.Next()));
  out.resize(kResultBytes);
  return out;
}

}  // namespace

v1::AppendRequest OneEntry(const std::string& run, int64_t seq) {
  static const std::string kResult = "\"" + Result() + "\"";
  v1::AppendRequest request;
  request.set_run_id(run);
  request.set_lease_epoch(1);
  request.set_writer_seq(seq);
  auto* entry = request.add_entries();
  entry->mutable_time()->set_seconds(1700000000);
  auto* completed = entry->mutable_step_completed();
  completed->set_path("research/step");
  completed->set_kind("agent");
  completed->set_attempt(1);
  completed->set_target("researcher");
  completed->mutable_result()->set_data(kResult);
  return request;
}

size_t RowBytes() { return OneEntry("01jd0000000000000000000000", 1).entries(0).ByteSizeLong() + 60; }

double AppendLoop(OpenedStore& store, int writers, double seconds, Latencies* latencies, int entries) {
  constexpr double kMostPerSecond = 100000;
  const int runs_each = entries == 0 ? 1 : static_cast<int>(kMostPerSecond * seconds / writers / entries) + 1;
  std::vector<std::string> runs = store.NewRuns(writers * runs_each);
  struct Writer {
    size_t run = 0;
    int64_t seq = 0;
    Steady::time_point start;
  };
  std::vector<Writer> all(static_cast<size_t>(writers));
  std::atomic<int64_t> answered{0}, failed{0};
  std::atomic<int> running{writers};
  std::promise<void> over;
  auto begin = Steady::now();
  auto spent = [&](const Writer& writer) {
    return entries > 0 && writer.seq == entries && writer.run + static_cast<size_t>(writers) >= runs.size();
  };
  std::function<void(Writer&)> next = [&](Writer& writer) {
    if (entries > 0 && writer.seq == entries) {
      writer.run += static_cast<size_t>(writers);
      writer.seq = 0;
    }
    writer.start = Steady::now();
    store.store.journal.Append(*store.opened.database, OneEntry(runs[writer.run], ++writer.seq),
                               [&](v1::AppendResponse response) {
                                 ++answered;
                                 if (response.status().code() != 0) ++failed;
                                 if (latencies) latencies->ms.push_back(Seconds(writer.start) * 1000);
                                 if (Seconds(begin) < seconds && failed == 0 && !spent(writer)) {
                                   next(writer);
                                 } else if (--running == 0) {
                                   over.set_value();
                                 }
                               });
  };
  for (size_t i = 0; i < all.size(); ++i) all[i].run = i;
  for (auto& writer : all) next(writer);
  over.get_future().wait();
  if (failed > 0) std::fprintf(stderr, "%ld appends failed\n", static_cast<long>(failed));
  return static_cast<double>(answered) / Seconds(begin);
}

double StreamLoop(const StoreConfig& config, int writers, double seconds, Latencies* latencies) {
  std::vector<std::string> runs;
  {
    OpenedStore store(config);
    runs = store.NewRuns(writers);
  }
  ServedStore served(config);
  auto stub = v1::JournalService::NewStub(served.channel);
  grpc::ClientContext context;
  auto stream = stub->Append(&context);
  std::vector<int64_t> seqs(static_cast<size_t>(writers), 0);
  std::vector<Steady::time_point> starts(static_cast<size_t>(writers));
  int64_t answered = 0, failed = 0;
  auto begin = Steady::now();
  auto next = [&](size_t writer) {
    v1::AppendRequest request = OneEntry(runs[writer], ++seqs[writer]);
    request.set_request_number(static_cast<int64_t>(writer));
    starts[writer] = Steady::now();
    return request;
  };
  for (size_t i = 0; i < runs.size(); ++i) stream->Write(next(i));
  int open = writers;
  v1::AppendResponse response;
  while (open > 0 && stream->Read(&response)) {
    // As the engine does: what was answered together goes on together.
    v1::AppendRequest message;
    bool any = false;
    auto take = [&](const v1::AppendResponse& one) {
      ++answered;
      if (one.status().code() != 0) ++failed;
      auto writer = static_cast<size_t>(one.request_number());
      if (latencies) latencies->ms.push_back(Seconds(starts[writer]) * 1000);
      if (Seconds(begin) >= seconds || failed > 0) {
        --open;
      } else if (!any) {
        message = next(writer);
        any = true;
      } else {
        *message.add_also() = next(writer);
      }
    };
    take(response);
    for (const auto& one : response.also()) take(one);
    if (any) stream->Write(message);
  }
  double rate = static_cast<double>(answered) / Seconds(begin);
  stream->WritesDone();
  (void)stream->Finish();
  if (failed > 0) std::fprintf(stderr, "%ld appends failed\n", static_cast<long>(failed));
  served.module->Drain(absl::Now() + absl::Seconds(1));
  return rate;
}

}  // namespace tutti::state_manager
