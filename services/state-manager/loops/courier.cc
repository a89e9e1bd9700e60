#include "services/state-manager/loops/courier.h"

#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {
constexpr int64_t kRound = 200;
}  // namespace

Task<void> Courier::Loop() {
  for (;;) {
    auto woken = co_await wake_up_->Wait();
    if (!woken.has_value()) co_return;
    // A database that is away keeps its own messages waiting, and no other's.
    for (size_t target = 0; target < shards_.size(); ++target) {
      for (bool more = true; more && !stop_.stop_requested();) {
        auto round = co_await Round(target);
        // What could not be delivered stays where it is until the next wake-up.
        if (!round.ok()) log_.Warning("messages between databases wait", {{"error", round.status().message()}});
        more = round.ok() && *round;
      }
    }
  }
}

Task<absl::StatusOr<bool>> Courier::Round(size_t target) {
  using Messages = std::vector<Outbox::Message>;
  auto read = [&outbox = outbox_, target](Transaction& tx, Messages& out) {
    auto pending = outbox.Pending(tx, target, kRound);
    if (pending.ok()) out = *std::move(pending);
    return pending.status();
  };
  TUTTI_CO_ASSIGN_OR_RETURN(Messages messages, co_await shards_.at(from_).Read<Messages>(
                                                   executor_, absl::InfiniteFuture(), false, std::move(read)));
  bool more = static_cast<int64_t>(messages.size()) == kRound;
  if (messages.empty()) co_return false;
  absl::Status delivered = co_await DeliverTo(target, std::move(messages));
  TUTTI_CO_RETURN_IF_ERROR(delivered);
  co_return more;
}

Task<absl::Status> Courier::DeliverTo(size_t target, std::vector<Outbox::Message> messages) {
  using Refused = std::vector<absl::Status>;
  auto deliver = [&outbox = outbox_, messages](Transaction& tx, Refused& refused) {
    return outbox.Deliver(tx, messages, refused);
  };
  TUTTI_CO_ASSIGN_OR_RETURN(
      Refused refused, co_await shards_.at(target).Write<Refused>(executor_, absl::InfiniteFuture(), LaneOf("ledger"),
                                                                  std::move(deliver)));
  for (const auto& status : refused) {
    log_.Error("a message between databases was refused and dropped", {{"error", status.message()}});
  }
  auto remove = [&outbox = outbox_, messages](Transaction& tx, int&) { return outbox.Remove(tx, messages); };
  auto removed =
      co_await shards_.at(from_).Write<int>(executor_, absl::InfiniteFuture(), LaneOf("outbox"), std::move(remove));
  co_return removed.status();
}

}  // namespace tutti::state_manager
