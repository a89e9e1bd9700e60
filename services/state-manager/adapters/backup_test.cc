// Backups under load, on both engines, and from one to the other.
#include "services/state-manager/adapters/backup_store.h"

#include <thread>

#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class BackupTest : public StoreFixture {
 protected:
  tutti::config::v1::StateManager Config(const std::string& dir, const std::string& dsn) {
    tutti::config::v1::StateManager config;
    config.set_data_dir(dir);
    config.mutable_postgres()->set_dsn(dsn);
    config.mutable_postgres()->set_prepared_statements(true);
    config.mutable_postgres()->mutable_statement_timeout()->set_seconds(15);
    config.mutable_postgres()->set_pool_size(4);
    return config;
  }
  tutti::config::v1::StateManager Source() { return Config(dir_, dsn_); }
  // The engine of Fill ends; a restore under a living one is refused.
  void EndEngine() {
    v1::ReleaseInstanceRequest request;
    request.mutable_instance()->set_name("e");
    request.mutable_instance()->set_incarnation("1");
    ASSERT_THAT(Write(store_->leases, &Leases::ReleaseInstance, request), IsOk());
  }
  std::string File() { return absl::StrCat(::testing::TempDir(), "/backup_", getpid(), "_", counter_.load()); }
  void Fill() {
    auto engine = Register("e", "1");
    ASSERT_THAT(Create("ended", &engine), IsOk());
    ASSERT_THAT(Create("open", &engine), IsOk());
    auto end = Entries("ended", 1, 1, 3, /*finish=*/true);
    end.mutable_entries(0)->mutable_step_completed()->mutable_result()->set_data(std::string(5000, 'p'));
    ASSERT_THAT(Append(end), IsOk());
    ASSERT_THAT(Append("open", 1, 1, 2), IsOk());
    v1::StoreMemoryRequest memory;
    memory.mutable_memory()->set_content("remember the backup");
    memory.mutable_memory()->add_tags("x");
    ASSERT_THAT(Write(store_->memories, &Memories::StoreMemory, memory), IsOk());
    v1::AppendAuditRecordRequest audit;
    audit.mutable_record()->set_actor("a");
    audit.mutable_record()->set_action("b");
    audit.mutable_record()->set_outcome("ok");
    ASSERT_THAT(Write(store_->audit, &AuditLog::AppendAuditRecord, audit), IsOk());
    v1::SetBudgetRequest budget;
    budget.mutable_budget()->set_scope("tenants/a");
    budget.mutable_budget()->set_limit_nano_units(7);
    ASSERT_THAT(Write(store_->ledger, &Ledger::SetBudget, budget), IsOk());
  }
  // What was filled in is there and works, in the database that is open now.
  void ExpectFilled() {
    EXPECT_EQ(Get("ended").outcome(), v1::OUTCOME_SUCCEEDED);
    EXPECT_EQ(JournalOf("ended")[0].step_completed().result().data(), std::string(5000, 'p'));
    EXPECT_EQ(Get("ended").usage().calls(), 2);
    v1::SearchMemoriesRequest search;
    search.set_query("backup");
    search.mutable_filter()->add_tags("x");
    EXPECT_EQ(Read(store_->memories, &Memories::SearchMemories, search)->hits_size(), 1);
    EXPECT_EQ(Read(store_->audit, &AuditLog::VerifyAuditLog, v1::VerifyAuditLogRequest())->findings_size(), 0);
    // The open run waits for a new owner; the old one is fenced off.
    EXPECT_THAT(Append("open", 1, 3), HasCode(absl::StatusCode::kAborted));
    auto engine = Register("other", "1");
    auto claimed = Claim(engine);
    ASSERT_EQ(claimed->runs_size(), 1);
    EXPECT_THAT(Append("open", claimed->runs(0).lease_epoch(), 1), IsOk());
    // Numbering goes on.
    v1::StoreMemoryRequest memory;
    memory.mutable_memory()->set_content("after the restore");
    EXPECT_THAT(Write(store_->memories, &Memories::StoreMemory, memory), IsOk());
  }
};
INSTANTIATE_TEST_SUITE_P(Store, BackupTest, ::testing::Values(Engine::kSqlite, Engine::kPostgres), EngineName);

TEST_P(BackupTest, ABackupUnderLoadIsOneStateAndRestoresIntoEitherEngine) {
  Fill();
  auto engine = Register("load", "1");
  std::atomic<bool> stop{false};
  std::atomic<int64_t> written{0};
  std::vector<std::thread> writers;
  for (int w = 0; w < 4; ++w) {
    std::string run = absl::StrCat("load", w);
    ASSERT_THAT(Create(run, &engine), IsOk());
    writers.emplace_back([this, run, &stop, &written] {
      for (int64_t seq = 1; !stop; ++seq) {
        EXPECT_THAT(Append(run, 1, seq), IsOk());
        ++written;
      }
    });
  }
  while (written < 100) std::this_thread::yield();
  auto saved = BackUp(Source(), File());
  int64_t during = written;
  stop = true;
  for (auto& writer : writers) writer.join();
  ASSERT_THAT(saved, IsOk());
  EXPECT_GE(saved->at("journal"), 105);
  EXPECT_LE(saved->at("journal"), during + 5 + 4);
  // Into a new SQLite, and into a new PostgreSQL.
  database_.reset();
  const std::string dir = dir_ + "_restored";
  ASSERT_THAT(Restore(Config(dir, ""), File(), false), IsOk());
  store_ = std::make_unique<StateStore>(StoreOptions(), ids_);
  database_ = Check(SqliteDatabase::Open({.data_dir = dir}, time_, hub_));
  for (int w = 0; w < 4; ++w) {
    std::string run = absl::StrCat("load", w);
    auto journal = JournalOf(run);
    // One state: the run's row and its journal agree.
    EXPECT_EQ(Get(run).usage().calls(), static_cast<int64_t>(journal.size()));
    for (size_t i = 0; i < journal.size(); ++i) ASSERT_EQ(journal[i].seq(), static_cast<int64_t>(i + 1));
  }
  ASSERT_THAT(Sql("DELETE FROM runs WHERE run_id LIKE 'load%'"), IsOk());
  ExpectFilled();
  database_.reset();
  std::filesystem::remove_all(dir);
  auto* server = tutti::testing::SharedPostgres();
  if (server != nullptr) {
    std::string dsn = server->Dsn(*server->NewDatabase());
    ASSERT_THAT(Restore(Config("", dsn), File(), false), IsOk());
    store_ = std::make_unique<StateStore>(StoreOptions(), ids_);
    PostgresOptions options;
    options.dsn = dsn;
    options.time_shift = [this] { return time_.Now() - start_; };
    database_ = Check(PostgresDatabase::Open(options, hub_));
    ASSERT_THAT(Sql("DELETE FROM runs WHERE run_id LIKE 'load%'"), IsOk());
    ExpectFilled();
  }
  std::filesystem::remove(File());
}

TEST_P(BackupTest, RestoreRefusesAStoreThatHoldsSomethingUnlessTold) {
  Fill();
  ASSERT_THAT(BackUp(Source(), File()), IsOk());
  ASSERT_THAT(Create("later"), IsOk());
  EXPECT_THAT(Restore(Source(), File(), true), HasCode(absl::StatusCode::kFailedPrecondition)) << "it is in use";
  EndEngine();
  database_.reset();
  EXPECT_THAT(Restore(Source(), File(), false), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "say --force"));
  ASSERT_THAT(Restore(Source(), File(), true), IsOk());
  Reopen();
  v1::GetRunRequest later;
  later.set_run_id("later");
  EXPECT_THAT(Read(store_->runs, &Runs::GetRun, later), HasCode(absl::StatusCode::kNotFound));
  ExpectFilled();
  std::filesystem::remove(File());
}

TEST_P(BackupTest, WhatIsForgottenIsInNoLaterBackup) {
  v1::StoreMemoryRequest memory;
  memory.mutable_memory()->set_agent("a");
  memory.mutable_memory()->set_content("the zanzibar protocol");
  ASSERT_THAT(Write(store_->memories, &Memories::StoreMemory, memory), IsOk());
  memory.mutable_memory()->set_content("to be kept");
  memory.mutable_memory()->set_agent("b");
  ASSERT_THAT(Write(store_->memories, &Memories::StoreMemory, memory), IsOk());
  // What a backup brings back, into a SQLite whose files can be searched.
  auto brought_back = [this](const char* word) {
    const std::string dir = dir_ + "_restored";
    EXPECT_THAT(BackUp(Source(), File()), IsOk());
    EXPECT_THAT(Restore(Config(dir, ""), File(), false), IsOk());
    const size_t times = TimesInFolder(dir, word);
    std::filesystem::remove_all(dir);
    std::filesystem::remove(File());
    return times;
  };
  EXPECT_GT(brought_back("zanzibar"), 0u);
  v1::ForgetMemoriesRequest request;
  request.mutable_filter()->set_agent("a");
  ASSERT_EQ(Write(store_->memories, &Memories::ForgetMemories, request)->forgotten(), 1);
  EXPECT_EQ(brought_back("zanzibar"), 0u);
  EXPECT_GT(brought_back("to be kept"), 0u);
}

TEST_P(BackupTest, ADamagedFileChangesNothing) {
  Fill();
  ASSERT_THAT(BackUp(Source(), File()), IsOk());
  std::string bytes;
  {
    std::ifstream in(File(), std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  EndEngine();
  database_.reset();
  for (size_t at : {size_t{3}, bytes.size() / 2, bytes.size() - 1}) {
    std::string broken = bytes;
    broken[at] = static_cast<char>(broken[at] ^ 1);
    std::ofstream(File(), std::ios::binary | std::ios::trunc) << broken;
    EXPECT_THAT(Restore(Source(), File(), true), HasCodeAndText(absl::StatusCode::kDataLoss, "is no whole backup"));
  }
  std::ofstream(File(), std::ios::binary | std::ios::trunc) << bytes.substr(0, bytes.size() / 2);
  EXPECT_THAT(Restore(Source(), File(), true), HasCode(absl::StatusCode::kDataLoss));
  EXPECT_THAT(Restore(Source(), File() + ".none", true), HasCodeAndText(absl::StatusCode::kNotFound, "cannot read"));
  Reopen();
  EXPECT_EQ(Get("ended").outcome(), v1::OUTCOME_SUCCEEDED);
  EXPECT_EQ(JournalOf("open").size(), 2u);
  std::filesystem::remove(File());
}

}  // namespace
}  // namespace tutti::state_manager::testing
