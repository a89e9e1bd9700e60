// The engine's side of the journal: one long-lived stream for all runs. What was sent and not answered is sent again,
// in order, after a broken stream or a passing failure of the store; the store knows a repeated append by its
// writer_seq.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "runtime/async/one_shot.h"
#include "runtime/async/scope.h"
#include "runtime/rpc/client_calls.h"
#include "runtime/rpc/local_methods.h"
#include "runtime/telemetry/log.h"
#include "services/workflow-engine/ports/effects.h"
#include "tutti/state/v1/journal_service.pb.h"

namespace tutti::engine {

namespace state = tutti::state::v1;

// All methods on the executor given.
class JournalClient {
 public:
  JournalClient(RpcPeer state_manager, const LocalMethods& local, Executor& executor, const Clock& clock,
                TimerService& timers, Tracer& tracer, Rng& rng, Logger& log);
  ~JournalClient();

  void Start();
  // Answers nothing any more: waiting appends end as CANCELLED. From another thread; blocks.
  void Stop();

  // Calls `flush` on the executor after some milliseconds, with others that are due then: what a run has posted.
  void Soon(absl::AnyInvocable<void()> flush);
  // The final answer of one append: OK, ABORTED (lease lost), NOT_FOUND, FAILED_PRECONDITION, or CANCELLED at Stop.
  Task<absl::Status> Append(state::AppendRequest request);

 private:
  struct Pending {
    state::AppendRequest request;
    OneShot<absl::Status> done;
  };
  using Stream = ClientBidiStream<state::AppendRequest, state::AppendResponse>;

  Task<void> Loop();
  Task<bool> RunStream(CallContext& call);
  Task<bool> WriteAll(Stream& stream, bool& broken);
  Task<bool> ReadAll(Stream& stream, bool& broken);
  // True: the answer is final. False: the store wrote nothing; all that is unanswered is to be sent again.
  bool Take(state::AppendResponse& response, bool& answered);
  void WakeWriter();
  Task<void> Wake();
  using LocalAppend = LocalMethods::Typed<state::AppendRequest, state::AppendResponse>;
  Task<absl::Status> AppendLocally(state::AppendRequest request);

  const RpcPeer peer_;
  Executor& executor_;
  TimerService& timers_;
  Tracer& tracer_;
  Rng& rng_;
  Logger& log_;
  std::stop_source stop_;
  int64_t next_number_ = 1;
  std::map<int64_t, std::shared_ptr<Pending>> unanswered_;  // by request number
  int64_t sent_up_to_ = 0;                                  // on the current stream
  std::unique_ptr<OneShot<bool>> writer_wake_;
  bool stopped_ = false;
  const std::shared_ptr<LocalAppend> local_;  // the store in this process; else null
  // Lives as long as a timer that points to it.
  struct Flushes {
    struct Flush {
      absl::Time due;
      absl::AnyInvocable<void()> flush;
    };
    Flushes(const Clock& clock, TimerService& timers, Executor& executor)
        : clock(clock), timers(timers), executor(executor) {}
    const Clock& clock;
    TimerService& timers;
    Executor& executor;
    std::deque<Flush> waiting;  // by due
    bool timed = false;
  };
  static void Arm(const std::shared_ptr<Flushes>& flushes, absl::Duration delay);
  const std::shared_ptr<Flushes> flushes_;
  Scope scope_;
};

// The journal of one run: numbers its entries and joins what is posted with what is committed.
class RunJournal final : public JournalPort {
 public:
  RunJournal(JournalClient& client, TimerService& timers, Executor& executor, std::string run_id, int64_t lease_epoch)
      : state_(std::make_shared<State>(client, timers, executor, std::move(run_id), lease_epoch)) {}
  void Post(state::JournalEntry entry) override;
  bool Retract(const std::function<bool(const state::JournalEntry&)>& which) override;
  Task<absl::Status> Commit(state::JournalEntry entry) override;
  Task<absl::Status> Barrier() override;

 private:
  struct State {
    State(JournalClient& client, TimerService& timers, Executor& executor, std::string run_id, int64_t lease_epoch)
        : client(client), timers(timers), executor(executor), run_id(std::move(run_id)), lease_epoch(lease_epoch) {}
    JournalClient& client;
    TimerService& timers;
    Executor& executor;
    const std::string run_id;
    const int64_t lease_epoch;
    int64_t writer_seq = 1;
    std::vector<state::JournalEntry> posted;
    uint64_t flush = 0;  // the last one asked for
    // Appends under way whose answers nobody has waited for yet.
    int sending = 0;
    absl::Status failed;
    std::vector<std::shared_ptr<OneShot<bool>>> waiting;
    // The first `count` of what is posted.
    state::AppendRequest Take(size_t count);
  };
  static async_internal::Detached SendPosted(std::shared_ptr<State> state, size_t count);
  std::shared_ptr<State> state_;
};

}  // namespace tutti::engine
