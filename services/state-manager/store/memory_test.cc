// Memories, on every engine.
#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class MemoryTest : public StoreFixture {
 protected:
  StateStore::Options StoreOptions() override {
    StateStore::Options options;
    options.memory.max_per_tenant = 50;
    return options;
  }
  absl::StatusOr<v1::Memory> Remember(const std::string& content, const std::string& agent = "a",
                                      std::function<void(v1::Memory&)> more = nullptr) {
    v1::StoreMemoryRequest request;
    request.mutable_memory()->set_content(content);
    request.mutable_memory()->set_agent(agent);
    if (more) more(*request.mutable_memory());
    auto stored = Write(store_->memories, &Memories::StoreMemory, request);
    if (!stored.ok()) return stored.status();
    return stored->memory();
  }
  v1::SearchMemoriesResponse Search(const std::string& query, const std::string& agent = "a",
                                    std::function<void(v1::SearchMemoriesRequest&)> more = nullptr) {
    v1::SearchMemoriesRequest request;
    request.set_query(query);
    request.mutable_filter()->set_agent(agent);
    if (more) more(request);
    auto found = Read(store_->memories, &Memories::SearchMemories, request);
    EXPECT_THAT(found, IsOk());
    return found.value_or(v1::SearchMemoriesResponse());
  }
  int Listed(const std::string& agent = "") {
    v1::ListMemoriesRequest request;
    request.mutable_filter()->set_agent(agent);
    request.set_page_size(1000);
    return Read(store_->memories, &Memories::ListMemories, request)->memories_size();
  }
  void Scrub() {
    for (bool first = true, more = true; more; first = false) {
      auto scrubbed = Transact<bool>([&](Transaction& tx, bool& out) {
        auto slice = store_->memories.Scrub(tx, first);
        if (slice.ok()) out = *slice;
        return slice.status();
      });
      ASSERT_THAT(scrubbed, IsOk());
      more = *scrubbed;
    }
  }
  // How often.
  size_t InTheFiles(const std::string& word) { return TimesInFolder(dir_, word); }
};
TUTTI_ON_ALL_ENGINES(MemoryTest);

// Words are found without regard to capitals and marks, in any script, also where rarer ones decide.
TEST_P(MemoryTest, WordsOfAnyLanguageAreFound) {
  ASSERT_THAT(Remember("Rechnung Schmidt"), IsOk());
  ASSERT_THAT(Remember("Rechnung Übung don’t"), IsOk());
  ASSERT_THAT(Remember("Rechnung Москва"), IsOk());
  auto best = [&](const std::string& query) {
    auto found = Search(query, "a", [](v1::SearchMemoriesRequest& request) {
      request.mutable_weights()->set_relevance(1);
      request.mutable_weights()->set_recency(0);
      request.mutable_weights()->set_importance(0);
    });
    for (const auto& hit : found.hits()) {
      if (hit.text_relevance() == 1) return hit.memory().content();
    }
    return std::string();
  };
  EXPECT_EQ(best("rechnung übung"), "Rechnung Übung don’t");
  EXPECT_EQ(best("rechnung москва"), "Rechnung Москва");
  EXPECT_EQ(best("Rechnung Schmidt"), "Rechnung Schmidt");
}

TEST_P(MemoryTest, FindsByTextAndByLikenessAndSaysWhy) {
  ASSERT_THAT(Remember("The customer in Berlin prefers invoices in German."), IsOk());
  ASSERT_THAT(Remember("Deployments happen on Tuesdays."), IsOk());
  ASSERT_THAT(Remember("Der Kunde zahlt per Rechnung."), IsOk());
  auto found = Search("invoice language for the Berlin customer");
  ASSERT_GE(found.hits_size(), 1);
  EXPECT_EQ(found.hits(0).memory().content(), "The customer in Berlin prefers invoices in German.");
  const auto& best = found.hits(0);
  EXPECT_GT(best.text_relevance(), 0);
  EXPECT_GT(best.vector_relevance(), 0);
  EXPECT_NEAR(best.relevance(), 0.5 * best.text_relevance() + 0.5 * best.vector_relevance(), 1e-9);
  EXPECT_NEAR(best.score(), best.relevance() * std::sqrt(best.recency()) * std::sqrt(best.importance()), 1e-9);
  EXPECT_EQ(best.importance(), 0.5);
  for (int i = 1; i < found.hits_size(); ++i) EXPECT_GE(found.hits(i - 1).score(), found.hits(i).score());
  // Of the likeness alone a misspelling is found.
  auto alike = Search("Deploymnts on Tusday", "a", [](auto& request) { request.mutable_weights()->set_text(0); });
  EXPECT_EQ(alike.hits(0).memory().content(), "Deployments happen on Tuesdays.");
}

TEST_P(MemoryTest, RecencyAndImportanceCountByTheirWeights) {
  auto important = [](v1::Memory& memory) { memory.set_importance(1); };
  auto trivial = [](v1::Memory& memory) { memory.set_importance(0.1); };
  ASSERT_THAT(Remember("the launch code is alpha", "a", important), IsOk());
  time_.Advance(absl::Hours(24 * 60));
  ASSERT_THAT(Remember("the launch code is beta", "a", trivial), IsOk());
  auto by = [](double recency, double importance) {
    return [=](v1::SearchMemoriesRequest& request) {
      request.mutable_weights()->set_recency(recency);
      request.mutable_weights()->set_importance(importance);
    };
  };
  EXPECT_EQ(Search("launch code", "a", by(0, 1)).hits(0).memory().content(), "the launch code is alpha");
  EXPECT_EQ(Search("launch code", "a", by(1, 0)).hits(0).memory().content(), "the launch code is beta");
  EXPECT_NEAR(Search("launch code", "a", by(0, 1)).hits(0).recency(), 0.25, 0.01) << "two half-lives";
}

TEST_P(MemoryTest, AgentsAndTenantsDoNotSeeEachOther) {
  ASSERT_THAT(Remember("shared fact about tea", ""), IsOk());
  ASSERT_THAT(Remember("private fact about tea", "a"), IsOk());
  ASSERT_THAT(Remember("foreign fact about tea", "a", [](auto& memory) { memory.set_tenant("t2"); }), IsOk());
  EXPECT_EQ(Search("fact about tea", "a").hits_size(), 2);
  EXPECT_EQ(Search("fact about tea", "b").hits_size(), 1);
  EXPECT_EQ(Search("fact about tea", "", [](auto& request) { request.mutable_filter()->set_tenant("t2"); }).hits_size(),
            1);
}

TEST_P(MemoryTest, FiltersByKindRunSessionTagsAndTime) {
  auto working = [](v1::Memory& memory) {
    memory.set_kind(v1::MEMORY_KIND_WORKING);
    memory.set_run_id("r1");
  };
  auto short_term = [](v1::Memory& memory) {
    memory.set_kind(v1::MEMORY_KIND_SHORT_TERM);
    memory.set_session_id("s1");
    memory.add_tags("x");
    memory.add_tags("y");
  };
  auto engine = Register("e", "1");
  ASSERT_THAT(Create("r1", &engine), IsOk());
  ASSERT_THAT(Remember("apple one", "a", working), IsOk());
  ASSERT_THAT(Remember("apple two", "a", short_term), IsOk());
  ASSERT_THAT(Remember("apple three"), IsOk());
  auto count = [&](std::function<void(v1::MemoryFilter&)> set) {
    return Search("apple", "a", [&](v1::SearchMemoriesRequest& request) { set(*request.mutable_filter()); })
        .hits_size();
  };
  EXPECT_EQ(count([](auto&) {}), 3);
  EXPECT_EQ(count([](auto& filter) { filter.set_run_id("r1"); }), 1);
  EXPECT_EQ(count([](auto& filter) { filter.set_session_id("s1"); }), 1);
  EXPECT_EQ(count([](auto& filter) { filter.add_kinds(v1::MEMORY_KIND_LONG_TERM); }), 1);
  EXPECT_EQ(count([](auto& filter) {
              filter.add_tags("x");
              filter.add_tags("y");
            }),
            1);
  EXPECT_EQ(count([](auto& filter) {
              filter.add_tags("x");
              filter.add_tags("z");
            }),
            0);
  // A short-term memory ends by itself, a working one with its run.
  time_.Advance(absl::Hours(25));
  EXPECT_EQ(count([](auto&) {}), 2);
  auto again = Register("e", "2");
  ASSERT_THAT(Claim(again), IsOk());
  ASSERT_THAT(Append("r1", 2, 1, 1, /*finish=*/true), IsOk());
  EXPECT_EQ(count([](auto&) {}), 1) << "seen by nobody from now on, and soon removed";
  ASSERT_THAT(Transact<int64_t>([&](Transaction& tx, int64_t&) { return store_->memories.Expire(tx, 100).status(); }),
              IsOk());
  EXPECT_EQ(count([](auto&) {}), 1);
  EXPECT_EQ(Number("SELECT count(*) FROM memories"), 1);
}

TEST_P(MemoryTest, ForgettingLeavesNoTrace) {
  ASSERT_THAT(Remember("the zanzibar protocol", "a", [](auto& memory) { memory.set_memory_id("m1"); }), IsOk());
  ASSERT_THAT(Remember("harmless"), IsOk());
  ASSERT_EQ(Search("zanzibar").hits(0).memory().memory_id(), "m1");
  v1::ForgetMemoriesRequest request;
  EXPECT_THAT(Write(store_->memories, &Memories::ForgetMemories, request),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "set `all`"));
  request.mutable_filter()->set_agent("a");
  auto forgotten = Write(store_->memories, &Memories::ForgetMemories, request);
  ASSERT_THAT(forgotten, IsOk());
  EXPECT_EQ(forgotten->forgotten(), 2);
  Scrub();
  EXPECT_EQ(Search("zanzibar protocol").hits_size(), 0);
  EXPECT_EQ(Listed(), 0);
  if (GetParam() == Engine::kSqlite) {
    database_.reset();
    EXPECT_EQ(InTheFiles("zanzibar"), 0u);
  }
}

TEST_P(MemoryTest, WhatIsForgottenIsInNoFileOfARunningStore) {
  if (GetParam() != Engine::kSqlite) GTEST_SKIP() << "a server's files are its administrator's";
  // Longer than a page, many, and among others that stay.
  std::string text;
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&text, "zanzibar", i % 7, " ");
  for (int i = 0; i < 20; ++i) {
    ASSERT_THAT(Remember(text, "a"), IsOk());
    ASSERT_THAT(Remember(absl::StrCat("to be kept ", i), "b"), IsOk());
  }
  ASSERT_THAT(Remember("zanzibar that has expired", "a",
                       [](auto& memory) {
                         memory.set_kind(v1::MEMORY_KIND_SHORT_TERM);
                         memory.set_session_id("s");
                         memory.mutable_ttl()->set_seconds(5);
                       }),
              IsOk());
  time_.Advance(absl::Seconds(10));
  ASSERT_GT(InTheFiles("zanzibar"), 1000u);
  v1::ForgetMemoriesRequest request;
  request.mutable_filter()->set_agent("a");
  ASSERT_THAT(Remember("to be kept by all", ""), IsOk());
  ASSERT_THAT(Write(store_->memories, &Memories::ForgetMemories, request), IsOk());
  EXPECT_EQ(Listed(), 21) << "also what every agent remembers";
  EXPECT_TRUE(store_->memories.unscrubbed());
  Scrub();
  EXPECT_FALSE(store_->memories.unscrubbed());
  EXPECT_EQ(InTheFiles("zanzibar"), 0u);
  EXPECT_EQ(Search("to be kept", "b").hits_size(), 10);
}

TEST_P(MemoryTest, WhatIsCommonElsewhereIsStillFound) {
  // As many of another tenant as make a word common among all.
  ASSERT_THAT(Transact<int>([&](Transaction& tx, int&) {
                for (int i = 0; i < 2200; ++i) {
                  v1::StoreMemoryRequest request;
                  v1::StoreMemoryResponse response;
                  request.mutable_memory()->set_tenant(absl::StrCat("other", i / 40));
                  request.mutable_memory()->set_content(absl::StrCat("the invoice of number ", i));
                  absl::Status stored = store_->memories.StoreMemory(tx, request, response);
                  if (!stored.ok()) return stored;
                }
                return tx.sqlite() ? absl::OkStatus() : tx.Execute("ANALYZE memories");
              }),
              IsOk());
  ASSERT_THAT(Remember("our invoice stays open"), IsOk());
  ASSERT_THAT(Remember("nothing of the kind"), IsOk());
  auto found = Search("invoice");
  ASSERT_GE(found.hits_size(), 1);
  EXPECT_EQ(found.hits(0).memory().content(), "our invoice stays open");
  EXPECT_GT(found.hits(0).text_relevance(), 0);
}

TEST_P(MemoryTest, AFilterLeavesWhatItMeansHoweverFarItIs) {
  // By their vectors alone, of which a hundred others are nearer.
  auto add = [this](int i, const std::string& tenant, const char* tag) {
    v1::StoreMemoryRequest request;
    v1::Memory& memory = *request.mutable_memory();
    memory.set_tenant(tenant);
    memory.set_content(absl::StrCat("number ", i));
    memory.set_embedder("mine");
    for (int d = 0; d < 8; ++d) memory.add_embedding(d == 0 ? 1.0F : 0.001F * static_cast<float>(i * d));
    if (tag) memory.add_tags(tag);
    ASSERT_THAT(Write(store_->memories, &Memories::StoreMemory, request), IsOk());
  };
  for (int i = 0; i < 49; ++i) add(i, "t", i == 48 ? "rare" : nullptr);
  auto asked = [](v1::SearchMemoriesRequest& request) {
    request.mutable_filter()->set_tenant("t");
    request.set_embedder("mine");
    request.set_max_results(3);
    for (int d = 0; d < 8; ++d) request.add_embedding(d == 0 ? 1.0F : 0.0F);
  };
  auto found = Search("", "", [&](auto& request) {
    asked(request);
    request.mutable_filter()->add_tags("rare");
  });
  ASSERT_EQ(found.hits_size(), 1);
  EXPECT_EQ(found.hits(0).memory().content(), "number 48");
  // Another length by the same embedder is compared with its like.
  ASSERT_THAT(Remember("longer", "a",
                       [](auto& memory) {
                         memory.set_tenant("t");
                         memory.set_embedder("mine");
                         for (int d = 0; d < 16; ++d) memory.add_embedding(1);
                       }),
              IsOk());
  found = Search("", "", [](auto& request) {
    request.mutable_filter()->set_tenant("t");
    request.set_embedder("mine");
    for (int d = 0; d < 16; ++d) request.add_embedding(1);
  });
  ASSERT_EQ(found.hits_size(), 1);
  EXPECT_EQ(found.hits(0).memory().content(), "longer");
}

TEST_P(MemoryTest, AtTheLimitTheLeastImportantGoes) {
  ASSERT_THAT(Remember("keep me", "a", [](auto& memory) { memory.set_importance(1); }), IsOk());
  ASSERT_THAT(Remember("drop me", "a", [](auto& memory) { memory.set_importance(0); }), IsOk());
  for (int i = 0; i < 49; ++i) ASSERT_THAT(Remember(absl::StrCat("filler ", i)), IsOk());
  EXPECT_EQ(Listed(), 50);
  EXPECT_EQ(Search("keep me").hits(0).memory().content(), "keep me");
  auto dropped = Search("drop me");
  for (const auto& hit : dropped.hits()) EXPECT_NE(hit.memory().content(), "drop me");
}

TEST_P(MemoryTest, TheSameIdReplaces) {
  auto named = [](v1::Memory& memory) { memory.set_memory_id("m"); };
  ASSERT_THAT(Remember("old text about whales", "a", named), IsOk());
  ASSERT_EQ(Search("whales").hits_size(), 1);
  ASSERT_THAT(Remember("new text about sparrows", "a", named), IsOk());
  EXPECT_EQ(Listed(), 1);
  EXPECT_EQ(Search("sparrows").hits(0).memory().content(), "new text about sparrows");
  EXPECT_EQ(Number("SELECT memories FROM memory_tenants"), 1);
}

TEST_P(MemoryTest, EmbeddingsOfTheCallerAreUsedAndNeverComparedWithOthers) {
  auto with = [](std::vector<float> numbers) {
    return [numbers](v1::Memory& memory) {
      for (float x : numbers) memory.add_embedding(x);
      memory.set_embedder("theirs");
    };
  };
  ASSERT_THAT(Remember("north", "a", with({1, 0, 0, 0, 0, 0, 0, 0})), IsOk());
  ASSERT_THAT(Remember("east", "a", with({0, 1, 0, 0, 0, 0, 0, 0})), IsOk());
  ASSERT_THAT(Remember("nothing of the kind"), IsOk());
  auto found = Search("", "a", [](v1::SearchMemoriesRequest& request) {
    for (float x : {2.0F, 0.1F, 0.F, 0.F, 0.F, 0.F, 0.F, 0.F}) request.add_embedding(x);
    request.set_embedder("theirs");
  });
  ASSERT_EQ(found.hits_size(), 2);
  EXPECT_EQ(found.hits(0).memory().content(), "north");
  EXPECT_NEAR(found.hits(0).vector_relevance(), 0.998, 0.01);
  EXPECT_THAT(Remember("bad", "a", with({1, 2})), HasCodeAndText(absl::StatusCode::kInvalidArgument, "8 to 4096"));
}

TEST_P(MemoryTest, TheIndexIsRebuiltFromTheStoreAndFollowsOtherReplicas) {
  for (int i = 0; i < 20; ++i) ASSERT_THAT(Remember(absl::StrCat("note number ", i)), IsOk());
  if (!Persists()) return;
  Reopen();
  EXPECT_EQ(Search("note number 7").hits(0).memory().content(), "note number 7");
  if (GetParam() != Engine::kPostgres) return;
  WatchHub other_hub;
  auto other = OpenDatabase(other_hub);
  StateStore other_store(StoreOptions(), ids_);
  v1::StoreMemoryRequest request;
  request.mutable_memory()->set_agent("a");
  request.mutable_memory()->set_content("a kangaroo from the other replica");
  ASSERT_THAT(Write(other_store.memories, &Memories::StoreMemory, request, other.get()), IsOk());
  EXPECT_EQ(Search("kangaroo", "a", [](auto& r) { r.mutable_weights()->set_text(0); }).hits(0).memory().content(),
            "a kangaroo from the other replica");
}

// Beyond the size of a scan: the graph finds what a scan would, and forgets.
TEST(VectorIndexTest, TheGraphFindsWhatAScanFinds) {
  Xoshiro rng(3);
  auto random = [&] {
    std::vector<float> v(32);
    float norm = 0;
    for (float& x : v) {
      x = static_cast<float>(rng.Unit() - 0.5);
      norm += x * x;
    }
    for (float& x : v) x /= std::sqrt(norm);
    return v;
  };
  constexpr int kVectors = 9000;
  std::vector<std::vector<float>> all;
  VectorIndex scanned, graphed;
  for (int i = 0; i < kVectors; ++i) {
    all.push_back(random());
    scanned.Add("t", "a", "e", i, all.back());
    graphed.Add("t", "a", "e", i, all.back());
  }
  while (graphed.Maintain(1000)) {
  }
  int same = 0, total = 0;
  for (int q = 0; q < 50; ++q) {
    auto query = random();
    std::set<int64_t> wanted;
    for (const auto& hit : scanned.Search("t", "a", "e", query, 10)) wanted.insert(hit.number);
    for (const auto& hit : graphed.Search("t", "a", "e", query, 10)) same += wanted.contains(hit.number) ? 1 : 0;
    total += 10;
  }
  EXPECT_GT(same, total * 9 / 10);
  EXPECT_EQ(graphed.Search("t", "a", "e", all[77], 1)[0].number, 77);
  for (int i = 0; i < 2000; ++i) graphed.Remove(i);
  for (const auto& hit : graphed.Search("t", "a", "e", all[77], 50)) EXPECT_GE(hit.number, 2000);
  EXPECT_EQ(graphed.size(), 7000u);
}

}  // namespace
}  // namespace tutti::state_manager::testing
