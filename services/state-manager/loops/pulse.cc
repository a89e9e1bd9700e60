#include "services/state-manager/loops/pulse.h"

#include "runtime/async/sleep.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::state_manager {
namespace {

constexpr absl::Duration kPeriod = absl::Seconds(1);
constexpr absl::Duration kPatience = absl::Seconds(2);
// Number of failed looks in a row before the service is not ready: one slow answer is no failure.
constexpr int kMisses = 3;

}  // namespace

Task<absl::Status> Pulse::Look() {
  for (size_t i = 0; i < shards_.size(); ++i) {
    Access& access = shards_.at(i);
    // This op writes nothing. A database whose disk was full looks for room when it arrives.
    WriteOp nothing;
    nothing.finish = [](const absl::Status&) {};
    access.database().Write(std::move(nothing));
    auto look = [](Transaction& tx, int& out) {
      Statement one = tx.Prepare("SELECT 1");
      if (one.Step()) out = static_cast<int>(one.Int(0));
      return one.status();
    };
    auto answer = co_await access.Read<int>(executor_, clock_.Now() + kPatience, /*allow_stale=*/false, look);
    TUTTI_CO_RETURN_IF_ERROR(answer.status());
    TUTTI_CO_RETURN_IF_ERROR(access.database().Writable());
  }
  co_return absl::OkStatus();
}

Task<void> Pulse::Loop() {
  int misses = 0;
  while (co_await Sleep(timers_, executor_, kPeriod, stop_.get_token())) {
    absl::Status status = co_await Look();
    if (stop_.stop_requested()) co_return;
    misses = status.ok() ? 0 : misses + 1;
    const bool certain = status.ok() || ReasonOf(status) == "DISK_FULL" || misses >= kMisses;
    if (!certain || status.ok() == readiness_.Get().ok()) continue;
    if (status.ok()) {
      log_.Info("ready again", {});
    } else {
      log_.Error("not ready", {{"error", status.message()}});
    }
    readiness_.Set(std::move(status));
  }
}

}  // namespace tutti::state_manager
