#include <atomic>
#include <memory>

#include "runtime/async/when_all.h"
#include "runtime/status/macros.h"
#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {
namespace {

constexpr int kPage = 256;
// Answers of one stream that wait to be sent. A client that does not read its answers is cut off past it.
constexpr size_t kMaxAnswers = 100000;

Task<bool> PumpAnswers(std::shared_ptr<Channel<v1::AppendResponse>> answers, StreamWriter<v1::AppendResponse>& writer) {
  for (;;) {
    auto answer = co_await answers->Pop();
    if (!answer.has_value()) co_return true;
    if (!co_await writer.Write(*answer)) co_return false;
  }
}

// Counts the appends of a stream that the store has not answered; closes the channel after the last.
struct AppendStream {
  explicit AppendStream(std::shared_ptr<Channel<v1::AppendResponse>> channel) : answers(std::move(channel)) {}
  std::shared_ptr<Channel<v1::AppendResponse>> answers;
  std::atomic<int64_t> open{1};  // one for the reader
  std::atomic<bool> overflow{false};
  void Release() {
    if (open.fetch_sub(1) == 1) answers->Close();
  }
};

Task<bool> ReadAppends(StreamReader<v1::AppendRequest>& reader, Store& store, std::shared_ptr<AppendStream> stream) {
  for (;;) {
    v1::AppendRequest request;
    if (!co_await reader.Read(request)) break;
    if (stream->overflow) break;  // ends the call: the client comes again and repeats what it has no answer for
    ++stream->open;
    store.Append(std::move(request), [stream](v1::AppendResponse response) {
      // Full: the client reads nothing. It will repeat what it got no answer for.
      if (!stream->answers->TryPush(std::move(response))) {
        stream->overflow = true;
        stream->answers->Close();
      }
      stream->Release();
    });
  }
  stream->Release();
  co_return true;
}

}  // namespace

grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* JournalRpc::Append(
    grpc::CallbackServerContext* context) {
  return ServeBidi<v1::AppendRequest, v1::AppendResponse>(env_, context, *this, "tutti.state.v1.JournalService/Append",
                                                          &JournalRpc::HandleAppend);
}

grpc::ServerWriteReactor<v1::ReadJournalResponse>* JournalRpc::ReadJournal(grpc::CallbackServerContext* context,
                                                                           const v1::ReadJournalRequest* request) {
  return ServeServerStream<v1::ReadJournalRequest, v1::ReadJournalResponse>(
      env_, context, request, *this, "tutti.state.v1.JournalService/ReadJournal", &JournalRpc::HandleRead);
}

grpc::ServerWriteReactor<v1::WatchJournalResponse>* JournalRpc::WatchJournal(grpc::CallbackServerContext* context,
                                                                             const v1::WatchJournalRequest* request) {
  return ServeServerStream<v1::WatchJournalRequest, v1::WatchJournalResponse>(
      env_, context, request, *this, "tutti.state.v1.JournalService/WatchJournal", &JournalRpc::HandleWatch);
}

Task<absl::Status> JournalRpc::HandleAppend(CallContext& call, StreamReader<v1::AppendRequest>& reader,
                                            StreamWriter<v1::AppendResponse>& writer) {
  auto answers = std::make_shared<Channel<v1::AppendResponse>>(*call.executor, kMaxAnswers);
  auto stream = std::make_shared<AppendStream>(answers);
  std::vector<Task<bool>> both;
  both.push_back(ReadAppends(reader, store_, stream));
  both.push_back(PumpAnswers(answers, writer));
  co_await WhenAll(std::move(both));
  co_return absl::OkStatus();
}

Task<absl::Status> JournalRpc::HandleRead(CallContext& call, const v1::ReadJournalRequest& request,
                                          StreamWriter<v1::ReadJournalResponse>& writer) {
  int64_t after = request.after_seq();
  for (;;) {
    TUTTI_CO_ASSIGN_OR_RETURN(v1::ReadJournalResponse page,
                              co_await store_.ReadJournal(*call.executor, request.run_id(), after, kPage));
    if (page.entries().empty()) co_return absl::OkStatus();
    after = page.entries().rbegin()->seq();
    if (!co_await writer.Write(page)) co_return absl::CancelledError("the reader has gone");
  }
}

Task<absl::Status> JournalRpc::HandleWatch(CallContext& call, const v1::WatchJournalRequest& request,
                                           StreamWriter<v1::WatchJournalResponse>& writer) {
  auto wake_up = hub_.WatchRun(request.run_id(), *call.executor);
  if (!wake_up) {
    co_return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_WATCHERS",
                    "too many callers watch this run; close some, or poll it")
        .RetryAfter(absl::Seconds(5));
  }
  std::stop_callback on_stop(call.stop, [wake_up] { wake_up->Close(); });
  int64_t after = request.after_seq();
  for (;;) {
    // Read first, then wait: what is committed in between has left a wake-up behind.
    TUTTI_CO_ASSIGN_OR_RETURN(v1::ReadJournalResponse page,
                              co_await store_.ReadJournal(*call.executor, request.run_id(), after, kPage));
    if (!page.entries().empty()) {
      after = page.entries().rbegin()->seq();
      bool ended = page.entries().rbegin()->has_run_finished();
      v1::WatchJournalResponse out;
      out.mutable_entries()->Swap(page.mutable_entries());
      if (!co_await writer.Write(out)) co_return absl::CancelledError("the watcher has gone");
      if (ended) co_return absl::OkStatus();
      continue;
    }
    if (after > 0) {
      // Resumed after the end of a run: nothing will come.
      v1::GetRunRequest get;
      get.set_run_id(request.run_id());
      TUTTI_CO_ASSIGN_OR_RETURN(v1::GetRunResponse run, co_await store_.GetRun(*call.executor, get));
      if (run.run().outcome() != v1::OUTCOME_UNSPECIFIED) {
        TUTTI_CO_ASSIGN_OR_RETURN(page, co_await store_.ReadJournal(*call.executor, request.run_id(), after, kPage));
        if (page.entries().empty()) co_return absl::OkStatus();
        continue;
      }
    }
    auto woken = co_await wake_up->Wait();
    if (!woken.has_value()) co_return absl::CancelledError("the watcher has gone");
  }
}

}  // namespace tutti::state_manager
