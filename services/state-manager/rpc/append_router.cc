#include "services/state-manager/rpc/append_router.h"

#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

// Appends of one run that wait behind a reservation; more are sent away, to come again.
constexpr size_t kMostHeld = 256;

absl::Status Busy() {
  return Error(absl::StatusCode::kUnavailable, "STORE_BUSY", "too many appends of the run wait for its reservation")
      .RetryAfter(absl::Milliseconds(200));
}

}  // namespace

void AppendRouter::Append(v1::AppendRequest request, Done done) {
  Waiting append{std::move(request), std::move(done)};
  if (shards_.IndexOf(append.request.run_id()) == 0) return Send(std::move(append));
  bool full = false;
  {
    MutexLock lock(mutex_);
    auto held = held_.find(append.request.run_id());
    if (held != held_.end()) {
      if (held->second.size() < kMostHeld) {
        held->second.push_back(std::move(append));
        return;
      }
      full = true;
    }
    if (!full && !append.request.reserve().empty()) held_.try_emplace(append.request.run_id());
  }
  if (full) {
    append.done(Journal::Failure(append.request, Busy(), absl::OkStatus()));
    return;
  }
  if (append.request.reserve().empty()) return Send(std::move(append));
  Reserve(std::move(append));
}

void AppendRouter::Send(Waiting append) {
  size_t shard = shards_.IndexOf(append.request.run_id());
  journal_.Append(shards_.at(shard).database(), std::move(append.request), std::move(append.done),
                  /*ledger_elsewhere=*/shard != 0);
}

// An append that its run's database would refuse anyhow (an old lease, an end) must hold nothing: looked at first.
void AppendRouter::Reserve(Waiting append) {
  auto call = std::make_shared<Call>();
  call->append = std::move(append);
  ReadOp look;
  look.query = [call](Transaction& tx) {
    auto current = Journal::IsCurrent(tx, call->append.request);
    if (current.ok()) call->current = *current;
    return current.status();
  };
  look.finish = [self = shared_from_this(), call](const absl::Status& status) {
    std::string run_id = call->append.request.run_id();
    if (status.ok() && call->current) return self->ReserveAtHome(call);
    if (status.ok()) {
      self->Send(std::move(call->append));  // its database says what is wrong
    } else {
      call->append.done(Journal::Failure(call->append.request, status, absl::OkStatus()));
    }
    self->GoOn(run_id);
  };
  shards_.Of(call->append.request.run_id()).database().Read(std::move(look));
}

void AppendRouter::ReserveAtHome(std::shared_ptr<Call> call) {
  WriteOp op;
  op.lane = LaneOf("ledger");
  op.apply = [this, call](Transaction& tx) {
    const auto& request = call->append.request;
    // Settlements first, as in one transaction: they may make the room. Once more from the outbox they change nothing.
    call->refusal = ledger_.Promise(tx, request.run_id(), request.reserve(), request.settle());
    TUTTI_RETURN_IF_ERROR(tx.failure());
    return absl::IsAborted(call->refusal) ? call->refusal : absl::OkStatus();
  };
  op.finish = [self = shared_from_this(), call](const absl::Status& status) {
    std::string run_id = call->append.request.run_id();
    if (status.ok() && call->refusal.ok()) {
      self->Send(std::move(call->append));
    } else {
      call->append.done(Journal::Failure(call->append.request, status, call->refusal));
    }
    self->GoOn(run_id);
  };
  shards_.home().database().Write(std::move(op));
}

void AppendRouter::GoOn(const std::string& run_id) {
  for (;;) {
    Waiting next;
    {
      MutexLock lock(mutex_);
      auto held = held_.find(run_id);
      if (held->second.empty()) {
        held_.erase(held);
        return;
      }
      next = std::move(held->second.front());
      held->second.pop_front();
    }
    if (!next.request.reserve().empty()) return Reserve(std::move(next));
    Send(std::move(next));
  }
}

}  // namespace tutti::state_manager
