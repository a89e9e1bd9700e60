#include "services/state-manager/store/conversations.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/json/json.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/state-manager/store/rows.h"

namespace tutti::state_manager {
namespace {

constexpr int kMaxMessages = 1000;
constexpr size_t kMaxBytes = size_t{4} << 20;
constexpr int64_t kMostTokens = int64_t{1} << 40;
constexpr int kKeptFromSummary = 10;
// A window is chosen among at most this many of the last messages.
constexpr int kWindowRows = 10000;

std::string OwnerOf(absl::string_view id) { return absl::StrCat("conversations/", id); }
std::string FieldOf(absl::string_view message_id) { return absl::StrCat("messages/", message_id); }

absl::Status NotFound(absl::string_view id) {
  return Error(absl::StatusCode::kNotFound, "CONVERSATION_NOT_FOUND",
               absl::StrCat("conversation ", id, " does not exist"))
      .Metadata("conversation_id", id);
}

absl::string_view NameOf(v1::Role role) {
  switch (role) {
    case v1::ROLE_SYSTEM:
      return "system";
    case v1::ROLE_ASSISTANT:
      return "assistant";
    case v1::ROLE_TOOL:
      return "tool";
    case v1::ROLE_SUMMARY:
      return "summary";
    default:
      return "user";
  }
}

v1::Role RoleOf(absl::string_view name) {
  for (v1::Role role : {v1::ROLE_SYSTEM, v1::ROLE_ASSISTANT, v1::ROLE_TOOL, v1::ROLE_SUMMARY}) {
    if (name == NameOf(role)) return role;
  }
  return v1::ROLE_USER;
}

// What a reader sees of a message.
std::string TextOf(const v1::Message& message) {
  std::string out;
  for (const auto& part : message.parts()) {
    if (part.has_text()) absl::StrAppend(&out, part.text(), "\n");
    if (part.has_data()) absl::StrAppend(&out, DumpJson(ToJson(part.data())), "\n");
    if (part.has_uri()) absl::StrAppend(&out, part.uri(), "\n");
  }
  for (const auto& call : message.tool_calls()) {
    absl::StrAppend(&out, call.name(), " ", DumpJson(ToJson(call.arguments())), "\n");
  }
  return out;
}

int64_t CountTokens(const v1::Message& message) {
  // About four bytes a token in European languages, for the tokenizers of the models in use; callers that know better
  // say.
  return std::max<int64_t>(1, static_cast<int64_t>((TextOf(message).size() + 3) / 4));
}

absl::Status CheckMessage(const v1::Message& message, int index) {
  std::string at = absl::StrCat("messages[", index, "]");
  if (message.role() == v1::ROLE_UNSPECIFIED || !v1::Role_IsValid(message.role()) ||
      message.role() == v1::ROLE_SUMMARY) {
    return Invalid(at + ".role", "must be SYSTEM, USER, ASSISTANT or TOOL");
  }
  if (!message.message_id().empty()) TUTTI_RETURN_IF_ERROR(CheckText(at + ".message_id", message.message_id(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText(at + ".author", message.author(), 200));
  if (message.parts().empty() && message.tool_calls().empty()) return Invalid(at + ".parts", "must be given");
  for (const auto& part : message.parts()) {
    if (part.part_case() == v1::Part::PART_NOT_SET) return Invalid(at + ".parts", "has a part without content");
  }
  if (message.role() == v1::ROLE_TOOL && message.tool_call_id().empty()) {
    return Invalid(at + ".tool_call_id", "must say which call a tool's result answers");
  }
  if (message.role() != v1::ROLE_ASSISTANT && !message.tool_calls().empty()) {
    return Invalid(at + ".tool_calls", "belong to the assistant");
  }
  if (message.tokens() < 0 || message.tokens() > kMostTokens) return Invalid(at + ".tokens", "is out of range");
  return absl::OkStatus();
}

}  // namespace

Window ChooseWindow(const std::vector<v1::Message>& all, int64_t max_tokens) {
  // The widest summaries stand for what they cover, also for summaries within.
  std::vector<const v1::Message*> summaries;
  for (const auto& message : all) {
    if (message.role() == v1::ROLE_SUMMARY) summaries.push_back(&message);
  }
  auto covered = [&](const v1::Message& message) {
    for (const auto* summary : summaries) {
      if (summary == &message) continue;
      bool is_summary = message.role() == v1::ROLE_SUMMARY;
      int64_t first = is_summary ? message.first_summarized_seq() : message.seq();
      int64_t last = is_summary ? message.last_summarized_seq() : message.seq();
      bool inside = summary->first_summarized_seq() <= first && last <= summary->last_summarized_seq();
      bool wider = !is_summary || summary->seq() > message.seq();  // of equal ranges the later one counts
      if (inside && wider) return true;
    }
    return false;
  };
  // Where each message stands: a summary at its first message's place.
  std::map<std::pair<int64_t, int64_t>, const v1::Message*> shown;
  std::vector<const v1::Message*> system;
  for (const auto& message : all) {
    if (message.role() == v1::ROLE_SYSTEM) {
      system.push_back(&message);
    } else if (!covered(message)) {
      int64_t place = message.role() == v1::ROLE_SUMMARY ? message.first_summarized_seq() : message.seq();
      shown[{place, message.seq()}] = &message;
    }
  }
  Window out;
  for (const auto* message : system) {
    if (out.tokens + message->tokens() > max_tokens) {
      ++out.omitted;
      continue;
    }
    out.messages.push_back(message);
    out.tokens += message->tokens();
  }
  // Groups that stand or fall together: an assistant's calls and the results that follow.
  std::vector<std::vector<const v1::Message*>> groups;
  for (const auto& [place, message] : shown) {
    bool continues = message->role() == v1::ROLE_TOOL && !groups.empty() &&
                     (groups.back().back()->role() == v1::ROLE_TOOL || !groups.back().back()->tool_calls().empty());
    if (!continues) groups.emplace_back();
    groups.back().push_back(message);
  }
  size_t begin = groups.size();
  while (begin > 0) {
    int64_t tokens = 0;
    for (const auto* message : groups[begin - 1]) tokens += message->tokens();
    if (out.tokens + tokens > max_tokens) break;
    out.tokens += tokens;
    --begin;
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    for (const auto* message : groups[i]) {
      if (i >= begin) {
        out.messages.push_back(message);
      } else {
        ++out.omitted;
      }
    }
  }
  return out;
}

absl::StatusOr<v1::Conversation> Conversations::Load(Transaction& tx, const std::string& id, bool lock) const {
  Statement row = tx.Prepare(absl::StrCat(
      "SELECT tenant, agent, title, labels, last_seq, tokens, create_time, update_time FROM conversations WHERE "
      "conversation_id = $1",
      lock ? " FOR UPDATE" : ""));
  row.Bind(id);
  if (!row.Step()) return row.status().ok() ? NotFound(id) : row.status();
  v1::Conversation out;
  out.set_conversation_id(id);
  out.set_tenant(row.Text(0));
  out.set_agent(row.Text(1));
  out.set_title(row.Text(2));
  FromJsonText(row.Text(3), out.mutable_labels());
  out.set_message_count(row.Int(4));
  out.set_tokens(row.Int(5));
  SetMicros(row.Int(6), out.mutable_create_time());
  SetMicros(row.Int(7), out.mutable_update_time());
  return out;
}

absl::Status Conversations::CreateConversation(Transaction& tx, const v1::CreateConversationRequest& request,
                                               v1::CreateConversationResponse& response) const {
  v1::Conversation conversation = request.conversation();
  if (conversation.conversation_id().empty()) conversation.set_conversation_id(ids_.NewUlid());
  TUTTI_RETURN_IF_ERROR(CheckId("conversation.conversation_id", conversation.conversation_id()));
  TUTTI_RETURN_IF_ERROR(CheckText("conversation.tenant", conversation.tenant(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("conversation.agent", conversation.agent(), 200));
  TUTTI_RETURN_IF_ERROR(CheckText("conversation.title", conversation.title(), 500));
  TUTTI_RETURN_IF_ERROR(CheckLabels("conversation.labels", conversation.labels()));
  TUTTI_RETURN_IF_ERROR(
      tx.Prepare(
            "INSERT INTO conversations (conversation_id, tenant, agent, title, labels, last_seq, tokens, create_time, "
            "update_time) VALUES ($1, $2, $3, $4, $5, 0, 0, $6, $6) ON CONFLICT DO NOTHING")
          .BindAll(conversation.conversation_id(), conversation.tenant(), conversation.agent(), conversation.title(),
                   ToJsonText(conversation.labels()), tx.NowMicros())
          .Run());
  TUTTI_ASSIGN_OR_RETURN(v1::Conversation stored, Load(tx, conversation.conversation_id(), /*lock=*/false));
  if (stored.tenant() != conversation.tenant()) {
    return Error(absl::StatusCode::kAlreadyExists, "CONVERSATION_EXISTS",
                 absl::StrCat("conversation id ", conversation.conversation_id(), " is taken; choose another"));
  }
  *response.mutable_conversation() = std::move(stored);
  return absl::OkStatus();
}

absl::Status Conversations::GetConversation(Transaction& tx, const v1::GetConversationRequest& request,
                                            v1::GetConversationResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(*response.mutable_conversation(), Load(tx, request.conversation_id(), /*lock=*/false));
  return absl::OkStatus();
}

absl::Status Conversations::ListConversations(Transaction& tx, const v1::ListConversationsRequest& request,
                                              v1::ListConversationsResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(int page, PageSize(request.page_size()));
  TUTTI_ASSIGN_OR_RETURN(std::string cursor, DecodePageToken(request.page_token(), request.tenant()));
  int64_t before = std::numeric_limits<int64_t>::max();
  std::string before_id;
  if (!cursor.empty()) {
    size_t space = cursor.find(' ');
    if (space == std::string::npos || !absl::SimpleAtoi(cursor.substr(0, space), &before)) {
      return Invalid("page_token", "is not one of ours");
    }
    before_id = cursor.substr(space + 1);
  }
  std::vector<std::string> ids;
  bool more = false;
  int64_t last_time = 0;
  {
    Statement rows = tx.Prepare(
        "SELECT conversation_id, update_time FROM conversations WHERE tenant = $1 AND (update_time < $2 OR "
        "(update_time = $2 "
        "AND conversation_id < $3)) ORDER BY update_time DESC, conversation_id DESC LIMIT $4");
    rows.BindAll(request.tenant(), before, before_id, page + 1);
    while (rows.Step()) {
      more = static_cast<int>(ids.size()) == page;
      if (more) break;
      ids.push_back(rows.Text(0));
      last_time = rows.Int(1);
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
  }
  if (more) response.set_next_page_token(EncodePageToken(absl::StrCat(last_time, " ", ids.back()), request.tenant()));
  for (const auto& id : ids) {
    TUTTI_ASSIGN_OR_RETURN(*response.add_conversations(), Load(tx, id, /*lock=*/false));
  }
  return absl::OkStatus();
}

absl::Status Conversations::DeleteConversation(Transaction& tx, const v1::DeleteConversationRequest& request,
                                               v1::DeleteConversationResponse&) const {
  const std::string& id = request.conversation_id();
  Statement remove = tx.Prepare("DELETE FROM conversations WHERE conversation_id = $1");
  TUTTI_RETURN_IF_ERROR(remove.BindAll(id).Run());
  if (remove.Changes() == 0) return NotFound(id);
  TUTTI_RETURN_IF_ERROR(tx.Prepare("DELETE FROM messages WHERE conversation_id = $1").BindAll(id).Run());
  return Payloads::Forget(tx, OwnerOf(id));
}

absl::StatusOr<v1::Message> Conversations::MessageFromRow(Transaction& tx, const std::string& conversation,
                                                          const Statement& row) const {
  // The message's id is its cell's place, and stands in a column.
  TUTTI_ASSIGN_OR_RETURN(std::string bytes,
                         payloads_.Get(tx, OwnerOf(conversation), FieldOf(row.Text(6)), row.Bytes(1)));
  v1::Message out;
  out.ParseFromString(bytes);
  out.set_seq(row.Int(0));
  out.set_tokens(row.Int(2));
  out.set_first_summarized_seq(row.Int(3));
  out.set_last_summarized_seq(row.Int(4));
  SetMicros(row.Int(5), out.mutable_time());
  return out;
}

absl::Status Conversations::Insert(Transaction& tx, const std::string& conversation, v1::Message& message) const {
  TUTTI_ASSIGN_OR_RETURN(std::string cell, payloads_.Put(tx, OwnerOf(conversation), FieldOf(message.message_id()),
                                                         message.SerializeAsString()));
  const int64_t now = tx.NowMicros();
  SetMicros(now, message.mutable_time());
  return tx
      .Prepare(
          "INSERT INTO messages (conversation_id, seq, message_id, role, author, content, tokens, tool_calls, "
          "first_summarized, last_summarized, time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
      .BindAll(conversation, message.seq(), message.message_id(), NameOf(message.role()), message.author(),
               SqlArg::Bytes(cell), message.tokens(), message.tool_calls_size(), message.first_summarized_seq(),
               message.last_summarized_seq(), now)
      .Run();
}

absl::Status Conversations::UpdateTotals(Transaction& tx, const v1::Conversation& conversation) const {
  return tx.Prepare("UPDATE conversations SET last_seq = $2, tokens = $3, update_time = $4 WHERE conversation_id = $1")
      .BindAll(conversation.conversation_id(), conversation.message_count(), conversation.tokens(), tx.NowMicros())
      .Run();
}

absl::Status Conversations::AppendMessages(Transaction& tx, const v1::AppendMessagesRequest& request,
                                           v1::AppendMessagesResponse& response) const {
  if (request.messages().empty() || request.messages_size() > kMaxMessages) {
    return Invalid("messages", absl::StrCat("has ", request.messages_size(), " entries; 1 to ", kMaxMessages));
  }
  if (request.ByteSizeLong() > kMaxBytes) {
    return Invalid("messages", absl::StrCat("have ", request.ByteSizeLong(), " bytes; at most ", kMaxBytes));
  }
  for (int i = 0; i < request.messages_size(); ++i) TUTTI_RETURN_IF_ERROR(CheckMessage(request.messages(i), i));
  TUTTI_ASSIGN_OR_RETURN(v1::Conversation conversation, Load(tx, request.conversation_id(), /*lock=*/true));
  for (const auto& given : request.messages()) {
    v1::Message message = given;
    if (message.message_id().empty()) message.set_message_id(ids_.NewUlid());
    {
      Statement known =
          tx.Prepare("SELECT seq, tokens, time FROM messages WHERE conversation_id = $1 AND message_id = $2");
      known.BindAll(request.conversation_id(), message.message_id());
      bool there = known.Step();
      TUTTI_RETURN_IF_ERROR(known.status());
      if (there) {
        message.set_seq(known.Int(0));
        message.set_tokens(known.Int(1));
        SetMicros(known.Int(2), message.mutable_time());
        message.clear_parts();
        message.clear_tool_calls();
        *response.add_messages() = std::move(message);
        continue;
      }
    }
    conversation.set_message_count(conversation.message_count() + 1);
    message.set_seq(conversation.message_count());
    message.clear_first_summarized_seq();
    message.clear_last_summarized_seq();
    if (message.tokens() == 0) message.set_tokens(CountTokens(message));
    conversation.set_tokens(conversation.tokens() + message.tokens());
    TUTTI_RETURN_IF_ERROR(Insert(tx, request.conversation_id(), message));
    message.clear_parts();
    message.clear_tool_calls();
    *response.add_messages() = std::move(message);
  }
  return UpdateTotals(tx, conversation);
}

absl::Status Conversations::ListMessages(Transaction& tx, const v1::ListMessagesRequest& request,
                                         v1::ListMessagesResponse& response) const {
  TUTTI_ASSIGN_OR_RETURN(int page, PageSize(request.page_size()));
  std::string bound_to = absl::StrCat(request.conversation_id(), request.include_summaries() ? "+" : "");
  TUTTI_ASSIGN_OR_RETURN(std::string cursor, DecodePageToken(request.page_token(), bound_to));
  int64_t after = 0;
  if (!cursor.empty() && !absl::SimpleAtoi(cursor, &after)) return Invalid("page_token", "is not one of ours");
  TUTTI_RETURN_IF_ERROR(Load(tx, request.conversation_id(), /*lock=*/false).status());
  Statement rows = tx.Prepare(
      "SELECT seq, content, tokens, first_summarized, last_summarized, time, message_id FROM messages WHERE "
      "conversation_id = "
      "$1 AND seq > $2 AND (last_summarized = 0 OR $3::bigint = 1) ORDER BY seq LIMIT $4");
  rows.BindAll(request.conversation_id(), after, request.include_summaries(), page + 1);
  size_t bytes = 0;
  while (rows.Step()) {
    TUTTI_ASSIGN_OR_RETURN(v1::Message message, MessageFromRow(tx, request.conversation_id(), rows));
    bytes += message.ByteSizeLong();
    if (response.messages_size() == page || (bytes > kMaxBytes / 2 && response.messages_size() > 0)) {
      response.set_next_page_token(EncodePageToken(absl::StrCat(response.messages().rbegin()->seq()), bound_to));
      break;
    }
    *response.add_messages() = std::move(message);
  }
  return rows.status();
}

absl::Status Conversations::GetWindow(Transaction& tx, const v1::GetWindowRequest& request,
                                      v1::GetWindowResponse& response) const {
  if (request.max_tokens() < 1) return Invalid("max_tokens", "must be at least 1");
  TUTTI_ASSIGN_OR_RETURN(v1::Conversation conversation, Load(tx, request.conversation_id(), /*lock=*/false));
  // Chosen by what stands in columns; the contents are read of the chosen ones only.
  std::vector<v1::Message> all;
  {
    // The last ones, and whatever has an effect from before: system messages and summaries.
    Statement rows = tx.Prepare(
        "SELECT seq, role, tokens, tool_calls, first_summarized, last_summarized FROM messages WHERE conversation_id = "
        "$1 AND "
        "(seq > $2 OR role IN ('system', 'summary')) ORDER BY seq DESC LIMIT $3");
    rows.BindAll(request.conversation_id(), conversation.message_count() - kWindowRows, 2 * kWindowRows);
    while (rows.Step()) {
      v1::Message message;
      message.set_seq(rows.Int(0));
      message.set_role(RoleOf(rows.Text(1)));
      message.set_tokens(rows.Int(2));
      if (rows.Int(3) > 0) message.add_tool_calls();
      message.set_first_summarized_seq(rows.Int(4));
      message.set_last_summarized_seq(rows.Int(5));
      all.push_back(std::move(message));
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    std::reverse(all.begin(), all.end());
  }
  Window window = ChooseWindow(all, request.max_tokens());
  size_t bytes = 0;
  for (const auto* chosen : window.messages) {
    Statement row = tx.Prepare(
        "SELECT seq, content, tokens, first_summarized, last_summarized, time, message_id FROM messages WHERE "
        "conversation_id = $1 AND seq = $2");
    row.BindAll(request.conversation_id(), chosen->seq());
    if (!row.Step()) {
      TUTTI_RETURN_IF_ERROR(row.status());
      continue;
    }
    TUTTI_ASSIGN_OR_RETURN(v1::Message message, MessageFromRow(tx, request.conversation_id(), row));
    bytes += message.ByteSizeLong();
    if (bytes > kMaxBytes) {
      return Error(absl::StatusCode::kResourceExhausted, "WINDOW_TOO_LARGE",
                   absl::StrCat("the window's messages have more than ", kMaxBytes,
                                " bytes; ask for fewer tokens, or summarize"));
    }
    *response.add_messages() = std::move(message);
  }
  response.set_tokens(window.tokens);
  response.set_omitted(window.omitted);
  return absl::OkStatus();
}

absl::Status Conversations::SummarizeMessages(Transaction& tx, const v1::SummarizeMessagesRequest& request,
                                              v1::SummarizeMessagesResponse& response) const {
  TUTTI_RETURN_IF_ERROR(CheckText("text", request.text(), kMaxBytes / 4));
  TUTTI_RETURN_IF_ERROR(CheckText("author", request.author(), 200));
  TUTTI_ASSIGN_OR_RETURN(v1::Conversation conversation, Load(tx, request.conversation_id(), /*lock=*/true));
  const int64_t first = std::max<int64_t>(1, request.first_seq());
  const int64_t last = request.last_seq() == 0 ? conversation.message_count() - kKeptFromSummary : request.last_seq();
  if (first > last || last > conversation.message_count()) {
    return Invalid("last_seq",
                   absl::StrCat("the range ", first, " to ", last, " is empty or ends after the last message, ",
                                conversation.message_count()));
  }
  {
    Statement partly = tx.Prepare(
        "SELECT first_summarized, last_summarized FROM messages WHERE conversation_id = $1 AND last_summarized > 0 AND "
        "first_summarized <= $3 AND last_summarized >= $2 AND (first_summarized < $2 OR last_summarized > $3) LIMIT 1");
    partly.BindAll(request.conversation_id(), first, last);
    bool overlaps = partly.Step();
    TUTTI_RETURN_IF_ERROR(partly.status());
    if (overlaps) {
      return Error(absl::StatusCode::kFailedPrecondition, "SUMMARIES_OVERLAP",
                   absl::StrCat("the range ", first, " to ", last, " overlaps the summary of ", partly.Int(0), " to ",
                                partly.Int(1), " only partly; take it in whole"));
    }
  }
  std::string text = request.text();
  if (text.empty()) {
    std::string originals;
    Statement rows = tx.Prepare(
        "SELECT seq, content, tokens, first_summarized, last_summarized, time, message_id FROM messages WHERE "
        "conversation_id "
        "= $1 AND seq >= $2 AND seq <= $3 AND last_summarized = 0 AND role <> 'system' ORDER BY seq");
    rows.BindAll(request.conversation_id(), first, last);
    while (rows.Step()) {
      TUTTI_ASSIGN_OR_RETURN(v1::Message message, MessageFromRow(tx, request.conversation_id(), rows));
      absl::StrAppend(&originals, TextOf(message), "\n");
      if (originals.size() > kMaxBytes / 4) {
        return Invalid("last_seq",
                       absl::StrCat("ends a range of more than ", kMaxBytes / 4, " bytes; summarize it in parts"));
      }
    }
    TUTTI_RETURN_IF_ERROR(rows.status());
    TUTTI_ASSIGN_OR_RETURN(text, summarizer_.Summarize(originals));
  }
  v1::Message summary;
  summary.set_message_id(ids_.NewUlid());
  summary.set_role(v1::ROLE_SUMMARY);
  summary.set_author(request.author().empty() && request.text().empty() ? summarizer_.name() : request.author());
  summary.add_parts()->set_text(text);
  summary.set_tokens(CountTokens(summary));
  summary.set_first_summarized_seq(first);
  summary.set_last_summarized_seq(last);
  conversation.set_message_count(conversation.message_count() + 1);
  summary.set_seq(conversation.message_count());
  TUTTI_RETURN_IF_ERROR(Insert(tx, request.conversation_id(), summary));
  TUTTI_RETURN_IF_ERROR(UpdateTotals(tx, conversation));
  *response.mutable_summary() = std::move(summary);
  return absl::OkStatus();
}

}  // namespace tutti::state_manager
