// Implements MessageService over all databases of the store.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/page_token.h"
#include "services/state-manager/rpc/audit_note.h"
#include "services/state-manager/rpc/services.h"

namespace tutti::state_manager {
namespace {

constexpr char kTokensOf[] = "set_aside_messages";

}  // namespace

TUTTI_STORE_ENTRY_(MessageRpc, MessageService, ListSetAsideMessages) {
  TUTTI_CO_ASSIGN_OR_RETURN(const int page_size, PageSize(request.page_size()));
  v1::ListSetAsideMessagesRequest page = request;
  page.set_page_size(page_size + 1);
  TUTTI_CO_ASSIGN_OR_RETURN(*page.mutable_page_token(), DecodePageToken(request.page_token(), kTokensOf));
  for (size_t i = 0; i < shards_.size(); ++i) {
    auto list = [&outbox = outbox_, page](Transaction& tx, v1::ListSetAsideMessagesResponse& out) {
      return outbox.ListSetAside(tx, page, out);
    };
    TUTTI_CO_ASSIGN_OR_RETURN(auto part, co_await shards_.at(i).Read<v1::ListSetAsideMessagesResponse>(
                                             *call.executor, call.deadline, /*allow_stale=*/false, std::move(list)));
    response.mutable_messages()->MergeFrom(part.messages());
  }
  auto* messages = response.mutable_messages();
  std::sort(messages->begin(), messages->end(),
            [](const auto& left, const auto& right) { return left.message_id() < right.message_id(); });
  if (messages->size() > page_size) {
    messages->DeleteSubrange(page_size, messages->size() - page_size);
    response.set_next_page_token(EncodePageToken(messages->rbegin()->message_id(), kTokensOf));
  }
  co_return absl::OkStatus();
}

TUTTI_STORE_ENTRY_(MessageRpc, MessageService, RetrySetAsideMessage) {
  bool found = false;
  for (size_t i = 0; i < shards_.size() && !found; ++i) {
    auto retry = [&outbox = outbox_, id = request.message_id()](Transaction& tx, bool& out) {
      auto again = outbox.Retry(tx, id);
      if (again.ok()) out = *again;
      return again.status();
    };
    TUTTI_CO_ASSIGN_OR_RETURN(
        found, co_await shards_.at(i).Write<bool>(*call.executor, call.deadline, LaneOf("outbox"), std::move(retry)));
  }
  if (!found) {
    co_return Error(
        absl::StatusCode::kNotFound, "MESSAGE_NOT_FOUND",
        absl::StrCat("no message ", request.message_id(), " is set aside; `tutti messages list` shows those that are"))
        .Metadata("message_id", request.message_id());
  }
  v1::AppendAuditRecordRequest note =
      AuditNote(call, "messages.retry", absl::StrCat("setAsideMessages/", request.message_id()));
  auto append = [&audit = audit_, note](Transaction& tx, v1::AppendAuditRecordResponse& out) {
    return audit.AppendAuditRecord(tx, note, out);
  };
  auto noted = co_await access_.Write<v1::AppendAuditRecordResponse>(*call.executor, call.deadline, LaneOf("audit"),
                                                                     std::move(append));
  co_return noted.status();
}

}  // namespace tutti::state_manager
