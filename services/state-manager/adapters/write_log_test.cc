// The log of writes that are not in the tables yet: its file, and a store that is cut off with some of them in it.
#include "services/state-manager/adapters/write_log.h"

#include <array>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "services/state-manager/adapters/backup_store.h"
#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

std::string Slurp(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void Spill(const std::string& file, const std::string& content) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << content;
}

class WriteLogTest : public ::testing::Test {
 protected:
  WriteLogTest() { std::filesystem::remove(file_); }
  ~WriteLogTest() override { std::filesystem::remove(file_); }
  std::unique_ptr<WriteLog> Open(uint64_t applied = 0) {
    auto log = WriteLog::Open(file_, applied);
    EXPECT_THAT(log, IsOk());
    return log.ok() ? *std::move(log) : nullptr;
  }
  // Three records of generation 1.
  void Fill() {
    auto log = Open();
    log->BeginGeneration(1);
    for (const auto& record : records_) ASSERT_THAT(log->Append(record), IsOk());
  }
  size_t EndOf(size_t records) const {
    size_t at = 0;
    for (size_t i = 0; i < records; ++i) at += (32 + records_[i].size() + 31) / 32 * 32;
    return at;
  }
  const std::string file_ = absl::StrCat(::testing::TempDir(), "/tutti_write_log_", getpid());
  const std::vector<std::string> records_ = {"one", std::string(100000, 'x'), std::string("nul\0nul", 7)};
};

TEST_F(WriteLogTest, RecordsComeBackInOrder) {
  Fill();
  auto log = Open();
  EXPECT_EQ(log->found(), records_);
  EXPECT_EQ(log->generation(), 1u);
  EXPECT_EQ(WriteLog::GenerationOf(file_), 1u);
  EXPECT_TRUE(Open(1)->found().empty()) << "they are in the tables";
}

TEST_F(WriteLogTest, TheNextGenerationWritesOverTheLast) {
  Fill();
  auto log = Open(1);
  log->BeginGeneration(2);
  ASSERT_THAT(log->Append("two"), IsOk());
  log = Open(1);
  EXPECT_EQ(log->found(), std::vector<std::string>{"two"}) << "and what follows it is of generation 1";
}

TEST_F(WriteLogTest, ALastRecordThatIsHalfThereWasNotAcknowledged) {
  Fill();
  const std::string whole = Slurp(file_);
  for (size_t cut : {EndOf(3) - 1, EndOf(2) + 38, EndOf(2) + 31, EndOf(2) + 1, EndOf(2)}) {
    std::string torn = whole;
    std::fill(torn.begin() + static_cast<int64_t>(cut), torn.end(), '\0');
    Spill(file_, torn);
    // The padding after a record says nothing.
    size_t found = cut == EndOf(3) - 1 ? 3 : 2;
    EXPECT_EQ(Open()->found().size(), found) << cut;
  }
  Spill(file_, whole.substr(0, EndOf(2) + 10));
  EXPECT_EQ(Open()->found().size(), 2u);
}

TEST_F(WriteLogTest, DamageBeforeTheLastRecordIsToldOf) {
  Fill();
  const std::string whole = Slurp(file_);
  for (size_t at : {size_t{0}, size_t{5}, size_t{20}, size_t{33}, EndOf(1), EndOf(1) + 50000}) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    Spill(file_, damaged);
    EXPECT_THAT(WriteLog::Open(file_, 0), HasCodeAndText(absl::StatusCode::kDataLoss, "acknowledged writes")) << at;
    EXPECT_EQ(Slurp(file_), damaged) << "left as it is";
    EXPECT_THAT(WriteLog::Open(file_, 1), IsOk()) << "nobody needs it any more";
  }
}

TEST_F(WriteLogTest, AFullLogTakesNothingUntilTheNextGeneration) {
  auto log = Open();
  log->BeginGeneration(1);
  const std::string big(size_t{1} << 20, 'b');
  int taken = 0;
  while (log->Fits(big.size())) {
    ASSERT_THAT(log->Append(big), IsOk());
    ++taken;
  }
  EXPECT_EQ(taken, 7);
  EXPECT_THAT(log->Append(big), HasCode(absl::StatusCode::kResourceExhausted));
  EXPECT_LE(std::filesystem::file_size(file_), WriteLog::kCapacity);
  log->BeginGeneration(2);
  EXPECT_THAT(log->Append(big), IsOk());
  log->BeginGeneration(3);
  log->Wipe();
  EXPECT_EQ(Slurp(file_).find('b'), std::string::npos);
}

// A store whose deferred writes stay in the log until something needs them in the tables.
class LoggedStoreTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    Reopen(dir_);
  }
  void Reopen(const std::string& dir, std::chrono::milliseconds longest_behind = std::chrono::hours(1)) {
    database_.reset();
    store_ = std::make_unique<StateStore>(StoreOptions(), ids_);
    database_ = Open(dir, *store_, longest_behind);
    live_ = dir;
    ASSERT_NE(database_, nullptr);
  }
  std::unique_ptr<Database> Open(const std::string& dir, StateStore& store, std::chrono::milliseconds longest_behind) {
    return Check(SqliteDatabase::Open({.data_dir = dir,
                                       .deferrer = &store.journal,
                                       .idle_after = std::chrono::hours(1),
                                       .longest_behind = longest_behind},
                                      time_, hub_));
  }
  // As a process that is killed now leaves it.
  std::string CutOff() {
    std::string copy = absl::StrCat(dir_, "_cut", ++cuts_);
    std::filesystem::copy(live_, copy);
    copies_.push_back(copy);
    return copy;
  }
  ~LoggedStoreTest() override {
    database_.reset();
    other_database_.reset();
    for (const auto& copy : copies_) std::filesystem::remove_all(copy);
  }
  absl::StatusOr<v1::CreateRunResponse> CreateLogged(const std::string& id, const v1::InstanceRef& owner,
                                                     const std::string& request_id = "") {
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(id);
    request.mutable_run()->set_workflow("w");
    request.mutable_run()->set_request_id(request_id);
    request.mutable_run()->mutable_input()->set_data(absl::StrCat("{\"n\":\"", std::string(1500, 'n'), "\"}"));
    *request.mutable_owner() = owner;
    std::promise<absl::StatusOr<v1::CreateRunResponse>> done;
    store_->journal.Create(*database_, request, [&](auto answer) { done.set_value(std::move(answer)); });
    return done.get_future().get();
  }
  // Of the tables, without waiting for the log.
  int64_t InTables(const std::string& sql) {
    auto db = *SqliteDb::Open(live_ + "/tutti.db", SqliteDb::Mode::kRead, [] { return int64_t{1}; });
    Statement row = db->Prepare(sql);
    return row.Step() ? row.Int(0) : -1;
  }
  // Everything of the runs, as text.
  std::string Everything(const std::vector<std::string>& runs) {
    std::string out;
    for (const auto& id : runs) {
      absl::StrAppend(&out, Get(id).ShortDebugString(), "\n");
      for (const auto& entry : JournalOf(id)) absl::StrAppend(&out, entry.ShortDebugString(), "\n");
    }
    return out;
  }
  // What the log must not change, beside it.
  std::unique_ptr<StateStore> other_;
  std::unique_ptr<Database> other_database_;
  std::string live_;  // the folder of database_
  int cuts_ = 0;
  std::vector<std::string> copies_;
};
INSTANTIATE_TEST_SUITE_P(Store, LoggedStoreTest, ::testing::Values(Engine::kSqlite), EngineName);

TEST_P(LoggedStoreTest, WhatIsAcknowledgedOutlivesAProcessThatIsKilled) {
  auto engine = Register("e", "1");
  ASSERT_THAT(CreateLogged("r1", engine, "please"), IsOk());
  ASSERT_THAT(CreateLogged("r2", engine), IsOk());
  int64_t last_seq = 0;
  ASSERT_THAT(Append(Entries("r1", 1, 1, 3), &last_seq), IsOk());
  EXPECT_EQ(last_seq, 3);
  ASSERT_THAT(Append("r2", 1, 1), IsOk());
  ASSERT_THAT(Append("r1", 1, 4, 2, /*finish=*/true), IsOk());
  EXPECT_EQ(InTables("SELECT count(*) FROM runs"), 0) << "they are in the log";
  std::string cut = CutOff();
  auto before = Everything({"r1", "r2"});
  EXPECT_EQ(InTables("SELECT count(*) FROM journal"), 6) << "who reads has them put into the tables";
  Reopen(cut);
  EXPECT_EQ(Everything({"r1", "r2"}), before);
  EXPECT_EQ(Get("r1").outcome(), v1::OUTCOME_SUCCEEDED);
  EXPECT_EQ(Get("r1").usage().calls(), 4);
  EXPECT_EQ(Number("SELECT count(*) FROM usage"), 5);
  EXPECT_EQ(Number("SELECT count(*) FROM payloads"), 1) << "one input, twice";
  // And it goes on: the open run under its epoch, the request id where it was.
  EXPECT_THAT(Append("r2", 1, 2), IsOk());
  auto again = CreateLogged("r3", engine, "please");
  ASSERT_THAT(again, IsOk());
  EXPECT_FALSE(again->created());
  EXPECT_EQ(again->run().run_id(), "r1");
}

TEST_P(LoggedStoreTest, RequestsThatAreRepeatedActOnce) {
  auto engine = Register("e", "1");
  ASSERT_TRUE(CreateLogged("r1", engine, "please")->created());
  auto same = CreateLogged("r1", engine, "please");
  ASSERT_THAT(same, IsOk());
  EXPECT_FALSE(same->created());
  auto other = CreateLogged("r2", engine, "please");
  ASSERT_THAT(other, IsOk());
  EXPECT_FALSE(other->created());
  EXPECT_EQ(other->run().run_id(), "r1");
  ASSERT_THAT(Append("r1", 1, 1, 2), IsOk());
  int64_t last_seq = 0;
  EXPECT_THAT(Append(Entries("r1", 1, 1, 2), &last_seq), IsOk());
  EXPECT_EQ(last_seq, 2);
  EXPECT_THAT(Append("r1", 1, 5), HasCode(absl::StatusCode::kFailedPrecondition)) << "a gap";
  ASSERT_THAT(Append("r1", 1, 3, 1, /*finish=*/true), IsOk());
  EXPECT_THAT(Append("r1", 1, 4), HasCode(absl::StatusCode::kFailedPrecondition)) << "it has ended";
  EXPECT_EQ(JournalOf("r1").size(), 3u);
}

TEST_P(LoggedStoreTest, AnOwnerThatWasReplacedWritesNothing) {
  auto old = Register("e", "1");
  ASSERT_THAT(CreateLogged("r1", old), IsOk());
  ASSERT_THAT(Append("r1", 1, 1), IsOk());
  time_.Advance(absl::Seconds(6));  // its lease is over
  auto young = Register("e2", "1");
  auto claimed = Claim(young);
  ASSERT_THAT(claimed, IsOk());
  ASSERT_EQ(claimed->runs_size(), 1);
  EXPECT_EQ(InTables("SELECT count(*) FROM journal"), 1) << "before others write, the log is in the tables";
  EXPECT_THAT(Append("r1", 1, 2), HasCode(absl::StatusCode::kAborted));
  EXPECT_THAT(Append("r1", 2, 1), IsOk());
  EXPECT_THAT(CreateLogged("r2", old), HasCode(absl::StatusCode::kFailedPrecondition)) << "not a living owner";
  Reopen(CutOff());
  EXPECT_EQ(JournalOf("r1").size(), 2u);
}

// Random writes of all kinds, in this store and in one without a log, cut off at random moments: the same answers, and
// the same content in the end.
TEST_P(LoggedStoreTest, BehavesAsAStoreWithoutALog) {
  const char* given = getenv("TUTTI_TEST_SEED");
  const uint64_t seed = given ? std::strtoull(given, nullptr, 10) : Xoshiro::SeedFromSystem();
  SCOPED_TRACE(absl::StrCat("TUTTI_TEST_SEED=", seed));
  Xoshiro rng{seed};
  auto both = [&](const std::function<std::string()>& write) {
    std::string logged = write();
    std::swap(store_, other_);
    std::swap(database_, other_database_);
    std::string expected = write();
    std::swap(store_, other_);
    std::swap(database_, other_database_);
    ASSERT_EQ(logged, expected);
  };
  other_ = std::make_unique<StateStore>(StoreOptions(), ids_);
  other_database_ = Check(SqliteDatabase::Open({}, time_, hub_));
  v1::InstanceRef engine;
  engine.set_name("e");
  engine.set_incarnation("1");
  both([&] { return Register("e", "1").name(); });
  bool at_once = false;
  std::vector<std::string> runs;
  std::map<std::string, int64_t> epochs, next;
  for (int i = 0; i < 400 && !HasFatalFailure(); ++i) {
    uint64_t dice = rng.Next() % 100;
    std::string run = runs.empty() ? "none" : runs[rng.Next() % runs.size()];
    if (dice < 15 || runs.empty()) {
      run = absl::StrCat("run", i);
      std::string request_id = rng.Next() % 2 ? absl::StrCat("req", rng.Next() % 20) : "";
      bool created = false;
      both([&] {
        auto answer = CreateLogged(run, engine, request_id);
        created = answer.ok() && answer->created();
        return answer.ok() ? answer->ShortDebugString() : answer.status().ToString();
      });
      if (!created) continue;
      runs.push_back(run);
      epochs[run] = 1;
      next[run] = 1;
    } else if (dice < 80) {
      int entries = 1 + static_cast<int>(rng.Next() % 3);
      bool finish = rng.Next() % 8 == 0, wrong = rng.Next() % 10 == 0;
      v1::AppendRequest request =
          Entries(run, epochs[run] + (wrong && rng.Next() % 2), next[run] + (wrong ? 1 : 0), entries, finish);
      if (rng.Next() % 10 == 0) {
        request.mutable_entries(0)->mutable_step_completed()->mutable_result()->set_data(std::string(3000, 'p'));
      }
      bool written = false;
      both([&] {
        int64_t last_seq = 0;
        absl::Status status = Append(request, &last_seq);
        written = status.ok();
        return absl::StrCat(status.ToString(), " ", last_seq);
      });
      if (written && !wrong) next[run] += entries;
    } else if (dice < 86) {  // parked, then claimed again
      v1::AppendRequest request = Entries(run, epochs[run], next[run], 1);
      request.mutable_entries(0)->mutable_run_parked();
      both([&] { return Append(request).ToString(); });
      v1::ClaimRunsResponse claimed;
      both([&] {
        EXPECT_THAT(Sql("UPDATE runs SET waiting = 0 WHERE waiting = 1"), IsOk());
        claimed = *Claim(engine);
        return claimed.ShortDebugString();
      });
      for (const auto& one : claimed.runs()) {
        epochs[one.run_id()] = one.lease_epoch();
        next[one.run_id()] = 1;
      }
    } else if (dice < 92) {
      both([&] { return Get(run).ShortDebugString(); });
    } else if (dice < 96) {
      both([&] { return Beat(engine).ToString(); });
      time_.Advance(absl::Milliseconds(10));
    } else {
      if (at_once) Number("SELECT 1");  // what is written while files are copied is no state a crash leaves
      std::string cut = CutOff();
      at_once = rng.Next() % 2 == 0;  // each write is handed over to the applying thread, or none is
      Reopen(cut, at_once ? std::chrono::hours(0) : std::chrono::hours(1));
    }
  }
  for (const auto& run : runs) both([&] { return Everything({run}); });
  for (const char* table : {"runs", "journal", "usage", "payloads", "payload_refs"}) {
    both([&] { return absl::StrCat(table, " ", Number(absl::StrCat("SELECT count(*) FROM ", table))); });
  }
  both([&] { return absl::StrCat(Number("SELECT sum(cost_nano_units) FROM usage")); });
}

TEST_P(LoggedStoreTest, WhoReadsSeesWhatWasAcknowledgedBefore) {
  // As it is in use: the log is put into the tables beside the writers.
  database_.reset();
  store_ = std::make_unique<StateStore>(StoreOptions(), ids_);
  database_ = Check(SqliteDatabase::Open({.data_dir = dir_, .deferrer = &store_->journal}, time_, hub_));
  auto engine = Register("e", "1");
  constexpr int kWriters = 8, kEntries = 1500;
  for (int w = 0; w < kWriters; ++w) ASSERT_THAT(CreateLogged(absl::StrCat("r", w), engine), IsOk());
  std::array<std::atomic<int64_t>, kWriters> acknowledged{};
  std::vector<std::thread> threads;
  for (int w = 0; w < kWriters; ++w) {
    threads.emplace_back([&, w] {
      for (int64_t seq = 1; seq <= kEntries; ++seq) {
        EXPECT_THAT(Append(absl::StrCat("r", w), 1, seq), IsOk());
        acknowledged[static_cast<size_t>(w)] = seq;
      }
    });
  }
  for (bool more = true; more;) {
    more = false;
    for (int w = 0; w < kWriters; ++w) {
      int64_t before = acknowledged[static_cast<size_t>(w)];
      more |= before < kEntries;
      EXPECT_GE(Number(absl::StrCat("SELECT last_seq FROM runs WHERE run_id = 'r", w, "'")), before);
    }
    // Another writer, whose writes are no records.
    EXPECT_THAT(Beat(engine), IsOk());
  }
  for (auto& thread : threads) thread.join();
  for (int w = 0; w < kWriters; ++w) {
    auto journal = JournalOf(absl::StrCat("r", w));
    ASSERT_EQ(journal.size(), static_cast<size_t>(kEntries));
    for (size_t i = 0; i < journal.size(); ++i) ASSERT_EQ(journal[i].seq(), static_cast<int64_t>(i + 1));
  }
}

TEST_P(LoggedStoreTest, ALogThatDoesNotBelongToTheDatabaseIsToldOf) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());  // in the tables at once
  ASSERT_THAT(Append("r1", 1, 1), IsOk());
  std::string cut = CutOff();
  for (const char* end : {"", "-wal", "-shm"}) std::filesystem::remove(cut + "/tutti.db" + end);
  StateStore store{{}, ids_};
  EXPECT_THAT(SqliteDatabase::Open({.data_dir = cut, .deferrer = &store.journal}, time_, hub_),
              HasCodeAndText(absl::StatusCode::kDataLoss, "do not follow what the database holds"));
}

TEST_P(LoggedStoreTest, AMissingLogIsToldOf) {
  auto engine = Register("e", "1");
  ASSERT_THAT(CreateLogged("r1", engine), IsOk());
  std::string cut = CutOff();
  // As if the generation before had been in the other file, and that file was lost.
  std::filesystem::remove(cut + "/tutti.log0");
  std::filesystem::remove(cut + "/tutti.log1");
  auto later = *WriteLog::Open(cut + "/tutti.log1", 0);
  later->BeginGeneration(WriteLog::GenerationOf(dir_ + "/tutti.log0") + WriteLog::GenerationOf(dir_ + "/tutti.log1") +
                         1);
  ASSERT_THAT(later->Append("any"), IsOk());
  StateStore store{{}, ids_};
  EXPECT_THAT(SqliteDatabase::Open({.data_dir = cut, .deferrer = &store.journal}, time_, hub_),
              HasCodeAndText(absl::StatusCode::kDataLoss, "one of the files was exchanged or is missing"));
}

TEST_P(LoggedStoreTest, ABackupHoldsWhatTheLogHolds) {
  auto engine = Register("e", "1");
  ASSERT_THAT(CreateLogged("r1", engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1, 2), IsOk());
  tutti::config::v1::StateManager config;
  config.set_data_dir(CutOff());
  const std::string file = dir_ + ".backup";
  auto saved = BackUp(config, file);
  ASSERT_THAT(saved, IsOk());
  EXPECT_EQ(saved->at("runs"), 1);
  EXPECT_EQ(saved->at("journal"), 2);
  // Over a store that was cut off itself: what its log holds is no part of what is restored.
  ASSERT_THAT(Append("r1", 1, 3, 2), IsOk());
  config.set_data_dir(CutOff());
  EXPECT_THAT(Restore(config, file, false), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "--force"));
  ASSERT_THAT(Restore(config, file, true), IsOk());
  Reopen(config.data_dir());
  EXPECT_EQ(JournalOf("r1").size(), 2u);
  std::filesystem::remove(file);
}

class SealedLogTest : public LoggedStoreTest {
 protected:
  StateStore::Options StoreOptions() override {
    StateStore::Options options;
    options.keys.by_id["k1"] = std::string(32, 'k');
    options.keys.active = "k1";
    return options;
  }
};
INSTANTIATE_TEST_SUITE_P(Store, SealedLogTest, ::testing::Values(Engine::kSqlite), EngineName);

TEST_P(SealedLogTest, WithKeysTheLogIsEncryptedAndAnIdleStoreHasWipedIt) {
  auto engine = Register("e", "1");
  ASSERT_THAT(CreateLogged("r1", engine), IsOk());
  ASSERT_THAT(Append("r1", 1, 1), IsOk());
  std::string bytes = Slurp(dir_ + "/tutti.log0") + Slurp(dir_ + "/tutti.log1");
  EXPECT_NE(bytes.find_first_not_of('\0'), std::string::npos);
  EXPECT_EQ(bytes.find("nnnnnnnn"), std::string::npos);
  std::string cut = CutOff();
  Reopen(dir_, std::chrono::hours(0));  // each write is handed over to the applying thread: both logs are used
  ASSERT_THAT(Append("r1", 1, 2), IsOk());
  ASSERT_THAT(Append("r1", 1, 3), IsOk());
  database_.reset();
  for (const char* log : {"/tutti.log0", "/tutti.log1"}) {
    EXPECT_EQ(Slurp(dir_ + log).find_first_not_of('\0'), std::string::npos) << "nothing is left";
  }
  {
    StateStore keyless{{}, ids_};
    EXPECT_THAT(SqliteDatabase::Open({.data_dir = cut, .deferrer = &keyless.journal}, time_, hub_),
                HasCodeAndText(absl::StatusCode::kFailedPrecondition, "not among the keys given"));
  }
  Reopen(cut);
  EXPECT_EQ(JournalOf("r1").size(), 1u);
}

}  // namespace
}  // namespace tutti::state_manager::testing
