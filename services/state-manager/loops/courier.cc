#include "services/state-manager/loops/courier.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {
constexpr int64_t kRound = 200;
}  // namespace

Task<void> Courier::Loop() {
  for (;;) {
    auto woken = co_await wake_up_->Wait();
    if (!woken.has_value()) co_return;
    for (bool more = true; more;) {
      auto round = co_await Round();
      // What could not be delivered stays where it is until the next wake-up.
      if (!round.ok()) log_.Warning("messages between databases wait", {{"error", round.status().message()}});
      more = round.ok() && *round;
    }
  }
}

Task<absl::StatusOr<bool>> Courier::Round() {
  using Messages = std::vector<Outbox::Message>;
  auto read = [&outbox = outbox_](Transaction& tx, Messages& out) {
    auto pending = outbox.Pending(tx, kRound);
    if (pending.ok()) out = *std::move(pending);
    return pending.status();
  };
  TUTTI_CO_ASSIGN_OR_RETURN(Messages messages, co_await shards_.at(from_).Read<Messages>(
                                                   executor_, absl::InfiniteFuture(), false, std::move(read)));
  bool more = static_cast<int64_t>(messages.size()) == kRound;
  std::map<size_t, Messages> by_target;
  for (auto& message : messages) by_target[message.target % shards_.size()].push_back(std::move(message));
  for (auto& [target, of_target] : by_target) {
    absl::Status delivered = co_await DeliverTo(target, std::move(of_target));
    TUTTI_CO_RETURN_IF_ERROR(delivered);
  }
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
