#include "services/state-manager/rpc/append_router.h"

#include "runtime/status/macros.h"

namespace tutti::state_manager {

void AppendRouter::Append(v1::AppendRequest request, Done done) {
  Waiting append{std::move(request), std::move(done)};
  if (shards_.IndexOf(append.request.run_id()) == 0) return Send(std::move(append));
  {
    MutexLock lock(mutex_);
    auto held = held_.find(append.request.run_id());
    if (held != held_.end()) {
      held->second.push_back(std::move(append));
      return;
    }
    if (!append.request.reserve().empty()) held_.try_emplace(append.request.run_id());
  }
  if (append.request.reserve().empty()) return Send(std::move(append));
  Reserve(std::move(append));
}

void AppendRouter::Send(Waiting append) {
  size_t shard = shards_.IndexOf(append.request.run_id());
  journal_.Append(shards_.at(shard).database(), std::move(append.request), std::move(append.done),
                  /*ledger_elsewhere=*/shard != 0);
}

void AppendRouter::Reserve(Waiting append) {
  struct Call {
    Waiting append;
    absl::Status refusal;
  };
  auto call = std::make_shared<Call>();
  call->append = std::move(append);
  WriteOp op;
  op.lane = LaneOf("ledger");
  op.apply = [this, call](Transaction& tx) {
    const auto& request = call->append.request;
    call->refusal = ledger_.Apply(tx, request.run_id(), request.reserve(), {});
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
