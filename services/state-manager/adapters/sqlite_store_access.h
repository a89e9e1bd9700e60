// How the store's queries reach its connections. Only for the sqlite_*.cc files, one of which stands for one service of
// the contract.
#pragma once

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "services/state-manager/adapters/sqlite_store.h"

namespace tutti::state_manager {

inline absl::Status Busy(absl::string_view what) {
  return Error(absl::StatusCode::kResourceExhausted, "STORE_BUSY",
               absl::StrCat("too many ", what, " wait for the database"))
      .RetryAfter(absl::Milliseconds(200));
}

template <class Response>
Task<absl::StatusOr<Response>> SqliteStore::Write(
    Executor& executor, absl::AnyInvocable<absl::Status(SqliteDb&, News&, absl::StatusOr<Response>&)> apply) {
  absl::StatusOr<Response> answer = Response();
  OneShot<absl::Status> done;
  WriteOp op;
  op.apply = [&apply, &answer](SqliteDb& db, News& news) { return apply(db, news, answer); };
  op.finish = [&done](const absl::Status& status) { done.Set(status); };
  Enqueue(std::move(op));
  absl::Status status = co_await done.Wait(executor);
  TUTTI_CO_RETURN_IF_ERROR(status);
  co_return std::move(answer);
}

template <class Response>
Task<absl::StatusOr<Response>> SqliteStore::Read(Executor& executor,
                                                 absl::AnyInvocable<absl::StatusOr<Response>(SqliteDb&)> query) {
  OneShot<absl::StatusOr<Response>> done;
  bool posted = reader_pool_->TryPost([this, &query, &done] {
    std::unique_ptr<SqliteDb> db;
    {
      MutexLock lock(readers_mutex_);
      db = std::move(readers_.back());
      readers_.pop_back();
    }
    absl::StatusOr<Response> answer = query(*db);
    {
      MutexLock lock(readers_mutex_);
      readers_.push_back(std::move(db));
    }
    done.Set(std::move(answer));
  });
  if (!posted) co_return Busy("reads");
  auto answer = co_await done.Wait(executor);
  co_return std::move(answer);
}

}  // namespace tutti::state_manager
