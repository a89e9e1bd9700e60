// Conversations and sessions, on every engine.
#include "services/state-manager/store/testing/store_fixture.h"

namespace tutti::state_manager::testing {
namespace {

class ConversationTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    if (IsSkipped()) return;
    v1::CreateConversationRequest request;
    request.mutable_conversation()->set_conversation_id("c");
    ASSERT_THAT(Write(store_->conversations, &Conversations::CreateConversation, request), IsOk());
  }
  static void Add(v1::AppendMessagesRequest& request, v1::Role role, const std::string& text, int64_t tokens = 10,
                  const std::string& id = "") {
    auto* message = request.add_messages();
    message->set_role(role);
    message->set_message_id(id);
    message->set_tokens(tokens);
    if (!text.empty()) message->add_parts()->set_text(text);
  }
  absl::Status Say(v1::Role role, const std::string& text, int64_t tokens = 10, const std::string& id = "") {
    v1::AppendMessagesRequest request;
    request.set_conversation_id("c");
    Add(request, role, text, tokens, id);
    return Write(store_->conversations, &Conversations::AppendMessages, request).status();
  }
  std::string Window(int64_t tokens, int64_t* omitted = nullptr) {
    v1::GetWindowRequest request;
    request.set_conversation_id("c");
    request.set_max_tokens(tokens);
    auto window = Read(store_->conversations, &Conversations::GetWindow, request);
    EXPECT_THAT(window, IsOk());
    EXPECT_LE(window->tokens(), tokens);
    if (omitted) *omitted = window->omitted();
    std::string out;
    for (const auto& message : window->messages())
      absl::StrAppend(&out, message.parts_size() ? message.parts(0).text() : "call", " ");
    return out;
  }
  absl::StatusOr<v1::Message> Summarize(int64_t first, int64_t last, const std::string& text) {
    v1::SummarizeMessagesRequest request;
    request.set_conversation_id("c");
    request.set_first_seq(first);
    request.set_last_seq(last);
    request.set_text(text);
    auto answer = Write(store_->conversations, &Conversations::SummarizeMessages, request);
    if (!answer.ok()) return answer.status();
    return answer->summary();
  }
};
TUTTI_ON_ALL_ENGINES(ConversationTest);

TEST_P(ConversationTest, MessagesKeepTheirOrderAndAreAddedOnce) {
  v1::AppendMessagesRequest request;
  request.set_conversation_id("c");
  Add(request, v1::ROLE_USER, "one", 0, "m1");
  Add(request, v1::ROLE_ASSISTANT, std::string(5000, 'x'), 0, "m2");
  ASSERT_THAT(Write(store_->conversations, &Conversations::AppendMessages, request), IsOk());
  auto again = Write(store_->conversations, &Conversations::AppendMessages, request);  // the answer was lost
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->messages(1).seq(), 2);
  v1::ListMessagesRequest list;
  list.set_conversation_id("c");
  list.set_page_size(1);
  auto page = Read(store_->conversations, &Conversations::ListMessages, list);
  EXPECT_EQ(page->messages(0).parts(0).text(), "one");
  EXPECT_EQ(page->messages(0).tokens(), 1);
  list.set_page_token(page->next_page_token());
  page = Read(store_->conversations, &Conversations::ListMessages, list);
  EXPECT_EQ(page->messages(0).parts(0).text().size(), 5000u);
  EXPECT_TRUE(page->next_page_token().empty());
  v1::GetConversationRequest get;
  get.set_conversation_id("c");
  EXPECT_EQ(Read(store_->conversations, &Conversations::GetConversation, get)->conversation().message_count(), 2);
}

TEST_P(ConversationTest, AWindowHoldsTheLastThatFitAndCallsWithTheirResults) {
  ASSERT_THAT(Say(v1::ROLE_SYSTEM, "rules"), IsOk());
  ASSERT_THAT(Say(v1::ROLE_USER, "u1"), IsOk());
  v1::AppendMessagesRequest request;
  request.set_conversation_id("c");
  Add(request, v1::ROLE_ASSISTANT, "");
  auto* call = request.mutable_messages(0)->add_tool_calls();
  call->set_id("t1");
  call->set_name("search");
  Add(request, v1::ROLE_TOOL, "result");
  request.mutable_messages(1)->set_tool_call_id("t1");
  ASSERT_THAT(Write(store_->conversations, &Conversations::AppendMessages, request), IsOk());
  ASSERT_THAT(Say(v1::ROLE_USER, "u2"), IsOk());
  int64_t omitted = 0;
  EXPECT_EQ(Window(1000, &omitted), "rules u1 call result u2 ");
  EXPECT_EQ(omitted, 0);
  EXPECT_EQ(Window(40, &omitted), "rules call result u2 ");
  EXPECT_EQ(omitted, 1);
  EXPECT_EQ(Window(35, &omitted), "rules u2 ") << "a result without its call would be refused by every model";
  EXPECT_EQ(omitted, 3);
}

TEST_P(ConversationTest, ASummaryStandsForWhatItCoversAndTheOriginalsStay) {
  for (int i = 1; i <= 20; ++i) ASSERT_THAT(Say(v1::ROLE_USER, absl::StrCat("m", i)), IsOk());
  ASSERT_THAT(Summarize(1, 15, "S1"), IsOk());
  EXPECT_EQ(Window(1000), "S1 m16 m17 m18 m19 m20 ");
  EXPECT_THAT(Summarize(10, 18, "S2"),
              HasCodeAndText(absl::StatusCode::kFailedPrecondition, "overlaps the summary of 1 to 15"));
  ASSERT_THAT(Summarize(1, 18, "S2"), IsOk());
  EXPECT_EQ(Window(1000), "S2 m19 m20 ") << "the wider one counts";
  v1::ListMessagesRequest list;
  list.set_conversation_id("c");
  EXPECT_EQ(Read(store_->conversations, &Conversations::ListMessages, list)->messages_size(), 20);
  list.set_include_summaries(true);
  EXPECT_EQ(Read(store_->conversations, &Conversations::ListMessages, list)->messages_size(), 22);
}

TEST_P(ConversationTest, TheDefaultSummarizerWorks) {
  ASSERT_THAT(Say(v1::ROLE_USER, "The invoice for March was wrong. It named the wrong customer. The weather is nice."),
              IsOk());
  for (int i = 0; i < 10; ++i) ASSERT_THAT(Say(v1::ROLE_USER, "the wrong invoice again"), IsOk());
  auto summary = Summarize(0, 0, "");
  ASSERT_THAT(summary, IsOk());
  EXPECT_EQ(summary->author(), "extractive");
  EXPECT_EQ(summary->last_summarized_seq(), 1);
  EXPECT_NE(summary->parts(0).text().find("invoice"), std::string::npos);
}

TEST_P(ConversationTest, BadMessagesAreRefusedTogether) {
  v1::AppendMessagesRequest request;
  request.set_conversation_id("c");
  Add(request, v1::ROLE_USER, "good");
  Add(request, v1::ROLE_TOOL, "answers nothing");
  EXPECT_THAT(Write(store_->conversations, &Conversations::AppendMessages, request),
              HasCodeAndText(absl::StatusCode::kInvalidArgument, "messages[1].tool_call_id"));
  EXPECT_THAT(Say(v1::ROLE_SUMMARY, "x"), HasCode(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(Number("SELECT count(*) FROM messages"), 0);
}

class SessionTest : public StoreFixture {
 protected:
  v1::CreateSessionResponse Login(const std::string& user, int64_t seconds = 3600) {
    v1::CreateSessionRequest request;
    request.mutable_session()->set_user_id(user);
    (*request.mutable_session()->mutable_attributes())["role"] = "admin";
    request.mutable_ttl()->set_seconds(seconds);
    auto made = Write(store_->sessions, &Sessions::CreateSession, request);
    EXPECT_THAT(made, IsOk());
    return made.value_or(v1::CreateSessionResponse());
  }
  absl::StatusOr<v1::AuthenticateSessionResponse> Show(const std::string& token) {
    v1::AuthenticateSessionRequest request;
    request.set_token(token);
    return Write(store_->sessions, &Sessions::AuthenticateSession, request);
  }
};
TUTTI_ON_ALL_ENGINES(SessionTest);

TEST_P(SessionTest, ATokenOpensItsSessionUntilItEnds) {
  auto ann = Login("ann");
  EXPECT_GE(ann.token().size(), 43u);
  auto shown = Show(ann.token());
  ASSERT_THAT(shown, IsOk());
  EXPECT_EQ(shown->session().user_id(), "ann");
  EXPECT_EQ(shown->session().attributes().at("role"), "admin");
  EXPECT_THAT(Show(ann.token() + "x"), HasCode(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Show(""), HasCode(absl::StatusCode::kUnauthenticated));
  time_.Advance(absl::Hours(2));
  EXPECT_THAT(Show(ann.token()), HasCode(absl::StatusCode::kUnauthenticated));
}

TEST_P(SessionTest, TheDatabaseDoesNotKnowTheToken) {
  auto ann = Login("ann");
  EXPECT_EQ(Number(absl::StrCat("SELECT count(*) FROM sessions WHERE session_id = '", ann.session().session_id(), "'")),
            1);
  if (GetParam() == Engine::kPostgres) {
    auto dump = tutti::testing::SharedPostgres()->Sql(dsn_.substr(dsn_.rfind('=') + 1), "SELECT * FROM sessions");
    EXPECT_EQ(dump->find(ann.token()), std::string::npos);
  }
}

TEST_P(SessionTest, RevokedAtOnceAlsoAllOfAUser) {
  auto one = Login("ann"), two = Login("ann"), other = Login("bob");
  v1::RevokeSessionsRequest request;
  request.set_session_id(one.session().session_id());
  EXPECT_EQ(Write(store_->sessions, &Sessions::RevokeSessions, request)->revoked(), 1);
  EXPECT_EQ(Write(store_->sessions, &Sessions::RevokeSessions, request)->revoked(), 0);
  EXPECT_THAT(Show(one.token()), HasCode(absl::StatusCode::kUnauthenticated));
  request.Clear();
  request.set_user_id("ann");
  EXPECT_EQ(Write(store_->sessions, &Sessions::RevokeSessions, request)->revoked(), 1);
  EXPECT_THAT(Show(two.token()), HasCode(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Show(other.token()), IsOk());
  v1::ListSessionsRequest list;
  list.set_user_id("bob");
  EXPECT_EQ(Read(store_->sessions, &Sessions::ListSessions, list)->sessions_size(), 1);
}

TEST_P(SessionTest, AUsersSessionsAreListedInPagesNewestFirst) {
  std::vector<std::string> made, listed;
  for (int i = 0; i < 5; ++i) {
    made.insert(made.begin(), Login("ann").session().session_id());
    time_.Advance(absl::Milliseconds(2));
  }
  v1::ListSessionsRequest list;
  list.set_user_id("ann");
  list.set_page_size(2);
  int pages = 0;
  do {
    auto page = Read(store_->sessions, &Sessions::ListSessions, list);
    ASSERT_THAT(page, IsOk());
    for (const auto& session : page->sessions()) listed.push_back(session.session_id());
    list.set_page_token(page->next_page_token());
    ++pages;
  } while (!list.page_token().empty());
  EXPECT_EQ(listed, made);
  EXPECT_EQ(pages, 3);
}

}  // namespace
}  // namespace tutti::state_manager::testing
