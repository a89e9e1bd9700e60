// The CLI's commands. Each returns an exit code.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/client.h"
#include "cli/output.h"
#include "runtime/json/json.h"

namespace tutti::cli {

struct RunOptions {
  std::string what;                 // a spec's file, or a stored workflow's name
  std::vector<std::string> inputs;  // key=value; a value that is JSON is taken as such
  std::string input_json;
  std::string documents;
  std::vector<std::string> labels;
  std::string request_id, tenant;
  int priority = 0;
  int64_t version = 0;  // of a stored workflow; 0 is the latest
  std::string save;
  bool watch = false;
  std::optional<bool> texts;  // what agents say; unless said, in a terminal
};

// What --input, --input-json and --documents make together.
absl::StatusOr<Json> BuildInput(const RunOptions& options);
// Of a flag that takes key=value.
absl::StatusOr<std::pair<std::string, std::string>> KeyValue(const std::string& text, const char* flag);
int RunWorkflow(Client& client, const RunOptions& options, Format format);
int ListRuns(Client& client, const std::string& filter, int page_size, const std::string& page_token, Format format);
int GetRun(Client& client, const std::string& run_id, Format format);
int WatchRunCommand(Client& client, const std::string& run_id, std::optional<bool> texts, Format format);
int CancelRun(Client& client, const std::string& run_id, const std::string& reason, Format format);
int TerminateRun(Client& client, const std::string& run_id, const std::string& reason, Format format);
int PauseRun(Client& client, const std::string& run_id, const std::string& reason, Format format);
int ResumeRun(Client& client, const std::string& run_id, Format format);
int RetryRun(Client& client, const std::string& run_id, Format format);
struct ForkOptions {
  std::string run_id, from_step, request_id;
  std::string input;  // JSON; empty is the original's
  std::string spec;   // a file; empty is the original's
};
int ForkRun(Client& client, const ForkOptions& options, Format format);
// What each step put out, with the scores of routes and the verdicts of gates.
int ShowHistory(Client& client, const std::string& run_id, Format format);
struct SignalOptions {
  std::string run_id, signal, payload, request_id, sender;
};
int SignalRun(Client& client, const SignalOptions& options, Format format);
// A Mermaid flowchart of the steps so far, with their states.
int GraphRun(Client& client, const std::string& run_id);
absl::StatusOr<std::string> ReadSpecFile(const std::string& file);
// `what`: a file, or a stored workflow's name.
int PlanWorkflow(Client& client, const std::string& what, Format format);
int DiffWorkflow(Client& client, const std::string& name, int64_t from, int64_t to, Format format);
int ApplyWorkflow(Client& client, const std::string& file, bool validate_only, Format format);
int ListWorkflows(Client& client, Format format);
int GetWorkflow(Client& client, const std::string& name, int64_t version, Format format);
int ListAgents(Client& client, Format format);
int InvokeAgent(Client& client, const std::string& agent, const std::string& input, Format format);
int ListTools(Client& client, Format format);
int CallTool(Client& client, const std::string& tool, const std::string& parameters, Format format);
int Health(Client& client, Format format);
int Usage(Client& client, const std::string& run_id, const std::string& group_by, Format format);
int Trace(Client& client, const std::string& trace_id, Format format);
// `known`: SEQ:HASH of a record noted earlier. kFailed when the log is not whole.
int VerifyAudit(Client& client, const std::string& known, Format format);
// Every record as a line of JSON.
int ExportAudit(Client& client);
struct BudgetOptions {
  std::string scope, money, currency = "USD";
  int64_t tokens = -1, calls = -1, window_seconds = 0;
};
// Messages of the store that were set aside.
int ListMessages(Client& client, Format format);
int RetryMessage(Client& client, const std::string& id, Format format);
int ListBudgets(Client& client, const std::string& scope, Format format);
int SetBudget(Client& client, const BudgetOptions& options, Format format);
int Spending(Client& client, const std::string& scope, int level, const std::string& label, Format format);
struct ScheduleOptions {
  std::string name, workflow, description, time_zone, overlap, note, etag, request_id, from;
  int64_t version = 0;
  std::vector<std::string> cron;
  std::string every, offset, jitter, catchup, start, end;  // durations as 90s, 15m, 7d
  RunOptions run;                                          // input and labels
  bool pause_on_failure = false, paused = false;
  int count = 10;
};
int CreateSchedule(Client& client, const ScheduleOptions& options, Format format);
int UpdateSchedule(Client& client, const ScheduleOptions& options, Format format);
int ListSchedules(Client& client, Format format);
int GetSchedule(Client& client, const std::string& name, Format format);
int DeleteSchedule(Client& client, const std::string& name, Format format);
int PauseSchedule(Client& client, const std::string& name, const std::string& note, Format format);
int ResumeSchedule(Client& client, const std::string& name, const std::string& note, Format format);
int TriggerSchedule(Client& client, const std::string& name, const std::string& request_id, Format format);
// The next times of a stored schedule, or of the calendar that the options make.
int ScheduleTimes(Client& client, const ScheduleOptions& options, Format format);
struct TestOptions {
  std::vector<std::string> files;
  std::string junit;
  uint64_t seed = 1;
};
// Rehearses workflows against the parts that the files' tests play. kFailed when one does not end as expected.
int TestWorkflows(const TestOptions& options);
// A completion script for bash, zsh or fish.
int Completion(const std::string& shell);

}  // namespace tutti::cli
