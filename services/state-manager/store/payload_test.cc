// Payloads once, snapshots, retention, encryption, on every engine.
#include <fstream>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "services/state-manager/domain/condense.h"
#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class PayloadTest : public StoreFixture {
 protected:
  StateStore::Options StoreOptions() override {
    StateStore::Options options;
    options.snapshot_every = 100;
    return options;
  }
  // Text that compresses by half at most.
  std::string Noise(size_t bytes, uint64_t seed = 1) {
    Xoshiro rng(seed);
    std::string out;
    while (out.size() < bytes) absl::StrAppend(&out, absl::Hex(rng.Next()));
    out.resize(bytes);
    return out;
  }
  absl::Status AppendResult(const std::string& run, int64_t seq, const std::string& result) {
    v1::AppendRequest request = Entries(run, 1, seq);
    request.mutable_entries(0)->mutable_step_completed()->mutable_result()->set_data(result);
    return Append(request);
  }
  absl::Status Collect(int64_t* removed) {
    auto answer = Transact<int64_t>([&](Transaction& tx, int64_t& out) {
      auto unused = Payloads::FindUnused(tx, "", 1000);
      if (!unused.ok()) return unused.status();
      auto count = Payloads::Remove(tx, *unused);
      if (count.ok()) out = *count;
      return count.status();
    });
    if (answer.ok()) *removed = *answer;
    return answer.status();
  }
};
TUTTI_ON_ALL_ENGINES(PayloadTest);

TEST_P(PayloadTest, FiftyStepsWithTheSameBytesStoreThemOnce) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Create("r2", &engine), IsOk());
  const std::string big = Noise(200000);
  for (int i = 1; i <= 50; ++i) ASSERT_THAT(AppendResult("r1", i, big), IsOk());
  ASSERT_THAT(AppendResult("r2", 1, big), IsOk());
  EXPECT_EQ(Number("SELECT count(*) FROM payloads"), 1);
  EXPECT_EQ(Number("SELECT count(*) FROM payload_refs"), 2);
  const int64_t per_run = Number("SELECT sum(length(entry)) FROM journal WHERE run_id = 'r1'") +
                          Number("SELECT sum(length(data)) FROM payloads");
  EXPECT_LT(per_run, 130000) << "fifty steps in " << per_run << " bytes";
  auto journal = JournalOf("r1");
  ASSERT_EQ(journal.size(), 50u);
  EXPECT_EQ(journal[49].step_completed().result().data(), big);
  EXPECT_TRUE(journal[49].step_completed().result().hash().empty());
}

TEST_P(PayloadTest, AForkCopiesReferencesOnly) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(AppendResult("r1", 1, Noise(5000)), IsOk());
  ASSERT_THAT(Transact<int>([](Transaction& tx, int&) { return Payloads::Share(tx, "runs/r1", "runs/fork"); }), IsOk());
  EXPECT_EQ(Number("SELECT count(*) FROM payloads"), 1);
  EXPECT_EQ(Number("SELECT count(*) FROM payload_refs"), 2);
}

TEST_P(PayloadTest, WhatNobodyRefersToIsCollectedAndNothingElse) {
  auto engine = Register("e", "1");
  for (const char* run : {"r1", "r2"}) ASSERT_THAT(Create(run, &engine), IsOk());
  ASSERT_THAT(AppendResult("r1", 1, Noise(5000, 1)), IsOk());
  ASSERT_THAT(AppendResult("r2", 1, Noise(5000, 2)), IsOk());
  ASSERT_THAT(Append("r1", 1, 2, 1, /*finish=*/true), IsOk());
  int64_t removed = 0;
  auto retire = [&] {
    return Transact<int64_t>([&](Transaction& tx, int64_t& out) {
      auto count = store_->runs.RemoveEnded(tx, "SUCCEEDED", tx.NowMicros() + 1, 10);
      if (count.ok()) out = *count;
      return count.status();
    });
  };
  EXPECT_EQ(*retire(), 1);
  ASSERT_THAT(Collect(&removed), IsOk());
  EXPECT_EQ(removed, 0) << "just used: somebody may be about to refer to it";
  time_.Advance(absl::Hours(4));
  ASSERT_THAT(Collect(&removed), IsOk());
  EXPECT_EQ(removed, 1);
  EXPECT_EQ(JournalOf("r2")[0].step_completed().result().data(), Noise(5000, 2));
  EXPECT_EQ(Number("SELECT count(*) FROM journal WHERE run_id = 'r1'"), 0);
  EXPECT_EQ(Number("SELECT count(*) FROM usage WHERE run_id = 'r1'"), 0);
  // Removed and stored again: there again.
  auto again = Register("e", "2");
  ASSERT_THAT(Create("r3", &again), IsOk());
  ASSERT_THAT(AppendResult("r3", 1, Noise(5000, 1)), IsOk());
  EXPECT_EQ(JournalOf("r3")[0].step_completed().result().data(), Noise(5000, 1));
}

TEST_P(PayloadTest, SpecAndInputAndOutputComeBackWhateverTheirSize) {
  for (size_t size : {0, 1, 1024, 1025, 300000}) {
    v1::CreateRunRequest request;
    request.mutable_run()->set_run_id(absl::StrCat("run", size));
    request.mutable_run()->mutable_spec()->set_data(Noise(size, 3));
    request.mutable_run()->mutable_input()->set_data(Noise(size, 4));
    auto engine = Register("e", "1");
    *request.mutable_owner() = engine;
    ASSERT_THAT(Write(store_->runs, &Runs::CreateRun, request), IsOk());
    auto end = Entries(request.run().run_id(), 1, 1, 1, /*finish=*/true);
    end.mutable_entries(0)->mutable_run_finished()->mutable_output()->set_data(Noise(size, 5));
    ASSERT_THAT(Append(end), IsOk());
    auto run = Get(request.run().run_id());
    EXPECT_EQ(run.spec().data(), Noise(size, 3));
    EXPECT_EQ(run.input().data(), Noise(size, 4));
    EXPECT_EQ(run.output().data(), Noise(size, 5));
  }
}

TEST_P(PayloadTest, ALongRunGetsASnapshotThatRecoversTheSame) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  int64_t seq = 0;
  auto append = [&](std::function<void(v1::JournalEntry&)> fill) {
    v1::AppendRequest request;
    request.set_run_id("r1");
    request.set_lease_epoch(1);
    request.set_writer_seq(++seq);
    fill(*request.add_entries());
    ASSERT_THAT(Append(request), IsOk());
  };
  const std::string big = Noise(3000);
  for (int i = 0; i < 60; ++i) {
    append([&](auto& entry) { entry.mutable_step_started()->set_path(absl::StrCat("s", i)); });
    append([&](auto& entry) {
      entry.mutable_step_completed()->set_path(absl::StrCat("s", i));
      entry.mutable_step_completed()->mutable_result()->set_data(i == 7 ? big : absl::StrCat(i));
    });
  }
  auto long_runs = store_->journal.TakeLongRuns();
  ASSERT_EQ(long_runs.size(), 1u);
  auto built = Query<Journal::SnapshotCell>([&](Transaction& tx, Journal::SnapshotCell& out) {
    auto snapshot = store_->journal.BuildSnapshot(tx, "r1");
    if (snapshot.ok()) out = *snapshot;
    return snapshot.status();
  });
  ASSERT_THAT(built, IsOk());
  EXPECT_EQ(built->seq, 120);
  ASSERT_THAT(Transact<int>([&](Transaction& tx, int&) { return store_->journal.StoreSnapshot(tx, "r1", *built); }),
              IsOk());
  append([&](auto& entry) { entry.mutable_step_started()->set_path("after"); });
  auto snapshot = Query<Journal::Snapshot>([&](Transaction& tx, Journal::Snapshot& out) {
    auto read = store_->journal.ReadSnapshot(tx, "r1");
    if (read.ok()) out = *read;
    for (auto& entry : out.entries) {
      if (absl::Status status = store_->journal.Fill(tx, entry); !status.ok()) return status;
    }
    return read.status();
  });
  ASSERT_THAT(snapshot, IsOk());
  EXPECT_EQ(snapshot->seq, 120);
  ASSERT_EQ(snapshot->entries.size(), 60u) << "the begins of completed steps are left out";
  EXPECT_EQ(snapshot->entries[7].step_completed().result().data(), big);
  EXPECT_EQ(JournalOf("r1").size(), 121u) << "the history stays readable";
}

TEST(CondenseTest, KeepsWhatRecoveryNeeds) {
  std::vector<v1::JournalEntry> entries;
  auto add = [&]() -> v1::JournalEntry& {
    entries.emplace_back().set_seq(static_cast<int64_t>(entries.size()));
    return entries.back();
  };
  add().mutable_run_started()->set_lease_epoch(1);
  add().mutable_step_started()->set_path("done");
  add().mutable_step_failed()->set_path("done");
  entries.back().mutable_step_failed()->add_usage()->set_input_tokens(7);
  entries.back().mutable_step_failed()->mutable_child_usage()->set_output_tokens(3);
  add().mutable_step_completed()->set_path("done");
  entries.back().mutable_step_completed()->add_usage()->set_input_tokens(5);
  for (int attempt = 1; attempt <= 3; ++attempt) {
    auto& started = *add().mutable_step_started();
    started.set_path("open");
    started.set_attempt(attempt);
    if (attempt == 3) break;
    auto& failed = *add().mutable_step_failed();
    failed.set_path("open");
    failed.set_attempt(attempt);
    failed.mutable_retry_time()->set_seconds(attempt);
  }
  add().mutable_run_started()->set_lease_epoch(2);
  add().mutable_cancel_requested();
  add().mutable_step_started()->set_path("last");
  // A failure for good that the run was reopened from: it says what was forgiven, whatever came later.
  for (int attempt = 1; attempt <= 3; ++attempt) {
    auto& started = *add().mutable_step_started();
    started.set_path("reopened");
    started.set_attempt(attempt);
    if (attempt == 3) break;
    auto& failed = *add().mutable_step_failed();
    failed.set_path("reopened");
    failed.set_attempt(attempt);
    if (attempt == 2) failed.mutable_retry_time()->set_seconds(attempt);
  }
  std::string kept;
  std::vector<v1::JournalEntry> condensed = Condense(entries);
  for (const auto& entry : condensed) absl::StrAppend(&kept, entry.seq(), " ");
  ASSERT_EQ(condensed[0].step_completed().usage_size(), 2) << "what the failed attempt consumed is not forgotten";
  EXPECT_EQ(condensed[0].step_completed().usage(1).input_tokens(), 7);
  EXPECT_EQ(condensed[0].step_completed().child_usage().output_tokens(), 3);
  EXPECT_EQ(kept, "4 8 9 10 11 12 14 16 17 ");
}

// Encryption.

class EncryptionTest : public StoreFixture {
 protected:
  StateStore::Options StoreOptions() override { return {.keys = keys_}; }
  static Keys KeysOf(const std::vector<std::string>& ids, const std::string& active = "") {
    std::vector<std::string> pairs;
    for (const auto& id : ids) pairs.push_back(absl::StrCat(id, ":", std::string(32, id[0])));
    auto keys = LoadKeys("", pairs, active);
    EXPECT_THAT(keys, IsOk());
    return *keys;
  }
  absl::Status OpenWith(const Keys& keys) {
    KeyRing ring(keys);
    return Transact<int>([&](Transaction& tx, int&) { return CheckKeys(tx, ring); }).status();
  }
  Keys keys_ = KeysOf({"a"});
};
TUTTI_ON_ALL_ENGINES(EncryptionTest);

TEST_P(EncryptionTest, NothingOfTheUsersIsReadableInTheDatabase) {
  auto engine = Register("e", "1");
  v1::CreateRunRequest request;
  request.mutable_run()->set_run_id("r1");
  request.mutable_run()->mutable_input()->set_data("\"sesame small\"");
  request.mutable_run()->mutable_spec()->set_data(std::string(3000, ' ') + "sesame large");
  *request.mutable_owner() = engine;
  ASSERT_THAT(Write(store_->runs, &Runs::CreateRun, request), IsOk());
  auto end = Entries("r1", 1, 1, 1, true);
  end.mutable_entries(0)->mutable_run_finished()->mutable_output()->set_data("\"sesame output\"");
  ASSERT_THAT(Append(end), IsOk());
  v1::StoreMemoryRequest memory;
  memory.mutable_memory()->set_content("sesame memory");
  ASSERT_THAT(Write(store_->memories, &Memories::StoreMemory, memory), IsOk());
  v1::CreateContextRequest context;
  (*context.mutable_document()->mutable_struct_value()->mutable_fields())["x"].set_string_value("sesame context");
  ASSERT_THAT(Write(store_->contexts, &Contexts::CreateContext, context), IsOk());
  EXPECT_EQ(Get("r1").input().data(), "\"sesame small\"");
  EXPECT_EQ(Get("r1").output().data(), "\"sesame output\"");
  v1::SearchMemoriesRequest search;
  search.set_query("sesame");
  EXPECT_EQ(Read(store_->memories, &Memories::SearchMemories, search)->hits_size(), 1) << "found by likeness";
  for (const char* table : {"runs", "journal", "payloads", "memories", "contexts", "context_versions"}) {
    std::string columns =
        GetParam() == Engine::kPostgres
            ? absl::StrCat(
                  "convert_from(convert_to(t::text, 'UTF8'), 'UTF8') LIKE '%736573616d65%' OR t::text LIKE '%sesame%'")
            : "";
    if (GetParam() == Engine::kPostgres) {
      EXPECT_EQ(Number(absl::StrCat("SELECT count(*) FROM ", table, " AS t WHERE ", columns)), 0) << table;
    }
  }
  if (GetParam() == Engine::kSqlite) {
    database_.reset();
    for (const auto& file : std::filesystem::directory_iterator(dir_)) {
      std::ifstream in(file.path(), std::ios::binary);
      std::string all(std::istreambuf_iterator<char>(in), {});
      EXPECT_EQ(all.find("sesame"), std::string::npos) << file.path();
    }
  }
}

TEST_P(EncryptionTest, KeysRotateAndOldDataStaysReadable) {
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("old", &engine), IsOk());
  store_->keys.Set(KeysOf({"a", "b"}));  // b is the later id: active
  ASSERT_THAT(Create("new", &engine), IsOk());
  EXPECT_EQ(Get("old").input().data(), "{\"n\":1}");
  EXPECT_EQ(Get("new").input().data(), "{\"n\":1}");
  store_->keys.Set(KeysOf({"b"}));
  v1::GetRunRequest get;
  get.set_run_id("old");
  EXPECT_THAT(Read(store_->runs, &Runs::GetRun, get),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "key \"a\", which is not among the keys"));
  EXPECT_EQ(Get("new").input().data(), "{\"n\":1}");
}

TEST_P(EncryptionTest, OldKeysCanBeRetired) {
  ASSERT_THAT(OpenWith(KeysOf({"a"})), IsOk());
  const std::string large(3000, 'x');
  auto engine = Register("e", "1");
  for (const char* id : {"r1", "r2"}) ASSERT_THAT(Create(id, &engine), IsOk());
  v1::AppendRequest entries = Entries("r1", 1, 1);
  entries.mutable_entries(0)->mutable_step_completed()->mutable_result()->set_data(large);
  ASSERT_THAT(Append(entries), IsOk());
  entries = Entries("r2", 1, 1);
  auto* finished = entries.mutable_entries(0)->mutable_run_finished();
  finished->set_outcome(v1::OUTCOME_FAILED);
  finished->mutable_error()->set_message("why");
  finished->mutable_output()->set_data("{}");
  ASSERT_THAT(Append(entries), IsOk());
  v1::StoreMemoryRequest remember;
  remember.mutable_memory()->set_agent("writer");
  remember.mutable_memory()->set_kind(v1::MEMORY_KIND_LONG_TERM);
  remember.mutable_memory()->set_content("tea is warm");
  auto remembered = Write(store_->memories, &Memories::StoreMemory, remember);
  ASSERT_THAT(remembered, IsOk());
  v1::CreateContextRequest context;
  (*context.mutable_document()->mutable_struct_value()->mutable_fields())["k"].set_string_value("v");
  auto created = Write(store_->contexts, &Contexts::CreateContext, context);
  ASSERT_THAT(created, IsOk());

  store_->keys.Set(KeysOf({"a", "b"}));  // b writes from now on
  ASSERT_THAT(OpenWith(KeysOf({"a", "b"})), IsOk());
  auto pass = [&] {
    Reencryption::Cursor cursor;
    while (!cursor.done()) {
      auto changes = Query<std::vector<Reencryption::Change>>([&](Transaction& tx, auto& out) {
        auto found = store_->reencryption.Find(tx, cursor, 2);
        if (found.ok()) out = *std::move(found);
        return found.status();
      });
      EXPECT_THAT(changes, IsOk());
      if (!changes.ok()) break;
      EXPECT_THAT(Transact<int>([&](Transaction& tx, int&) { return store_->reencryption.Replace(tx, *changes); }),
                  IsOk());
    }
    return cursor.found;
  };
  EXPECT_GE(pass(), 10);
  EXPECT_EQ(pass(), 0);
  auto retired = Transact<std::vector<std::string>>([&](Transaction& tx, auto& out) {
    auto ids = store_->reencryption.Retire(tx);
    if (ids.ok()) out = *std::move(ids);
    return ids.status();
  });
  ASSERT_THAT(retired, IsOk());
  EXPECT_EQ(*retired, std::vector<std::string>{"a"});
  // Without the old key everything is there.
  store_->keys.Set(KeysOf({"b"}));
  EXPECT_THAT(OpenWith(KeysOf({"b"})), IsOk());
  EXPECT_EQ(Get("r1").input().data(), "{\"n\":1}");
  EXPECT_EQ(Get("r2").error().message(), "why");
  EXPECT_EQ(JournalOf("r1")[0].step_completed().result().data(), large);
  v1::GetMemoryRequest memory;
  memory.set_memory_id(remembered->memory().memory_id());
  auto got = Read(store_->memories, &Memories::GetMemory, memory);
  ASSERT_THAT(got, IsOk());
  EXPECT_EQ(got->memory().content(), "tea is warm");
  v1::GetContextRequest read;
  read.set_context_id(created->context().context_id());
  EXPECT_THAT(Read(store_->contexts, &Contexts::GetContext, read), IsOk());
}

// A new table with cells must be walked too: the migrations say which those are.
TEST(ReencryptionTest, KnowsEveryColumnWithCells) {
  std::set<std::string> known, wanted;
  for (const auto& column : Reencryption::Columns()) known.insert(absl::StrCat(column.table, ".", column.cell));
  const char* source = getenv("TUTTI_SOURCE");
  ASSERT_NE(source, nullptr);
  for (const auto& file :
       std::filesystem::directory_iterator(absl::StrCat(source, "/services/state-manager/migrations"))) {
    if (file.path().extension() != ".sql" || file.path().filename() < "0002") continue;
    std::ifstream in(file.path());
    std::string line, table;
    while (std::getline(in, line)) {
      if (absl::StartsWith(line, "-- table ")) table = line.substr(9, line.find(':') - 9);
      if (!absl::StrContains(line, "-- Cell: ")) continue;
      std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
      wanted.insert(absl::StrCat(table, ".", words[0]));
    }
  }
  EXPECT_EQ(known, wanted);
}

TEST_P(EncryptionTest, AWrongOrMissingKeyIsAClearRefusal) {
  ASSERT_THAT(OpenWith(KeysOf({"a"})), IsOk());
  ASSERT_THAT(OpenWith(KeysOf({"a", "b"})), IsOk()) << "a new key is welcome";
  EXPECT_THAT(OpenWith(Keys()), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "key \"a\" is missing"));
  EXPECT_THAT(OpenWith(KeysOf({"a"})), HasCodeAndText(absl::StatusCode::kFailedPrecondition, "key \"b\" is missing"));
  auto wrong = LoadKeys("", {absl::StrCat("a:", std::string(32, 'z')), absl::StrCat("b:", std::string(32, 'b'))}, "");
  EXPECT_THAT(OpenWith(*wrong),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "key \"a\" is another one than was given"));
}

TEST_P(EncryptionTest, ACellThatWasMovedOrAlteredDoesNotOpen) {
  auto engine = Register("e", "1");
  for (const char* id : {"r1", "r2"}) ASSERT_THAT(Create(id, &engine), IsOk());
  ASSERT_THAT(Sql("UPDATE runs SET input = (SELECT input FROM runs AS o WHERE o.run_id = 'r2') WHERE run_id = 'r1'"),
              IsOk());
  v1::GetRunRequest get;
  get.set_run_id("r1");
  EXPECT_THAT(Read(store_->runs, &Runs::GetRun, get), HasCodeAndText(absl::StatusCode::kDataLoss, "altered, moved"));
}

TEST(KeysTest, SayWhatIsWrongAndNeverTheKey) {
  EXPECT_THAT(LoadKeys("", {"short:abc"}, ""), HasCodeAndText(absl::StatusCode::kInvalidArgument, "32 bytes"));
  EXPECT_EQ(LoadKeys("", {"short:secret"}, "").status().message().find("secret"), absl::string_view::npos);
  EXPECT_THAT(LoadKeys("", {absl::StrCat("a:", std::string(64, 'f'))}, ""), IsOk()) << "hexadecimal";
  EXPECT_THAT(LoadKeys("", {absl::StrCat("a:", std::string(64, 'f'))}, "b"),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "not among the keys"));
  EXPECT_THAT(LoadKeys("/nowhere", {}, ""), HasCodeAndText(absl::StatusCode::kInvalidArgument, "cannot be read"));
}

}  // namespace
}  // namespace tutti::state_manager::testing
