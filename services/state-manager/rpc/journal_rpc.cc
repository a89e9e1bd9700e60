#include <atomic>
#include <memory>
#include <optional>
#include <set>

#include "runtime/async/when_all.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "runtime/sync/mutex.h"
#include "services/state-manager/rpc/append_router.h"
#include "services/state-manager/rpc/services.h"
#include "services/state-manager/rpc/watching.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr int kPage = 256;
constexpr size_t kPageBytes = size_t{1} << 20;
// Answers of one stream that wait to be sent. A client that does not read its answers is cut off past it.
constexpr size_t kMaxAnswers = 100000;
constexpr int kMostTogether = 255;
// What fits into a notification between replicas.
constexpr size_t kLargestText = 5000;
constexpr int kLongestRunId = 64;

Task<bool> PumpAnswers(std::shared_ptr<Channel<v1::AppendResponse>> answers, BehindWriter<v1::AppendResponse>& writer) {
  std::optional<v1::AppendResponse> answer;  // alive until it is written
  for (;;) {
    auto next = co_await answers->Pop();
    const bool written = co_await writer.Written();
    if (!written) co_return false;
    if (!next.has_value()) co_return true;
    answer = std::move(next);
    // A commit answers many at once: they travel together.
    for (int i = 0; i < kMostTogether; ++i) {
      auto more = answers->TryPop();
      if (!more.has_value()) break;
      *answer->add_also() = *std::move(more);
    }
    writer.StartWriting(*answer);
  }
}

// Counts the appends of a stream that the store has not answered; closes the channel after the last.
struct AppendStream {
  explicit AppendStream(std::shared_ptr<Channel<v1::AppendResponse>> channel) : answers(std::move(channel)) {}
  std::shared_ptr<Channel<v1::AppendResponse>> answers;
  std::atomic<int64_t> open{1};  // one for the reader
  std::atomic<bool> overflow{false};
  // Of a call with a deadline: the numbers of those that are not answered yet.
  bool timed = false;
  Mutex mutex;
  std::multiset<int64_t> waiting ABSL_GUARDED_BY(mutex);

  void Release() {
    if (open.fetch_sub(1) == 1) answers->Close();
  }
  void Begin(int64_t number) {
    ++open;
    if (!timed) return;
    MutexLock lock(mutex);
    waiting.insert(number);
  }
  void Answer(v1::AppendResponse response) {
    if (timed) {
      MutexLock lock(mutex);
      auto it = waiting.find(response.request_number());
      if (it == waiting.end()) return;  // it was answered when the time was over
      waiting.erase(it);
    }
    // Full: the client reads nothing. It will repeat what it got no answer for.
    if (!answers->TryPush(std::move(response))) {
      overflow = true;
      answers->Close();
    }
  }
  // The time is over: what the database has not answered.
  void AnswerWaiting() {
    std::multiset<int64_t> late;
    {
      MutexLock lock(mutex);
      late.swap(waiting);
    }
    for (int64_t number : late) {
      v1::AppendResponse response;
      response.set_request_number(number);
      *response.mutable_status() = ToRpcStatus(Access::Slow());
      answers->TryPush(std::move(response));
    }
  }
};

Task<bool> ReadAppends(StreamReader<v1::AppendRequest>& reader, std::shared_ptr<AppendRouter> router,
                       std::shared_ptr<AppendStream> stream) {
  for (;;) {
    v1::AppendRequest request;
    if (!co_await reader.Read(request)) break;
    if (stream->overflow) break;  // ends the call: the client comes again and repeats what it has no answer for
    auto append = [&](v1::AppendRequest one) {
      stream->Begin(one.request_number());
      router->Append(std::move(one), [stream](v1::AppendResponse response) {
        stream->Answer(std::move(response));
        stream->Release();
      });
    };
    google::protobuf::RepeatedPtrField<v1::AppendRequest> also;
    also.Swap(request.mutable_also());
    append(std::move(request));
    for (auto& one : also) append(std::move(one));
  }
  stream->Release();
  co_return true;
}

}  // namespace

Task<absl::Status> JournalRpc::HandlePublish(CallContext&, const v1::PublishTextRequest& request,
                                             v1::PublishTextResponse&) {
  const v1::LiveText& text = request.text();
  TUTTI_CO_RETURN_IF_ERROR(CheckText("text.run_id", text.run_id(), kLongestRunId, /*required=*/true));
  std::string serialized = text.SerializeAsString();
  if (serialized.size() > kLargestText) {
    co_return Invalid("text", absl::StrCat("must have at most ", kLargestText, " bytes"));
  }
  shards_.Of(text.run_id()).database().Announce({{News::Kind::kText, text.run_id(), "", std::move(serialized)}});
  co_return absl::OkStatus();
}

Task<absl::Status> JournalRpc::HandleAppend(CallContext& call, StreamReader<v1::AppendRequest>& reader,
                                            BehindWriter<v1::AppendResponse>& writer) {
  auto answers = std::make_shared<Channel<v1::AppendResponse>>(*call.executor, kMaxAnswers);
  auto stream = std::make_shared<AppendStream>(answers);
  stream->timed = call.deadline < absl::InfiniteFuture();
  Access& home = shards_.home();
  const uint64_t timer = home.BeforeDeadline(call.deadline, [stream] { stream->AnswerWaiting(); });
  std::vector<Task<bool>> both;
  both.push_back(ReadAppends(reader, std::make_shared<AppendRouter>(shards_, journal_, ledger_), stream));
  both.push_back(PumpAnswers(answers, writer));
  co_await WhenAll(std::move(both));
  home.Cancel(timer);
  co_return absl::OkStatus();
}

Task<absl::Status> JournalRpc::HandleLocalAppend(CallContext& call, v1::AppendRequest&& request,
                                                 v1::AppendResponse& response) {
  OneShot<v1::AppendResponse> done;
  local_router_->Append(std::move(request), [&done](v1::AppendResponse answer) { done.Set(std::move(answer)); });
  response = co_await done.Wait(*call.executor);
  co_return absl::OkStatus();
}

Task<absl::StatusOr<v1::ReadJournalResponse>> JournalRpc::ReadPage(CallContext& call, std::string run_id, int64_t after,
                                                                   bool inbox_only) {
  auto body = [&journal = journal_, run_id, after, inbox_only](Transaction& tx, v1::ReadJournalResponse& out) {
    auto page = journal.ReadPage(tx, run_id, after, kPage, inbox_only);
    if (page.ok()) out = *std::move(page);
    return page.status();
  };
  auto page = co_await shards_.Of(run_id).Read<v1::ReadJournalResponse>(*call.executor, call.deadline,
                                                                        /*allow_stale=*/false, std::move(body));
  co_return std::move(page);
}

// The snapshot's entries in pages, each with its large payloads.
Task<absl::Status> JournalRpc::SendSnapshot(CallContext& call, std::string run_id, int64_t& after,
                                            StreamWriter<v1::ReadJournalResponse>& writer) {
  auto body = [&journal = journal_, run_id](Transaction& tx, Journal::Snapshot& out) {
    auto snapshot = journal.ReadSnapshot(tx, run_id);
    if (snapshot.ok()) out = *std::move(snapshot);
    return snapshot.status();
  };
  TUTTI_CO_ASSIGN_OR_RETURN(Journal::Snapshot snapshot,
                            co_await shards_.Of(run_id).Read<Journal::Snapshot>(
                                *call.executor, call.deadline, /*allow_stale=*/false, std::move(body)));
  auto entries = std::make_shared<std::vector<v1::JournalEntry>>(std::move(snapshot.entries));
  for (size_t next = 0; next < entries->size();) {
    auto fill = [&journal = journal_, entries, next](Transaction& tx, v1::ReadJournalResponse& out) -> absl::Status {
      size_t bytes = 0;
      for (size_t i = next; i < entries->size() && out.entries_size() < kPage && bytes < kPageBytes; ++i) {
        v1::JournalEntry entry = (*entries)[i];
        TUTTI_RETURN_IF_ERROR(journal.Fill(tx, entry));
        bytes += entry.ByteSizeLong();
        *out.add_entries() = std::move(entry);
      }
      return absl::OkStatus();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(v1::ReadJournalResponse page, co_await shards_.Of(run_id).Read<v1::ReadJournalResponse>(
                                                                *call.executor, call.deadline,
                                                                /*allow_stale=*/false, std::move(fill)));
    next += static_cast<size_t>(page.entries_size());
    if (!co_await writer.Write(page)) co_return absl::CancelledError("the reader has gone");
  }
  after = snapshot.seq;
  co_return absl::OkStatus();
}

Task<absl::Status> JournalRpc::HandleRead(CallContext& call, const v1::ReadJournalRequest& request,
                                          StreamWriter<v1::ReadJournalResponse>& writer) {
  int64_t after = request.after_seq();
  if (request.condensed() && after == 0) {
    absl::Status sent = co_await SendSnapshot(call, request.run_id(), after, writer);
    TUTTI_CO_RETURN_IF_ERROR(sent);
  }
  for (;;) {
    TUTTI_CO_ASSIGN_OR_RETURN(v1::ReadJournalResponse page,
                              co_await ReadPage(call, request.run_id(), after, request.inbox_only()));
    if (page.entries().empty()) co_return absl::OkStatus();
    after = page.entries().rbegin()->seq();
    if (!co_await writer.Write(page)) co_return absl::CancelledError("the reader has gone");
  }
}

Task<absl::StatusOr<bool>> JournalRpc::HasEnded(CallContext& call, std::string run_id) {
  auto body = [&runs = runs_, run_id](Transaction& tx, bool& out) {
    auto ended = runs.HasEnded(tx, run_id);
    out = ended.ok() && *ended;
    return ended.status();
  };
  auto ended =
      co_await shards_.Of(run_id).Read<bool>(*call.executor, call.deadline, /*allow_stale=*/false, std::move(body));
  co_return ended;
}

Task<absl::Status> JournalRpc::HandleWatch(CallContext& call, const v1::WatchJournalRequest& request,
                                           StreamWriter<v1::WatchJournalResponse>& writer) {
  auto wake_up = hub_.Watch(News::Kind::kRun, request.run_id(), *call.executor);
  if (!wake_up) co_return TooManyWatchers("run");
  if (request.texts()) wake_up->WantTexts();
  std::stop_callback on_stop(call.stop, [wake_up] { wake_up->Close(); });
  int64_t after = request.after_seq();
  for (bool look = true;;) {
    // Read first, then wait: what is committed in between has left a notice behind. What was said before an entry was
    // written is there when the entry is read, and goes before it; by itself it is no reason to read.
    look |= wake_up->TakeNotice();
    v1::ReadJournalResponse page;
    if (look) {
      TUTTI_CO_ASSIGN_OR_RETURN(page, co_await ReadPage(call, request.run_id(), after));
    }
    v1::WatchJournalResponse out;
    for (const auto& text : wake_up->TakeTexts()) (void)out.add_texts()->ParseFromString(text);
    const bool entries = !page.entries().empty();
    if (entries || !out.texts().empty()) {
      bool ended = entries && page.entries().rbegin()->has_run_finished();
      if (entries) after = page.entries().rbegin()->seq();
      out.mutable_entries()->Swap(page.mutable_entries());
      absl::Time begin = env_.clock.Now();
      if (!co_await writer.Write(out)) co_return WatcherGone();
      if (ended) {  // unless the run was opened again, and this is the end of an earlier try
        auto really = co_await HasEnded(call, request.run_id());
        if (absl::IsNotFound(really.status())) co_return absl::OkStatus();  // gone by its age meanwhile
        if (!really.ok()) co_return really.status();
        if (*really) co_return absl::OkStatus();
        continue;
      }
      if (env_.clock.Now() - begin > slowest_reader_) co_return TooSlow("after_seq", after);
      look = entries;  // there may be more
      continue;
    }
    if (look && after > 0) {
      // Resumed after the end of a run: nothing will come.
      TUTTI_CO_ASSIGN_OR_RETURN(bool over, co_await HasEnded(call, request.run_id()));
      if (over) {
        TUTTI_CO_ASSIGN_OR_RETURN(page, co_await ReadPage(call, request.run_id(), after));
        if (page.entries().empty()) co_return absl::OkStatus();
        continue;
      }
    }
    look = false;
    auto woken = co_await wake_up->Wait();
    if (!woken.has_value()) co_return WatcherGone();
  }
}

}  // namespace tutti::state_manager
