// Rows of the runs table as messages.
#pragma once

#include <string>

#include "services/state-manager/adapters/sqlite_db.h"
#include "tutti/state/v1/run_store_service.pb.h"

namespace google::protobuf {
class Timestamp;
}

namespace tutti::state_manager {

// The columns that RunFromRow reads, in its order.
#define TUTTI_RUN_COLUMNS                                                                                             \
  "run_id, workflow, workflow_version, spec, input, output, started, outcome, error, create_time, end_time, labels, " \
  "progress_percent, traceparent, cancel_requested, request_id, lease_epoch, calls, input_tokens, output_tokens, "    \
  "cost_nano_units, owner"

tutti::state::v1::StoredRun RunFromRow(const Statement& row, bool with_payloads);
void SetMicros(int64_t micros, google::protobuf::Timestamp* out);
int64_t ToMicros(const google::protobuf::Timestamp& time);

}  // namespace tutti::state_manager
