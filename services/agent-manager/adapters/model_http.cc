#include "services/agent-manager/adapters/model_http.h"

#include "absl/strings/str_cat.h"
#include "runtime/http/event_stream.h"
#include "runtime/status/macros.h"

namespace tutti::agent_manager {

Task<absl::StatusOr<Json>> AskModel(HttpClient& http, CallContext& call, HttpRequest request, std::string who,
                                    AnswerInPieces* pieces) {
  bool streamed = false;
  absl::Status broken;
  EventStreamParser parser([&](absl::string_view, absl::string_view data) {
    if (!broken.ok()) return;
    try {
      auto json = ParseJson(data);
      pieces->Add(data, json.ok() ? *json : Json());
    } catch (const Json::exception& e) {
      broken = absl::UnavailableError(absl::StrCat(who, ": unexpected event: ", e.what()));
    }
  });
  if (pieces) {
    request.on_event_stream = [&](absl::string_view piece) {
      streamed = true;
      parser.Feed(piece);
    };
  }
  TUTTI_CO_ASSIGN_OR_RETURN(HttpResponse response, co_await http.Send(call, std::move(request)));
  if (response.status != 200) co_return AnswerError(who, response);
  if (streamed) {
    TUTTI_CO_RETURN_IF_ERROR(broken);
    co_return pieces->Take();
  }
  auto answer = ParseJson(response.body);
  if (!answer.ok()) co_return absl::UnavailableError(absl::StrCat(who, ": ", answer.status().message()));
  co_return answer;
}

}  // namespace tutti::agent_manager
