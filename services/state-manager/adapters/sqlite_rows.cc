#include "services/state-manager/adapters/sqlite_rows.h"

#include "runtime/json/json.h"

namespace tutti::state_manager {

void SetMicros(int64_t micros, google::protobuf::Timestamp* out) {
  out->set_seconds(micros / 1000000);
  out->set_nanos(static_cast<int32_t>(micros % 1000000) * 1000);
}

int64_t ToMicros(const google::protobuf::Timestamp& time) { return time.seconds() * 1000000 + time.nanos() / 1000; }

tutti::state::v1::StoredRun RunFromRow(const Statement& row, bool with_payloads) {
  tutti::state::v1::StoredRun run;
  run.set_run_id(row.Text(0));
  run.set_workflow(row.Text(1));
  run.set_workflow_version(row.Int(2));
  if (with_payloads) {
    run.mutable_spec()->set_media_type("application/x-protobuf");
    run.mutable_spec()->set_data(row.Text(3));
    run.mutable_input()->set_media_type("application/json");
    run.mutable_input()->set_data(row.Text(4));
    if (std::string output = row.Text(5); !output.empty()) {
      run.mutable_output()->set_media_type("application/json");
      run.mutable_output()->set_data(output);
    }
  }
  run.set_started(row.Int(6) != 0);
  run.set_outcome(static_cast<tutti::state::v1::Outcome>(row.Int(7)));
  if (std::string error = row.Text(8); !error.empty()) run.mutable_error()->ParseFromString(error);
  SetMicros(row.Int(9), run.mutable_create_time());
  if (row.Int(10) != 0) SetMicros(row.Int(10), run.mutable_end_time());
  Json labels = Json::parse(row.Text(11), nullptr, false);
  if (labels.is_object()) {
    for (const auto& [key, value] : labels.items()) (*run.mutable_labels())[key] = value.get<std::string>();
  }
  run.set_progress_percent(static_cast<int>(row.Int(12)));
  run.set_traceparent(row.Text(13));
  run.set_cancel_requested(row.Int(14) != 0);
  run.set_request_id(row.Text(15));
  run.set_lease_epoch(row.Int(16));
  auto* usage = run.mutable_usage();
  usage->set_calls(row.Int(17));
  usage->set_input_tokens(row.Int(18));
  usage->set_output_tokens(row.Int(19));
  usage->set_cost_nano_units(row.Int(20));
  usage->set_currency_code("USD");
  return run;
}

}  // namespace tutti::state_manager
