// Shared contexts, on every engine.
#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class ContextTest : public StoreFixture {
 protected:
  v1::Context Create(const std::string& id, const std::string& document) {
    v1::CreateContextRequest request;
    request.set_context_id(id);
    request.set_author("ann");
    ToProto(*ParseJson(document), request.mutable_document());
    auto made = Write(store_->contexts, &Contexts::CreateContext, request);
    EXPECT_THAT(made, IsOk());
    return made.ok() ? made->context() : v1::Context();
  }
  absl::StatusOr<v1::UpdateContextResponse> Update(const std::string& document, v1::MergeStrategy strategy,
                                                   int64_t base = 0,
                                                   v1::ConflictPolicy policy = v1::CONFLICT_POLICY_UNSPECIFIED,
                                                   const std::string& etag = "") {
    v1::UpdateContextRequest request;
    request.set_context_id("c");
    request.set_author("bob");
    request.set_message("because");
    request.set_strategy(strategy);
    request.set_base_version(base);
    request.set_conflict_policy(policy);
    request.set_etag(etag);
    ToProto(*ParseJson(document), request.mutable_document());
    return Write(store_->contexts, &Contexts::UpdateContext, request);
  }
  absl::StatusOr<v1::Context> Get(int64_t version = 0, const v1::ContextView* view = nullptr,
                                  const std::string& agent = "") {
    v1::GetContextRequest request;
    request.set_context_id("c");
    request.set_version(version);
    request.set_agent(agent);
    if (view) *request.mutable_view() = *view;
    auto got = Read(store_->contexts, &Contexts::GetContext, request);
    if (!got.ok()) return got.status();
    return got->context();
  }
  static std::string Text(const v1::Context& context) { return DumpJson(ToJson(context.document())); }
};
TUTTI_ON_ALL_ENGINES(ContextTest);

TEST_P(ContextTest, EveryChangeIsAVersionWithAuthorAndTime) {
  Create("c", R"({"a":1})");
  time_.Advance(absl::Seconds(7));
  ASSERT_THAT(Update(R"({"b":2})", v1::MERGE_STRATEGY_DEEP_MERGE), IsOk());
  EXPECT_EQ(Text(*Get()), R"({"a":1,"b":2})");
  EXPECT_EQ(Text(*Get(1)), R"({"a":1})");
  EXPECT_EQ(Get()->author(), "bob");
  EXPECT_EQ(Get(1)->author(), "ann");
  EXPECT_GE(Get()->time().seconds() - Get(1)->time().seconds(), 7);
  EXPECT_THAT(Get(3), HasCodeAndText(absl::StatusCode::kNotFound, "it has 1 to 2"));
  v1::ListContextVersionsRequest history;
  history.set_context_id("c");
  history.set_page_size(1);
  auto page = Read(store_->contexts, &Contexts::ListContextVersions, history);
  ASSERT_EQ(page->versions_size(), 1);
  EXPECT_EQ(page->versions(0).version(), 2);
  EXPECT_EQ(page->versions(0).message(), "because");
  history.set_page_token(page->next_page_token());
  page = Read(store_->contexts, &Contexts::ListContextVersions, history);
  EXPECT_EQ(page->versions(0).version(), 1);
  EXPECT_TRUE(page->next_page_token().empty());
}

TEST_P(ContextTest, MergeStrategies) {
  Create("c", R"({"list":[1],"deep":{"x":1,"y":2}})");
  ASSERT_THAT(Update(R"({"list":[2],"deep":{"y":null}})", v1::MERGE_STRATEGY_APPEND), IsOk());
  EXPECT_EQ(Text(*Get()), R"({"deep":{"x":1},"list":[1,2]})");
  ASSERT_THAT(Update(R"({"list":[3]})", v1::MERGE_STRATEGY_DEEP_MERGE), IsOk());
  EXPECT_EQ(Text(*Get()), R"({"deep":{"x":1},"list":[3]})");
  ASSERT_THAT(Update(R"([1])", v1::MERGE_STRATEGY_OVERWRITE), IsOk());
  EXPECT_EQ(Text(*Get()), "[1]");
}

TEST_P(ContextTest, AThreeWayMergeKeepsBothSidesAndReportsConflictsFieldByField) {
  Create("c", R"({"title":"a","plan":{"one":1,"two":2}})");
  ASSERT_THAT(Update(R"({"title":"ours","plan":{"three":3}})", v1::MERGE_STRATEGY_DEEP_MERGE), IsOk());
  // Made from version 1: adds a field, and changes the title that the other side changed too.
  const std::string theirs = R"({"title":"theirs","plan":{"one":1,"two":22}})";
  auto failed = Update(theirs, v1::MERGE_STRATEGY_THREE_WAY, 1);
  EXPECT_THAT(failed, HasCodeAndText(absl::StatusCode::kAborted, "1 fields were changed on both sides"));
  ASSERT_EQ(ViolationsOf(failed.status()).size(), 1u);
  EXPECT_EQ(ViolationsOf(failed.status())[0].field, "/title");
  EXPECT_EQ(Get()->version(), 2) << "nothing was written";
  auto ours = Update(theirs, v1::MERGE_STRATEGY_THREE_WAY, 1, v1::CONFLICT_POLICY_OURS);
  ASSERT_THAT(ours, IsOk());
  EXPECT_EQ(Text(ours->context()), R"({"plan":{"one":1,"three":3,"two":22},"title":"ours"})");
  ASSERT_EQ(ours->conflicts_size(), 1);
  EXPECT_EQ(ours->conflicts(0).path(), "/title");
  EXPECT_EQ(ours->conflicts(0).theirs().string_value(), "theirs");
  auto both = Update(R"({"title":"third","plan":{"one":1,"two":2}})", v1::MERGE_STRATEGY_THREE_WAY, 1,
                     v1::CONFLICT_POLICY_KEEP_BOTH);
  EXPECT_EQ(Text(both->context()), R"({"plan":{"one":1,"three":3,"two":22},"title":{"ours":"ours","theirs":"third"}})");
  auto theirs_wins =
      Update(R"({"plan":{"one":1,"two":2}})", v1::MERGE_STRATEGY_THREE_WAY, 1, v1::CONFLICT_POLICY_THEIRS);
  EXPECT_EQ(Text(theirs_wins->context()), R"({"plan":{"one":1,"three":3,"two":22}})") << "a removal is a change";
}

TEST_P(ContextTest, AnEtagThatIsOldIsRefused) {
  auto first = Create("c", "{}");
  ASSERT_THAT(Update(R"({"a":1})", v1::MERGE_STRATEGY_DEEP_MERGE, 0, {}, first.etag()), IsOk());
  EXPECT_THAT(Update(R"({"a":2})", v1::MERGE_STRATEGY_DEEP_MERGE, 0, {}, first.etag()),
              HasCodeAndText(absl::StatusCode::kAborted, "the newest version is 2"));
  EXPECT_EQ(Text(*Get()), R"({"a":1})");
}

TEST_P(ContextTest, DiffsAsJsonPatch) {
  Create("c", R"({"a":1,"gone":true,"list":[1,2]})");
  ASSERT_THAT(Update(R"({"a":2,"list":[1,2,3],"n/w":{}})", v1::MERGE_STRATEGY_OVERWRITE), IsOk());
  v1::DiffContextRequest request;
  request.set_context_id("c");
  request.set_from_version(1);
  auto diff = Read(store_->contexts, &Contexts::DiffContext, request);
  ASSERT_THAT(diff, IsOk());
  std::string text;
  for (const auto& change : diff->changes()) absl::StrAppend(&text, change.op(), " ", change.path(), "; ");
  EXPECT_EQ(text, "replace /a; remove /gone; add /list/2; add /n~1w; ");
}

TEST_P(ContextTest, ViewsShowFieldsAndTagsWithinABudget) {
  v1::CreateContextRequest request;
  request.set_context_id("c");
  ToProto(*ParseJson(R"({"facts":"0123456789","plan":{"goal":"g","steps":[1]},"notes":"n","secret":1})"),
          request.mutable_document());
  (*request.mutable_field_tags())["facts"].add_tags("research");
  (*request.mutable_field_tags())["secret"].add_tags("finance");
  ASSERT_THAT(Write(store_->contexts, &Contexts::CreateContext, request), IsOk());
  v1::ContextView fields;
  fields.add_fields("plan.goal");
  fields.add_fields("notes");
  EXPECT_EQ(Text(*Get(0, &fields)), R"({"notes":"n","plan":{"goal":"g"}})");
  v1::SetContextViewRequest stored;
  stored.set_context_id("c");
  stored.set_agent("writer");
  stored.mutable_view()->add_tags("research");
  stored.mutable_view()->set_max_bytes(45);
  ASSERT_THAT(Write(store_->contexts, &Contexts::SetContextView, stored), IsOk());
  auto seen = Get(0, nullptr, "writer");
  EXPECT_EQ(Text(*seen), R"({"facts":"0123456789","notes":"n"})")
      << "tagged first, then the small; secret is for others";
  ASSERT_EQ(seen->omitted_fields_size(), 1);
  EXPECT_EQ(seen->omitted_fields(0), "plan");
  EXPECT_EQ(ToJson(Get(0, nullptr, "other")->document()).size(), 4u);
}

TEST_P(ContextTest, WatchersReadEveryVersionOnce) {
  Create("c", "{}");
  for (int i = 0; i < 5; ++i)
    ASSERT_THAT(Update(absl::StrCat("{\"n\":", i, "}"), v1::MERGE_STRATEGY_DEEP_MERGE), IsOk());
  int64_t after = 1;
  std::vector<int64_t> seen;
  for (int i = 0; i < 5; ++i) {
    auto page = Query<std::vector<v1::Context>>([&](Transaction& tx, std::vector<v1::Context>& out) {
      auto versions = store_->contexts.VersionsAfter(tx, "c", after, 2);
      if (versions.ok()) out = *versions;
      return versions.status();
    });
    for (const auto& version : *page) seen.push_back(after = version.version());
  }
  EXPECT_EQ(seen, (std::vector<int64_t>{2, 3, 4, 5, 6}));
}

TEST_P(ContextTest, BadInputIsRefusedBeforeAnythingIsStored) {
  v1::CreateContextRequest request;
  request.set_context_id("not/an id");
  EXPECT_THAT(Write(store_->contexts, &Contexts::CreateContext, request), HasCode(absl::StatusCode::kInvalidArgument));
  request.set_context_id("c");
  request.set_author(std::string("nul\0", 4));
  EXPECT_THAT(Write(store_->contexts, &Contexts::CreateContext, request),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "NUL"));
  Create("c", R"({"a":1})");
  Create("c", R"({"a":1})");  // the same again is the same
  request.clear_author();
  ToProto(Json{{"a", 2}}, request.mutable_document());
  EXPECT_THAT(Write(store_->contexts, &Contexts::CreateContext, request), HasCode(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(Update(DumpJson(Json{{"a", std::string(5 << 20, 'x')}}), v1::MERGE_STRATEGY_DEEP_MERGE),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "at most 4194304"));
  EXPECT_EQ(Get()->version(), 1);
}

TEST_P(ContextTest, ADeletedContextLeavesNothing) {
  Create("c", absl::StrCat("{\"a\":\"", std::string(5000, 'x'), "\"}"));
  EXPECT_EQ(Number("SELECT count(*) FROM payload_refs"), 1);
  v1::DeleteContextRequest request;
  request.set_context_id("c");
  ASSERT_THAT(Write(store_->contexts, &Contexts::DeleteContext, request), IsOk());
  EXPECT_THAT(Get(), HasCode(absl::StatusCode::kNotFound));
  EXPECT_EQ(Number("SELECT count(*) FROM context_versions"), 0);
  EXPECT_EQ(Number("SELECT count(*) FROM payload_refs"), 0);
}

}  // namespace
}  // namespace tutti::state_manager::testing
