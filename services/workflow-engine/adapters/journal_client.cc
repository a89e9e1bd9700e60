#include "services/workflow-engine/adapters/journal_client.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/async/sleep.h"
#include "runtime/async/when_all.h"
#include "runtime/status/error.h"
#include "runtime/status/mapping.h"
#include "services/workflow-engine/domain/interpreter.h"

namespace tutti::engine {
namespace {

constexpr size_t kMostTogether = 256;
// How long what is posted may wait for company: a quick step's start is not written at all, since its end says it too;
// a slow one's is visible before a person would notice.
constexpr absl::Duration kSoon = absl::Milliseconds(25);
// What is nearly due goes along.
constexpr absl::Duration kNearly = absl::Milliseconds(3);
constexpr size_t kMostBytesOfOne = size_t{1} << 20;
constexpr size_t kMostBytesTogether = size_t{256} << 10;

bool Passing(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kInternal ||
         ReasonOf(status) == "JOURNAL_GAP";
}

}  // namespace

JournalClient::JournalClient(RpcPeer state_manager, const LocalMethods& local, Executor& executor, const Clock& clock,
                             TimerService& timers, Tracer& tracer, Rng& rng, Logger& log)
    : peer_(std::move(state_manager)),
      executor_(executor),
      timers_(timers),
      tracer_(tracer),
      rng_(rng),
      log_(log),
      local_(local.Find<state::AppendRequest, state::AppendResponse>("tutti.state.v1.JournalService/Append")),
      flushes_(std::make_shared<Flushes>(clock, timers, executor)) {}

JournalClient::~JournalClient() { Stop(); }

void JournalClient::Start() {
  if (!local_) scope_.Spawn(executor_, Loop());
}

void JournalClient::Soon(absl::AnyInvocable<void()> flush) {
  flushes_->waiting.push_back({flushes_->clock.Now() + kSoon, std::move(flush)});
  if (!std::exchange(flushes_->timed, true)) Arm(flushes_, kSoon);
}

void JournalClient::Arm(const std::shared_ptr<Flushes>& flushes, absl::Duration delay) {
  flushes->timers.After(delay, [weak = std::weak_ptr<Flushes>(flushes), &executor = flushes->executor] {
    if (weak.expired()) return;
    executor.Post([weak] {
      auto flushes = weak.lock();
      if (!flushes) return;
      auto& waiting = flushes->waiting;
      absl::Duration left;
      while (!waiting.empty()) {
        left = waiting.front().due - flushes->clock.Now();
        if (left > kNearly && left <= kSoon) break;  // a clock that was set back keeps nobody waiting
        auto flush = std::move(waiting.front().flush);
        waiting.pop_front();
        flush();
      }
      flushes->timed = !waiting.empty();
      if (flushes->timed) Arm(flushes, left);
    });
  });
}

// In this process there is no stream that could break: an append that the store could not take is repeated by itself.
// Later ones of its run are refused until it has been (JOURNAL_GAP), and repeated too.
Task<absl::Status> JournalClient::AppendLocally(state::AppendRequest request) {
  for (absl::Duration backoff = absl::Milliseconds(50);; backoff = std::min(backoff * 2, absl::Seconds(2))) {
    CallContext call(executor_, tracer_);
    call.stop = stop_.get_token();
    call.trace = TraceContext{.trace_high = 1, .trace_low = 1, .span = 1, .sampled = false};
    state::AppendResponse response;
    absl::Status status = co_await local_->Call(call, request, response, absl::InfiniteDuration());
    if (status.ok()) status = FromRpcStatus(response.status());
    if (stop_.stop_requested() && !status.ok()) co_return absl::CancelledError("the journal is closed");
    if (!Passing(status)) co_return status;
    log_.Warning("journal append failed for now", {{"error", status.message()}});
    if (!co_await Sleep(timers_, executor_, backoff * (0.8 + 0.4 * rng_.Unit()), stop_.get_token())) {
      co_return absl::CancelledError("the journal is closed");
    }
  }
}

void JournalClient::Stop() {
  stop_.request_stop();
  if (local_) return;
  scope_.Spawn(executor_, Wake());
  scope_.CloseAndWait();
}

Task<void> JournalClient::Wake() {
  WakeWriter();
  co_return;
}

Task<absl::Status> JournalClient::Append(state::AppendRequest request) {
  if (local_) {
    absl::Status status = co_await AppendLocally(std::move(request));
    co_return status;
  }
  if (stopped_) co_return absl::CancelledError("the journal is closed");
  auto pending = std::make_shared<Pending>();
  pending->request = std::move(request);
  pending->request.set_request_number(next_number_);
  unanswered_.emplace(next_number_++, pending);
  WakeWriter();
  absl::Status status = co_await pending->done.Wait(executor_);
  co_return status;
}

void JournalClient::WakeWriter() {
  if (writer_wake_) writer_wake_->Set(true);
}

Task<void> JournalClient::Loop() {
  absl::Duration backoff = absl::Milliseconds(50);
  while (!stop_.stop_requested()) {
    CallContext call(executor_, tracer_);
    call.stop = stop_.get_token();
    bool progress = co_await RunStream(call);
    if (stop_.stop_requested()) break;
    backoff = progress ? absl::Milliseconds(50) : std::min(backoff * 2, absl::Seconds(2));
    log_.Warning("journal stream ended; trying again", {{"unanswered", absl::StrCat(unanswered_.size())}});
    bool slept = co_await Sleep(timers_, executor_, backoff * (0.8 + 0.4 * rng_.Unit()), stop_.get_token());
    if (!slept) break;
  }
  stopped_ = true;
  auto left = std::move(unanswered_);
  unanswered_.clear();
  for (auto& [number, pending] : left) pending->done.Set(absl::CancelledError("the journal is closed"));
}

// One stream from its start to its end. True when anything was answered on it.
Task<bool> JournalClient::RunStream(CallContext& call) {
  Stream stream(call, absl::InfiniteDuration());
  stream.Start(peer_, "tutti.state.v1.JournalService/Append");
  sent_up_to_ = 0;  // everything unanswered goes out again
  bool broken = false;
  std::vector<Task<bool>> both;
  both.push_back(ReadAll(stream, broken));
  both.push_back(WriteAll(stream, broken));
  std::vector<bool> results = co_await WhenAll(std::move(both));
  co_await stream.Finish();
  co_return results[0];
}

Task<bool> JournalClient::WriteAll(Stream& stream, bool& broken) {
  // The requests are lent to the message, and alive until it is written, even if answered before.
  std::vector<std::shared_ptr<Pending>> lent;
  auto take_back = [&lent] {
    if (lent.empty()) return;
    state::AppendRequest& first = lent[0]->request;
    while (!first.also().empty()) (void)first.mutable_also()->UnsafeArenaReleaseLast();
    lent.clear();
  };
  while (!broken && !stop_.stop_requested()) {
    if (unanswered_.upper_bound(sent_up_to_) == unanswered_.end()) {
      writer_wake_ = std::make_unique<OneShot<bool>>();
      co_await writer_wake_->Wait(executor_);
      writer_wake_.reset();
      continue;
    }
    const bool written = co_await stream.Written();
    take_back();
    if (!written) break;
    // All that came while the last message was on its way goes with the next.
    auto next = unanswered_.upper_bound(sent_up_to_);
    if (next == unanswered_.end()) continue;  // answered meanwhile
    size_t bytes = 0;
    for (; next != unanswered_.end() && lent.size() < kMostTogether && bytes < kMostBytesTogether; ++next) {
      sent_up_to_ = next->first;
      bytes += next->second->request.ByteSizeLong();
      lent.push_back(next->second);
    }
    state::AppendRequest& first = lent[0]->request;
    for (size_t i = 1; i < lent.size(); ++i) first.mutable_also()->UnsafeArenaAddAllocated(&lent[i]->request);
    stream.StartWriting(first);
  }
  stream.Cancel();
  (void)co_await stream.Written();
  take_back();
  co_return true;
}

Task<bool> JournalClient::ReadAll(Stream& stream, bool& broken) {
  bool answered = false;
  state::AppendResponse response;
  for (bool goes_on = true; goes_on;) {
    goes_on = co_await stream.Read(response);
    if (goes_on) goes_on = Take(response, answered);
    for (int i = 0; goes_on && i < response.also_size(); ++i) goes_on = Take(*response.mutable_also(i), answered);
  }
  broken = true;
  stream.Cancel();
  WakeWriter();
  co_return answered;
}

bool JournalClient::Take(state::AppendResponse& response, bool& answered) {
  auto it = unanswered_.find(response.request_number());
  if (it == unanswered_.end()) return true;
  absl::Status status = FromRpcStatus(response.status());
  if (Passing(status)) {
    // Everything behind it must wait too: send all again, in order, on a new stream.
    log_.Warning("journal append failed for now", {{"error", status.message()}});
    return false;
  }
  answered = true;
  auto pending = std::move(it->second);
  unanswered_.erase(it);
  pending->done.Set(std::move(status));
  return true;
}

state::AppendRequest RunJournal::State::Take(size_t count) {
  state::AppendRequest request;
  request.set_run_id(run_id);
  request.set_lease_epoch(lease_epoch);
  request.set_writer_seq(writer_seq);
  auto end = posted.begin() + static_cast<int64_t>(count);
  for (auto it = posted.begin(); it != end; ++it) *request.add_entries() = std::move(*it);
  posted.erase(posted.begin(), end);
  writer_seq += request.entries_size();
  return request;
}

async_internal::Detached RunJournal::SendPosted(std::shared_ptr<State> state, size_t count) {
  // A message has a limit: what is large goes in several, which keep their order.
  size_t part = 0, bytes = 0;
  for (; part < count; ++part) {
    bytes += state->posted[part].ByteSizeLong();
    if (part > 0 && bytes > kMostBytesOfOne) break;
  }
  const size_t rest = count - part;
  ++state->sending;
  absl::Status status = co_await state->client.Append(state->Take(part));
  // Whatever it says, nothing more can be written here.
  if (!status.ok() && state->failed.ok()) state->failed = WalkEnd(status);
  if (rest > 0 && status.ok() && !state->posted.empty()) SendPosted(state, std::min(rest, state->posted.size()));
  if (--state->sending > 0) co_return;
  for (auto& waiter : std::exchange(state->waiting, {})) waiter->Set(true);
}

void RunJournal::Post(state::JournalEntry entry) {
  bool first = state_->posted.empty();
  state_->posted.push_back(std::move(entry));
  if (!first) return;
  // Of what is posted now, and not of what is when that has gone.
  state_->client.Soon([weak = std::weak_ptr<State>(state_), flush = ++state_->flush] {
    auto state = weak.lock();
    if (state && state->flush == flush && !state->posted.empty()) SendPosted(state, state->posted.size());
  });
}

bool RunJournal::Retract(const std::function<bool(const state::JournalEntry&)>& which) {
  auto it = std::find_if(state_->posted.rbegin(), state_->posted.rend(), which);
  if (it == state_->posted.rend()) return false;
  state_->posted.erase(std::next(it).base());
  return true;
}

Task<absl::Status> RunJournal::Barrier() {
  auto state = state_;
  if (size_t count = EndOfResults(state->posted); count > 0) SendPosted(state, count);
  while (state->sending > 0) {
    auto waiter = std::make_shared<OneShot<bool>>();
    state->waiting.push_back(waiter);
    co_await waiter->Wait(state->executor);
  }
  co_return state->failed;
}

Task<absl::Status> RunJournal::Commit(state::JournalEntry entry) {
  state_->posted.push_back(std::move(entry));
  SendPosted(state_, state_->posted.size());
  absl::Status status = co_await Barrier();
  co_return status;
}

}  // namespace tutti::engine
