// How providers ask a model over HTTP, whether it answers as a whole or as a stream of events.
#pragma once

#include "runtime/http/http_client.h"
#include "runtime/json/json.h"

namespace tutti::agent_manager {

// Puts an answer together from the events of a stream.
class AnswerInPieces {
 public:
  virtual ~AnswerInPieces() = default;
  // One event's data, as JSON or as it is when it is none. May throw Json::exception: then the stream is not what it
  // should be.
  virtual void Add(absl::string_view data, const Json& json) = 0;
  // The answer, as the API gives it when it is asked for the whole. UNAVAILABLE: it broke off. Other errors are the
  // model's.
  virtual absl::StatusOr<Json> Take() = 0;
};

// The answer's JSON. `pieces` (may be null) is used if `who` answers with a stream.
Task<absl::StatusOr<Json>> AskModel(HttpClient& http, CallContext& call, HttpRequest request, std::string who,
                                    AnswerInPieces* pieces);

}  // namespace tutti::agent_manager
