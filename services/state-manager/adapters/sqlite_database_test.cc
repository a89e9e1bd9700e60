// What is SQLite's own: the folder, damaged files, full disks, databases of older and newer programs.
#include <sqlite3.h>
#include <sys/stat.h>

#include <cstdlib>

#include "runtime/json/json.h"
#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class SqliteTest : public StoreFixture {
 protected:
  auto Open(const std::string& dir) { return SqliteDatabase::Open({.data_dir = dir}, time_, hub_); }
  static void Script(const std::string& file, const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(file.c_str(), &db), SQLITE_OK);
    char* error = nullptr;
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
    sqlite3_close(db);
  }
};
INSTANTIATE_TEST_SUITE_P(Store, SqliteTest, ::testing::Values(Engine::kSqlite), EngineName);

TEST_P(SqliteTest, AFolderInUseIsRefused) {
  EXPECT_THAT(Open(dir_), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "another state-manager works on"));
}

TEST_P(SqliteTest, ADamagedDatabaseIsRefusedAndLeftAsItIs) {
  ASSERT_THAT(Create("r1"), IsOk());
  database_.reset();
  std::string file = dir_ + "/tutti.db";
  std::filesystem::remove(file + "-wal");
  for (const std::string& rubbish :
       {std::string("this is no database, but it is long enough to look like a file of one"), std::string(8192, 'x')}) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << rubbish;
    EXPECT_THAT(Open(dir_), HasCodeAndText(absl::StatusCode::kDataLoss, "It is left as it is"));
    std::ifstream in(file, std::ios::binary);
    std::string after((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(after, rubbish) << "never overwritten";
  }
}

TEST_P(SqliteTest, ANewerDatabaseIsRefused) {
  database_.reset();
  Script(dir_ + "/tutti.db", "PRAGMA user_version = 999");
  EXPECT_THAT(Open(dir_), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "use the newer program"));
}

TEST_P(SqliteTest, ADatabaseOfTheFirstVersionIsTakenOver) {
  const char* source = getenv("TUTTI_SOURCE");
  ASSERT_NE(source, nullptr) << "run by ctest";
  database_.reset();
  std::filesystem::remove_all(dir_);
  std::filesystem::create_directories(dir_);
  std::ifstream in(absl::StrCat(source, "/services/state-manager/migrations/testdata/version_1.sql"));
  Script(dir_ + "/tutti.db", std::string(std::istreambuf_iterator<char>(in), {}));
  Reopen();
  v1::ListRunsRequest list;
  list.set_page_size(10);
  auto runs = Read(store_->runs, &Runs::ListRuns, list);
  ASSERT_THAT(runs, IsOk());
  ASSERT_EQ(runs->runs_size(), 2);
  auto good = Get(runs->runs(0).run_id()), bad = Get(runs->runs(1).run_id());
  EXPECT_EQ(good.outcome(), v1::OUTCOME_SUCCEEDED);
  EXPECT_EQ(good.input().data(), R"({"n":20})");
  EXPECT_NE(good.output().data().find("key_phrases"), std::string::npos);
  EXPECT_EQ(good.labels().at("team"), "x");
  EXPECT_EQ(bad.outcome(), v1::OUTCOME_FAILED);
  EXPECT_NE(bad.error().message().find("Cannot index number"), std::string::npos);
  auto journal = JournalOf(good.run_id());
  ASSERT_EQ(journal.size(), 8u);
  EXPECT_EQ(journal[2].step_completed().path(), "one");
  EXPECT_EQ(journal[2].step_completed().result().data(), "21");
  v1::GetWorkflowRequest get;
  get.set_name("tiny");
  auto workflow = Read(store_->workflows, &Workflows::GetWorkflow, get);
  ASSERT_THAT(workflow, IsOk());
  EXPECT_EQ(workflow->workflow().spec().data(), good.spec().data());
  v1::ListUsageRequest usage;
  usage.set_group_by("agent");
  usage.set_page_size(10);
  auto used = Read(store_->runs, &Runs::ListUsage, usage);
  ASSERT_EQ(used->rows_size(), 1);
  EXPECT_EQ(used->rows(0).key(), "analyst");
}

TEST_P(SqliteTest, MigratesStepByStepAndSaysWhatItWouldDo) {
  std::string file = absl::StrCat(dir_, "/other.db");
  auto db = *SqliteDb::Open(file, SqliteDb::Mode::kWrite, [] { return int64_t{1}; });
  std::vector<int64_t> reported;
  MigrationTarget target;
  target.dry_run = true;
  target.report = [&](const Migration& migration) { reported.push_back(migration.version); };
  ASSERT_THAT(MigrateSqlite(*db, target), IsOk());
  EXPECT_EQ(reported.size(), Migrations().size());
  target.dry_run = false;
  target.version = 3;
  reported.clear();
  ASSERT_THAT(MigrateSqlite(*db, target), IsOk());
  EXPECT_EQ(reported, (std::vector<int64_t>{1, 2, 3}));
  reported.clear();
  target.version = 2;
  EXPECT_THAT(MigrateSqlite(*db, target),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "there is no way back"));
  target.version = 100;
  EXPECT_THAT(MigrateSqlite(*db, target), HasCodeAndText(absl::StatusCode::kInvalidArgument, "no schema version 100"));
  target.version = MigrationTarget::kLatest;
  ASSERT_THAT(MigrateSqlite(*db, target), IsOk());
  EXPECT_EQ(reported.front(), 4);
}

// As a power cut would leave it: what was acknowledged is in the files, whatever the size of its transaction.
TEST_P(SqliteTest, WhatIsAcknowledgedIsInTheFiles) {
  auto db = *SqliteDb::Open(dir_ + "/power.db", SqliteDb::Mode::kWrite, [] { return int64_t{1}; });
  ASSERT_THAT(db->Execute("CREATE TABLE pieces (number INTEGER PRIMARY KEY, content BLOB NOT NULL)"), IsOk());
  int64_t sum = 0;
  int number = 0;
  // From one page to several MiB; more than a checkpoint's worth in all.
  for (int64_t size :
       {10, 3000, 60000, 65536, 131072, 140000, 300000, 1000000, 1100000, 5000000, 20000000, 10, 70000}) {
    ASSERT_THAT(db->Begin(), IsOk());
    {
      std::string content(static_cast<size_t>(size), static_cast<char>('a' + number));
      Statement insert = db->Prepare("INSERT INTO pieces (number, content) VALUES ($1, $2)");
      ASSERT_THAT(insert.Bind(++number).BindBytes(content).Run(), IsOk());
    }
    ASSERT_THAT(db->Commit(), IsOk());
    sum += size;
    std::string copy = absl::StrCat(dir_, "/copy", number, ".db");
    std::filesystem::copy_file(dir_ + "/power.db", copy);
    std::filesystem::copy_file(dir_ + "/power.db-wal", copy + "-wal");
    auto after = *SqliteDb::Open(copy, SqliteDb::Mode::kWrite, [] { return int64_t{1}; });
    Statement check = after->Prepare("SELECT count(*), sum(length(content)) FROM pieces");
    ASSERT_TRUE(check.Step());
    EXPECT_EQ(check.Int(0), number);
    EXPECT_EQ(check.Int(1), sum);
    Statement whole = after->Prepare("PRAGMA integrity_check");
    ASSERT_TRUE(whole.Step());
    EXPECT_EQ(whole.Text(0), "ok");
    // And another connection, which reads the files by itself, sees it.
    auto reader = *SqliteDb::Open(dir_ + "/power.db", SqliteDb::Mode::kRead, [] { return int64_t{1}; });
    Statement seen = reader->Prepare("SELECT sum(length(content)) FROM pieces");
    ASSERT_TRUE(seen.Step());
    EXPECT_EQ(seen.Int(0), sum);
  }
}

TEST_P(SqliteTest, AnUnusableFolderIsAClearError) {
  std::string file = dir_ + "/plain";
  std::ofstream(file) << "x";
  EXPECT_THAT(Open(file + "/below"),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "choose another with --state-manager.data-dir"));
}

// A disk of its own, which only root may make.
class SmallDiskTest : public SqliteTest {
 protected:
  bool Mount(const std::string& options) {
    return system(absl::StrCat("mount -t tmpfs -o ", options, " tmpfs '", disk_, "' 2>/dev/null").c_str()) == 0;
  }
  bool Remount(const std::string& options) {
    return system(absl::StrCat("mount -o remount,", options, " '", disk_, "' 2>/dev/null").c_str()) == 0;
  }
  ~SmallDiskTest() override {
    database_.reset();
    (void)!system(absl::StrCat("umount '", disk_, "' 2>/dev/null").c_str());
    std::filesystem::remove_all(disk_);
  }
  const std::string disk_ = dir_ + "_disk";
};
INSTANTIATE_TEST_SUITE_P(Store, SmallDiskTest, ::testing::Values(Engine::kSqlite), EngineName);

TEST_P(SmallDiskTest, AFullDiskLosesNothingAndWorksAgainWhenSpaceReturns) {
  std::filesystem::create_directories(disk_);
  if (!Mount("size=2m")) GTEST_SKIP() << "may not mount here";
  database_ = Check(SqliteDatabase::Open({.data_dir = disk_, .spare_bytes = 0}, time_, hub_));
  ASSERT_NE(database_, nullptr);
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  int64_t acknowledged = 0;
  absl::Status status;
  while (acknowledged < 100000) {
    status = Append("r1", 1, acknowledged + 1, 50);
    if (!status.ok()) break;
    acknowledged += 50;
  }
  ASSERT_THAT(status, HasCodeAndText(absl::StatusCode::kUnavailable, "is full; nothing was written"));
  EXPECT_GT(RetryDelayOf(status), absl::ZeroDuration());
  EXPECT_GT(acknowledged, 0);
  EXPECT_EQ(JournalOf("r1").size(), static_cast<size_t>(acknowledged)) << "nothing half-written";
  ASSERT_TRUE(Remount("size=32m"));
  EXPECT_THAT(Append("r1", 1, acknowledged + 1, 50), IsOk());
  EXPECT_EQ(JournalOf("r1").size(), static_cast<size_t>(acknowledged) + 50);
}

TEST_P(SmallDiskTest, WithALogAFullDiskLosesNothingEitherAndIsRead) {
  std::filesystem::create_directories(disk_);
  if (!Mount("size=8m")) GTEST_SKIP() << "may not mount here";
  database_.reset();
  store_ = std::make_unique<StateStore>(StoreOptions(), ids_);
  const size_t spare = size_t{2} << 20;
  auto open = [&] {
    SqliteDatabase::Options options{.data_dir = disk_, .deferrer = &store_->journal, .spare_bytes = spare};
    options.room_pause = std::chrono::milliseconds(0);
    return SqliteDatabase::Open(std::move(options), time_, hub_);
  };
  database_ = Check(open());
  ASSERT_NE(database_, nullptr);
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  int64_t acknowledged = 0;
  absl::Status status;
  auto write = [&](int64_t most) {
    while (acknowledged < most) {
      status = Append("r1", 1, acknowledged + 1, 50);
      if (!status.ok()) return;
      acknowledged += 50;
    }
  };
  write(1000);
  ASSERT_THAT(status, IsOk());
  std::ofstream filler(disk_ + "/filler", std::ios::binary);
  while (filler << std::string(4096, 'f') << std::flush) {
  }
  write(1000000);
  ASSERT_THAT(status, HasCodeAndText(absl::StatusCode::kUnavailable, "is full; nothing was written"));
  EXPECT_GE(acknowledged, 1000);
  EXPECT_EQ(JournalOf("r1").size(), static_cast<size_t>(acknowledged)) << "reads go on";
  EXPECT_THAT(database_->Writable(), HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Create("r2"), HasCodeAndText(absl::StatusCode::kResourceExhausted, "is full; nothing was written"));
  filler.close();
  std::filesystem::remove(disk_ + "/filler");
  EXPECT_EQ(JournalOf("r1").size(), static_cast<size_t>(acknowledged)) << "all of it, and nothing half-written";
  EXPECT_THAT(Append("r1", 1, acknowledged + 1, 50), IsOk());
  EXPECT_THAT(database_->Writable(), IsOk());
  database_.reset();
  store_ = std::make_unique<StateStore>(StoreOptions(), ids_);
  database_ = Check(open());
  EXPECT_EQ(JournalOf("r1").size(), static_cast<size_t>(acknowledged) + 50);
}

TEST_P(SmallDiskTest, AReadOnlyFolderIsAClearError) {
  std::filesystem::create_directories(disk_);
  if (!Mount("size=1m,ro")) GTEST_SKIP() << "may not mount here";
  EXPECT_THAT(Open(disk_),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "choose another with --state-manager.data-dir"));
}

}  // namespace
}  // namespace tutti::state_manager::testing
