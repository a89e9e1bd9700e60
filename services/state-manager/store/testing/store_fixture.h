// The conformance suite's ground: every test of the store runs on every engine. A new engine is one more case in
// OpenDatabase.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/random/random.h"
#include "runtime/status/error.h"
#include "runtime/status/mapping.h"
#include "runtime/status/testing/matchers.h"
#include "runtime/time/testing/manual_time.h"
#include "services/state-manager/adapters/postgres_database.h"
#include "services/state-manager/adapters/sqlite_database.h"
#include "services/state-manager/domain/watch_hub.h"
#include "services/state-manager/store/state_store.h"
#include "tests/support/postgres_server.h"

namespace tutti::state_manager::testing {

using tutti::testing::HasCode;
using tutti::testing::HasCodeAndText;
using tutti::testing::IsOk;

enum class Engine { kMemory, kSqlite, kPostgres };

inline std::string EngineName(const ::testing::TestParamInfo<Engine>& info) {
  switch (info.param) {
    case Engine::kMemory:
      return "Memory";
    case Engine::kSqlite:
      return "Sqlite";
    default:
      return "Postgres";
  }
}

inline constexpr Engine kAllEngines[] = {Engine::kMemory, Engine::kSqlite, Engine::kPostgres};

// How often `word` stands in the files of `folder`.
inline size_t TimesInFolder(const std::string& folder, const std::string& word) {
  size_t count = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(file.path(), std::ios::binary);
    const std::string all((std::istreambuf_iterator<char>(in)), {});
    for (size_t at = all.find(word); at != std::string::npos; at = all.find(word, at + 1)) ++count;
  }
  return count;
}

// A database migrated once, of which the others are copies.
inline std::string TemplateDatabase() {
  static const std::string* name = [] {
    auto made = tutti::testing::SharedPostgres()->NewDatabase();
    PostgresOptions options;
    options.dsn = tutti::testing::SharedPostgres()->Dsn(*made);
    absl::Status status = MigratePostgres(options, MigrationTarget());
    EXPECT_TRUE(status.ok()) << status;
    return new std::string(*made);
  }();
  return *name;
}

class StoreFixture : public ::testing::TestWithParam<Engine> {
 protected:
  StoreFixture()
      : dir_(absl::StrCat(::testing::TempDir(), "/tutti_store_", getpid(), "_", ++counter_)), start_(time_.Now()) {}
  ~StoreFixture() override {
    database_.reset();
    std::filesystem::remove_all(dir_);
  }

  void SetUp() override {
    if (GetParam() == Engine::kPostgres) {
      auto* server = tutti::testing::SharedPostgres();
      if (server == nullptr) GTEST_SKIP() << "PostgreSQL is not installed";
      auto made = server->NewDatabase(TemplateDatabase());
      ASSERT_TRUE(made.ok()) << made.status();
      dsn_ = server->Dsn(*made);
    }
    Reopen();
  }

  virtual StateStore::Options StoreOptions() { return {}; }
  virtual void Adjust(PostgresOptions&) {}

  // Another database object on the same data, as a second state-manager has (PostgreSQL only).
  std::unique_ptr<Database> OpenDatabase(NewsListener& listener) {
    switch (GetParam()) {
      case Engine::kMemory:
        return Check(SqliteDatabase::Open({}, time_, listener));
      case Engine::kSqlite:
        return Check(SqliteDatabase::Open({.data_dir = dir_, .deferrer = &store_->journal}, time_, listener));
      default: {
        PostgresOptions options;
        options.dsn = dsn_;
        options.time_shift = [this] { return time_.Now() - start_; };
        Adjust(options);
        return Check(PostgresDatabase::Open(options, listener));
      }
    }
  }
  // A new process over the same data, except in memory.
  void Reopen() {
    database_.reset();
    store_ = std::make_unique<StateStore>(StoreOptions(), ids_);
    database_ = OpenDatabase(hub_);
    ASSERT_NE(database_, nullptr);
  }
  bool Persists() const { return GetParam() != Engine::kMemory; }

  // Blocking calls of an area's operation.
  template <class Area, class Request, class Response>
  absl::StatusOr<Response> Write(const Area& area,
                                 absl::Status (Area::*method)(Transaction&, const Request&, Response&) const,
                                 const Request& request, Database* database = nullptr) {
    return Transact<Response>([&](Transaction& tx, Response& out) { return (area.*method)(tx, request, out); },
                              database);
  }
  template <class Area, class Request, class Response>
  absl::StatusOr<Response> Read(const Area& area,
                                absl::Status (Area::*method)(Transaction&, const Request&, Response&) const,
                                const Request& request, Database* database = nullptr) {
    return Query<Response>([&](Transaction& tx, Response& out) { return (area.*method)(tx, request, out); }, database);
  }
  template <class Response, class Body>
  absl::StatusOr<Response> Transact(Body body, Database* database = nullptr) {
    Response response;
    std::promise<absl::Status> done;
    WriteOp op;
    op.lane = lane_++;
    op.apply = [&](Transaction& tx) {
      response = Response();
      return body(tx, response);
    };
    op.finish = [&](const absl::Status& status) { done.set_value(status); };
    if (!database) database = database_.get();
    if (!database) return absl::FailedPreconditionError("the test's database did not open");
    database->Write(std::move(op));
    absl::Status status = done.get_future().get();
    if (!status.ok()) return status;
    return response;
  }
  template <class Response, class Body>
  absl::StatusOr<Response> Query(Body body, Database* database = nullptr) {
    Response response;
    std::promise<absl::Status> done;
    ReadOp op;
    op.query = [&](Transaction& tx) {
      response = Response();
      return body(tx, response);
    };
    op.finish = [&](const absl::Status& status) { done.set_value(status); };
    if (!database) database = database_.get();
    if (!database) return absl::FailedPreconditionError("the test's database did not open");
    database->Read(std::move(op));
    absl::Status status = done.get_future().get();
    if (!status.ok()) return status;
    return response;
  }
  // The first column of the first row.
  int64_t Number(const std::string& sql) {
    auto answer = Query<int64_t>([&](Transaction& tx, int64_t& out) {
      Statement row = tx.Prepare(sql);
      out = row.Step() ? row.Int(0) : -1;
      return row.status();
    });
    EXPECT_THAT(answer, IsOk());
    return answer.value_or(-1);
  }
  absl::Status Sql(const std::string& sql) {
    return Transact<int>([&](Transaction& tx, int&) { return tx.Prepare(sql).Run(); }).status();
  }

  // Runs.
  v1::InstanceRef Register(const std::string& name, const std::string& incarnation) {
    v1::RegisterInstanceRequest request;
    request.mutable_instance()->set_name(name);
    request.mutable_instance()->set_incarnation(incarnation);
    request.mutable_lease_duration()->set_seconds(5);
    EXPECT_THAT(Write(store_->leases, &Leases::RegisterInstance, request), IsOk());
    return request.instance();
  }
  // Time passes, and the engine lives.
  void PassWithHeartbeats(const v1::InstanceRef& engine, absl::Duration time) {
    constexpr absl::Duration kBeat = absl::Seconds(2);
    for (; time > absl::ZeroDuration(); time -= kBeat) {
      time_.Advance(std::min(time, kBeat));
      v1::HeartbeatRequest beat;
      *beat.mutable_instance() = engine;
      EXPECT_THAT(Write(store_->leases, &Leases::Heartbeat, beat), IsOk());
    }
  }
  absl::StatusOr<v1::CreateRunResponse> Create(const std::string& id, const v1::InstanceRef* owner = nullptr,
                                               const std::string& request_id = "") {
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(id);
    request.mutable_run()->set_workflow("w");
    request.mutable_run()->set_request_id(request_id);
    request.mutable_run()->mutable_input()->set_data("{\"n\":1}");
    if (owner) *request.mutable_owner() = *owner;
    return Write(store_->runs, &Runs::CreateRun, request);
  }
  static v1::AppendRequest Entries(const std::string& run, int64_t epoch, int64_t writer_seq, int entries = 1,
                                   bool finish = false) {
    v1::AppendRequest request;
    request.set_run_id(run);
    request.set_lease_epoch(epoch);
    request.set_writer_seq(writer_seq);
    for (int i = 0; i < entries; ++i) {
      auto* entry = request.add_entries();
      if (finish && i + 1 == entries) {
        entry->mutable_run_finished()->set_outcome(v1::OUTCOME_SUCCEEDED);
        entry->mutable_run_finished()->mutable_output()->set_data("42");
        continue;
      }
      auto* completed = entry->mutable_step_completed();
      completed->set_path(absl::StrCat("s", writer_seq + i));
      auto* usage = completed->add_usage();
      usage->set_agent("a");
      usage->set_provider("p");
      usage->set_model("m");
      usage->set_calls(1);
      usage->set_input_tokens(10);
      usage->set_output_tokens(5);
      usage->set_cost_nano_units(3);
      usage->set_currency_code("USD");
    }
    return request;
  }
  absl::Status Append(const v1::AppendRequest& request, int64_t* last_seq = nullptr, Database* database = nullptr) {
    std::promise<v1::AppendResponse> done;
    store_->journal.Append(database ? *database : *database_, request,
                           [&done](v1::AppendResponse response) { done.set_value(std::move(response)); });
    v1::AppendResponse response = done.get_future().get();
    if (last_seq) *last_seq = response.last_seq();
    return FromRpcStatus(response.status());
  }
  absl::Status Append(const std::string& run, int64_t epoch, int64_t writer_seq, int entries = 1, bool finish = false) {
    return Append(Entries(run, epoch, writer_seq, entries, finish));
  }
  v1::StoredRun Get(const std::string& id) {
    v1::GetRunRequest request;
    request.set_run_id(id);
    auto answer = Read(store_->runs, &Runs::GetRun, request);
    EXPECT_THAT(answer, IsOk());
    return answer.ok() ? answer->run() : v1::StoredRun();
  }
  std::vector<v1::JournalEntry> JournalOf(const std::string& id, Database* database = nullptr) {
    std::vector<v1::JournalEntry> out;
    for (;;) {
      int64_t after = out.empty() ? 0 : out.back().seq();
      auto answer = Query<v1::ReadJournalResponse>(
          [&](Transaction& tx, v1::ReadJournalResponse& page) {
            auto read = store_->journal.ReadPage(tx, id, after, 1000);
            if (read.ok()) page = *read;
            return read.status();
          },
          database);
      EXPECT_THAT(answer, IsOk());
      if (!answer.ok() || answer->entries().empty()) return out;
      out.insert(out.end(), answer->entries().begin(), answer->entries().end());
    }
  }
  absl::StatusOr<v1::ClaimRunsResponse> Claim(const v1::InstanceRef& instance, int max = 100) {
    v1::ClaimRunsRequest request;
    *request.mutable_instance() = instance;
    request.set_max_runs(max);
    return Write(store_->leases, &Leases::ClaimRuns, request);
  }
  absl::Status Beat(const v1::InstanceRef& instance) {
    v1::HeartbeatRequest request;
    *request.mutable_instance() = instance;
    return Write(store_->leases, &Leases::Heartbeat, request).status();
  }

  template <class T>
  static std::unique_ptr<Database> Check(absl::StatusOr<T> opened) {
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? *std::move(opened) : nullptr;
  }

  static inline std::atomic<int> counter_{0};
  const std::string dir_;
  std::string dsn_;
  tutti::testing::ManualTime time_;
  const absl::Time start_;
  Xoshiro rng_{42};
  IdSource ids_{time_, rng_};
  WatchHub hub_;
  std::atomic<uint64_t> lane_{0};
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<Database> database_;
};

#define TUTTI_ON_ALL_ENGINES(Suite) INSTANTIATE_TEST_SUITE_P(Store, Suite, ::testing::ValuesIn(kAllEngines), EngineName)

}  // namespace tutti::state_manager::testing
