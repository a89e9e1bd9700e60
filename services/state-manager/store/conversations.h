// Conversations: messages in order, windows, summaries beside the originals.
#pragma once

#include <string>
#include <vector>

#include "runtime/random/random.h"
#include "services/state-manager/ports/database.h"
#include "services/state-manager/ports/summarizer.h"
#include "services/state-manager/store/payloads.h"
#include "tutti/state/v1/conversation_service.pb.h"

namespace tutti::state_manager {

namespace v1 = tutti::state::v1;

class Conversations {
 public:
  Conversations(const Payloads& payloads, const Summarizer& summarizer, IdSource& ids)
      : payloads_(payloads), summarizer_(summarizer), ids_(ids) {}

  absl::Status CreateConversation(Transaction& tx, const v1::CreateConversationRequest& request,
                                  v1::CreateConversationResponse& response) const;
  absl::Status GetConversation(Transaction& tx, const v1::GetConversationRequest& request,
                               v1::GetConversationResponse& response) const;
  absl::Status ListConversations(Transaction& tx, const v1::ListConversationsRequest& request,
                                 v1::ListConversationsResponse& response) const;
  absl::Status DeleteConversation(Transaction& tx, const v1::DeleteConversationRequest& request,
                                  v1::DeleteConversationResponse& response) const;
  absl::Status AppendMessages(Transaction& tx, const v1::AppendMessagesRequest& request,
                              v1::AppendMessagesResponse& response) const;
  absl::Status ListMessages(Transaction& tx, const v1::ListMessagesRequest& request,
                            v1::ListMessagesResponse& response) const;
  absl::Status GetWindow(Transaction& tx, const v1::GetWindowRequest& request, v1::GetWindowResponse& response) const;
  absl::Status SummarizeMessages(Transaction& tx, const v1::SummarizeMessagesRequest& request,
                                 v1::SummarizeMessagesResponse& response) const;

 private:
  absl::StatusOr<v1::Conversation> Load(Transaction& tx, const std::string& id, bool lock) const;
  absl::StatusOr<v1::Message> MessageFromRow(Transaction& tx, const std::string& conversation,
                                             const Statement& row) const;
  absl::Status Insert(Transaction& tx, const std::string& conversation, v1::Message& message) const;
  absl::Status UpdateTotals(Transaction& tx, const v1::Conversation& conversation) const;

  const Payloads& payloads_;
  const Summarizer& summarizer_;
  IdSource& ids_;
};

// What a model reads of a conversation, from all messages in order (originals and summaries): system messages, then the
// last that fit. A call of a tool and its results stand or fall together.
struct Window {
  std::vector<const v1::Message*> messages;  // in order
  int64_t tokens = 0;
  int64_t omitted = 0;
};
Window ChooseWindow(const std::vector<v1::Message>& all, int64_t max_tokens);

}  // namespace tutti::state_manager
