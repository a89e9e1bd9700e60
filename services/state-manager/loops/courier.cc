#include "services/state-manager/loops/courier.h"

#include <map>

#include "runtime/async/sleep.h"
#include "runtime/async/when_all.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

constexpr int64_t kRound = 200;
// With Outbox::kGrace within the five seconds in which what a dead engine left behind goes on.
constexpr absl::Duration kPeriod = absl::Seconds(2);

}  // namespace

Task<void> Courier::LookNowAndThen() {
  for (bool goes_on = true; goes_on;) {
    wake_up_->Notify();
    goes_on = co_await Sleep(timers_, executor_, kPeriod, stop_.get_token());
  }
}

Task<void> Courier::Loop() {
  for (;;) {
    auto woken = co_await wake_up_->Wait();
    if (!woken.has_value()) co_return;
    for (size_t target = 0; target < shards_.size(); ++target) {
      std::string after;
      for (bool more = true; more && !stop_.stop_requested();) {
        auto round = co_await Round(target, after);
        if (!round.ok()) log_.Warning("messages in the outbox wait", {{"error", round.status().message()}});
        more = round.ok() && *round;
      }
    }
  }
}

Task<absl::StatusOr<bool>> Courier::Round(size_t target, std::string& after) {
  auto read = [&outbox = store_.outbox, target, after](Transaction& tx, Messages& out) {
    auto pending = outbox.Pending(tx, target, after, kRound);
    if (pending.ok()) out = *std::move(pending);
    return pending.status();
  };
  TUTTI_CO_ASSIGN_OR_RETURN(Messages messages, co_await shards_.at(from_).Read<Messages>(
                                                   executor_, absl::InfiniteFuture(), false, std::move(read)));
  if (messages.empty()) co_return false;
  const bool more = static_cast<int64_t>(messages.size()) == kRound;
  after = messages.back().id;
  absl::Status delivered = co_await DeliverTo(target, std::move(messages));
  if (!delivered.ok()) log_.Warning("messages in the outbox wait", {{"error", delivered.message()}});
  co_return more;
}

Task<absl::Status> Courier::DeliverTo(size_t target, Messages messages) {
  using Refused = std::vector<Deliveries::Refusal>;
  std::map<std::string, Messages> lanes;
  for (auto& message : messages) lanes[Deliveries::LaneKey(message)].push_back(std::move(message));
  std::vector<Task<absl::StatusOr<Refused>>> writes;
  for (const auto& [key, of_lane] : lanes) {
    auto deliver = [&deliveries = store_.deliveries, of_lane = of_lane](Transaction& tx, Refused& refused) {
      return deliveries.Deliver(tx, of_lane, refused);
    };
    writes.push_back(
        shards_.at(target).Write<Refused>(executor_, absl::InfiniteFuture(), LaneOf(key), std::move(deliver)));
  }
  auto answers = co_await WhenAll(std::move(writes));
  absl::Status failure;
  Messages done;
  size_t lane = 0;
  for (auto& [key, of_lane] : lanes) {
    const auto& refused = answers[lane++];
    if (!refused.ok()) {
      failure = refused.status();
      continue;
    }
    std::map<std::string, absl::Status> whys;
    for (const auto& [id, why] : *refused) whys[id] = why;
    for (const auto& message : of_lane) {
      auto why = whys.find(message.id);
      if (why == whys.end()) {
        done.push_back(message);
      } else {
        TUTTI_CO_RETURN_IF_ERROR(co_await NoteRefusal(message, why->second));
      }
    }
  }
  if (!done.empty()) {
    auto remove = [&outbox = store_.outbox, done = std::move(done)](Transaction& tx, int&) {
      return outbox.Remove(tx, done);
    };
    auto removed =
        co_await shards_.at(from_).Write<int>(executor_, absl::InfiniteFuture(), LaneOf("outbox"), std::move(remove));
    TUTTI_CO_RETURN_IF_ERROR(removed.status());
  }
  co_return failure;
}

Task<absl::Status> Courier::NoteRefusal(Outbox::Message message, absl::Status why) {
  auto note = [&outbox = store_.outbox, id = message.id, why](Transaction& tx, bool& set_aside) {
    auto noted = outbox.NoteRefusal(tx, id, why);
    if (noted.ok()) set_aside = *noted;
    return noted.status();
  };
  auto set_aside =
      co_await shards_.at(from_).Write<bool>(executor_, absl::InfiniteFuture(), LaneOf("outbox"), std::move(note));
  TUTTI_CO_RETURN_IF_ERROR(set_aside.status());
  if (*set_aside) {
    metrics_.messages_set_aside.fetch_add(1, std::memory_order_relaxed);
    log_.Error("message set aside; `tutti messages retry` has it tried again",
               {{"message_id", message.id}, {"kind", message.kind}, {"error", why.message()}});
  } else {
    log_.Warning("message refused; trying again later",
                 {{"message_id", message.id}, {"kind", message.kind}, {"error", why.message()}});
  }
  co_return absl::OkStatus();
}

}  // namespace tutti::state_manager
