#include <algorithm>
#include <functional>

#include "runtime/async/when_all.h"
#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {

template <class Request, class Response>
Task<std::vector<absl::StatusOr<Response>>> LeaseRpc::Everywhere(
    CallContext& call, Request request, absl::Status (Leases::*method)(Transaction&, const Request&, Response&) const) {
  std::vector<Task<absl::StatusOr<Response>>> writes;
  for (size_t i = 0; i < shards_.size(); ++i) {
    auto body = [&leases = leases_, request, method](Transaction& tx, Response& out) {
      return (leases.*method)(tx, request, out);
    };
    writes.push_back(shards_.at(i).Write<Response>(*call.executor, call.deadline, LaneOf("leases"), std::move(body)));
  }
  auto answers = co_await WhenAll(std::move(writes));
  co_return std::move(answers);
}

namespace {

// What is wrong with the request is wrong everywhere; else one database that answers is enough.
template <class Response>
absl::Status Common(const std::vector<absl::StatusOr<Response>>& answers) {
  bool any = false;
  absl::Status worst;
  for (const auto& answer : answers) {
    any |= answer.ok();
    if (absl::IsInvalidArgument(answer.status())) return answer.status();
    if (!answer.ok() && (worst.ok() || absl::IsFailedPrecondition(answer.status()))) worst = answer.status();
  }
  return any ? absl::OkStatus() : worst;
}

constexpr int64_t kMostCounted = 200000;
constexpr size_t kMostTenants = 1000;
// Counting takes at most a twentieth of the time.
constexpr int kCountPause = 19;
constexpr absl::Duration kCountPatience = absl::Milliseconds(100);
constexpr size_t kClaimBytes = size_t{1} << 20;
// What goes along with a claim.
constexpr int kShortJournal = 200;
constexpr size_t kJournalBytes = size_t{64} << 10;
constexpr size_t kJournalsBytes = size_t{1} << 20;

void SetClaimable(const std::vector<std::map<std::string, int64_t>>& by_database, v1::HeartbeatResponse& response) {
  std::map<absl::string_view, int64_t> counts;
  for (const auto& database : by_database) {
    for (const auto& [tenant, runs] : database) counts[tenant] += runs;
  }
  std::vector<std::pair<int64_t, absl::string_view>> most;
  int64_t sum = 0;
  for (const auto& [tenant, runs] : counts) {
    sum += runs;
    most.emplace_back(runs, tenant);
  }
  std::sort(most.begin(), most.end(), std::greater<>());
  if (most.size() > kMostTenants) most.resize(kMostTenants);
  for (const auto& [runs, tenant] : most) (*response.mutable_claimable_by_tenant())[std::string(tenant)] = runs;
  response.set_claimable_runs(sum);
}

}  // namespace

TUTTI_STORE_ENTRY_(LeaseRpc, LeaseService, RegisterInstance) {
  auto answers = co_await Everywhere(call, request, &Leases::RegisterInstance);
  for (const auto& answer : answers) {
    if (answer.ok() && !response.has_rank()) response = *answer;
  }
  co_return Common(answers);
}

TUTTI_STORE_ENTRY_(LeaseRpc, LeaseService, Heartbeat) {
  auto answers = co_await Everywhere(call, request, &Leases::Heartbeat);
  absl::Status common = Common(answers);
  TUTTI_CO_RETURN_IF_ERROR(common);
  for (const auto& answer : answers) {
    if (!answer.ok()) continue;
    *response.mutable_lease_duration() = answer->lease_duration();
    if (!response.has_rank()) *response.mutable_rank() = answer->rank();
    response.mutable_cancel_run_ids()->MergeFrom(answer->cancel_run_ids());
    for (const auto& [run_id, seq] : answer->inboxes()) (*response.mutable_inboxes())[run_id] = seq;
  }
  for (size_t i = 0; i < answers.size(); ++i) {
    if (!absl::IsFailedPrecondition(answers[i].status())) continue;
    // A database that was away for longer than the lease knows the engine no more. It comes back as the one it was:
    // what others took there meanwhile they hold under new epochs.
    v1::RegisterInstanceRequest again;
    *again.mutable_instance() = request.instance();
    *again.mutable_lease_duration() = response.lease_duration();
    auto body = [&leases = leases_, again](Transaction& tx, v1::RegisterInstanceResponse& out) {
      return leases.Rejoin(tx, again, out);
    };
    auto joined = co_await shards_.at(i).Write<v1::RegisterInstanceResponse>(*call.executor, call.deadline,
                                                                             LaneOf("leases"), std::move(body));
    if (absl::IsFailedPrecondition(joined.status())) co_return joined.status();
  }
  co_await CountClaimable(call);
  SetClaimable(claimable_, response);
  co_return absl::OkStatus();
}

// The heartbeat waits a moment for the count and no longer: a database that is slow to answer, or away, must not cost
// an engine its lease.
Task<void> LeaseRpc::CountClaimable(CallContext& call) {
  if (counting_ || env_.clock.Now() < count_again_) co_return;
  auto done = std::make_shared<OneShot<bool>>();
  counting_ = true;
  if (!env_.scope.Spawn(env_.executor, Count(done))) {
    counting_ = false;
    co_return;
  }
  Access& home = shards_.home();
  const uint64_t timer = home.BeforeDeadline(env_.clock.Now() + kCountPatience, [done] { done->Set(false); });
  co_await done->Wait(*call.executor);
  home.Cancel(timer);
}

Task<void> LeaseRpc::Count(std::shared_ptr<OneShot<bool>> done) {
  using Counts = std::map<std::string, int64_t>;
  const absl::Time begin = env_.clock.Now();
  claimable_.resize(shards_.size());
  for (size_t i = 0; i < shards_.size(); ++i) {
    auto body = [](Transaction& tx, Counts& out) {
      auto counts = Leases::CountFree(tx, kMostCounted);
      if (counts.ok()) out = *std::move(counts);
      return counts.status();
    };
    auto counts = co_await shards_.at(i).Read<Counts>(env_.executor, absl::InfiniteFuture(), /*allow_stale=*/false,
                                                      std::move(body));
    if (counts.ok()) claimable_[i] = *std::move(counts);  // what a database that is away holds waits still
  }
  counting_ = false;
  const absl::Time end = env_.clock.Now();
  count_again_ = end + kCountPause * (end - begin);
  done->Set(true);
}

// Each database gives its share, so that none waits behind another that has much. What does not fit the answer is
// leased to the engine and not held by it: it comes with the next claim.
TUTTI_STORE_ENTRY_(LeaseRpc, LeaseService, ClaimRuns) {
  v1::ClaimRunsRequest share = request;
  const auto shards = static_cast<int>(shards_.size());
  share.set_max_runs((request.max_runs() + shards - 1) / shards);
  auto answers = co_await Everywhere(call, share, &Leases::ClaimRuns);
  absl::Status common = Common(answers);
  TUTTI_CO_RETURN_IF_ERROR(common);
  size_t bytes = 0;
  for (auto& answer : answers) {
    if (!answer.ok()) continue;
    for (auto& run : *answer->mutable_runs()) {
      bytes += run.ByteSizeLong();
      bool full = response.runs_size() >= std::max(1, request.max_runs()) || bytes > kClaimBytes;
      if (response.runs_size() > 0 && full) break;
      *response.add_runs() = std::move(run);
    }
  }
  // Short journals come along: a run that was only woken costs no call of its own.
  for (size_t i = 0; i < shards_.size(); ++i) {
    std::vector<std::string> ids;
    std::vector<int> at;
    for (int k = 0; k < response.runs_size(); ++k) {
      if (shards_.IndexOf(response.runs(k).run_id()) != i) continue;
      ids.push_back(response.runs(k).run_id());
      at.push_back(k);
    }
    while (response.journals_size() < response.runs_size()) response.add_journals();
    if (ids.empty()) continue;
    using Journals = std::vector<v1::ReadJournalResponse>;
    auto body = [&journal = journal_, ids](Transaction& tx, Journals& out) -> absl::Status {
      size_t total = 0;
      for (const auto& id : ids) {
        out.emplace_back();
        if (total > kJournalsBytes) continue;
        bool cut = false;
        auto page = journal.ReadPage(tx, id, 0, kShortJournal + 1, /*inbox_only=*/false, &cut);
        TUTTI_RETURN_IF_ERROR(tx.failure());
        bool whole = page.ok() && !cut && page->entries_size() <= kShortJournal;
        if (!whole || page->ByteSizeLong() > kJournalBytes) continue;
        total += page->ByteSizeLong();
        out.back() = *std::move(page);
      }
      return absl::OkStatus();
    };
    auto journals =
        co_await shards_.at(i).Read<Journals>(*call.executor, call.deadline, /*allow_stale=*/false, std::move(body));
    if (!journals.ok()) continue;  // each is read when its run is begun
    for (size_t k = 0; k < at.size(); ++k) *response.mutable_journals(at[k]) = std::move((*journals)[k]);
  }
  co_return absl::OkStatus();
}

TUTTI_STORE_ENTRY_(LeaseRpc, LeaseService, ReleaseInstance) {
  auto answers = co_await Everywhere(call, request, &Leases::ReleaseInstance);
  co_return Common(answers);
}

Task<absl::Status> LeaseRpc::HandleWatch(CallContext& call, const v1::WatchInstanceRequest& request,
                                         StreamWriter<v1::WatchInstanceResponse>& writer) {
  auto news = hub_.WatchInstance(request.instance().name(), *call.executor);
  std::stop_callback on_stop(call.stop, [news] { news->Close(); });
  for (;;) {
    auto item = co_await news->Pop();
    if (!item.has_value()) co_return absl::CancelledError("the watcher has gone, or another took its place");
    v1::WatchInstanceResponse out;
    out.set_runs_claimable(item->runs_claimable);
    out.set_cancel_run_id(item->cancel_run_id);
    out.set_inbox_run_id(item->inbox_run_id);
    out.set_ended_run_id(item->ended_run_id);
    if (!co_await writer.Write(out)) co_return absl::CancelledError("the watcher has gone");
  }
}

}  // namespace tutti::state_manager
