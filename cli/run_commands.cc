#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "cli/commands.h"
#include "cli/watch.h"
#include "runtime/json/json.h"
#include "runtime/status/macros.h"
#include "tutti/workflow/v1/run_service.grpc.pb.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::cli {
namespace {

namespace v1 = tutti::workflow::v1;

bool IsFile(const std::string& what) {
  struct stat info;
  return stat(what.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

int CodeOf(v1::RunState state) {
  switch (state) {
    case v1::RUN_STATE_SUCCEEDED:
      return kOk;
    case v1::RUN_STATE_CANCELLED:
      return kRunCancelled;
    case v1::RUN_STATE_FAILED:
      return kRunFailed;
    default:
      return kFailed;
  }
}

absl::StatusOr<v1::Run> Fetch(Client& client, const std::string& run_id, bool outputs = false) {
  auto stub = v1::RunService::NewStub(client.channel());
  v1::GetRunRequest request;
  request.set_run_id(run_id);
  request.set_outputs(outputs);
  v1::GetRunResponse response;
  TUTTI_RETURN_IF_ERROR(client.Call(*stub, &v1::RunService::Stub::GetRun, request, response));
  return response.run();
}

// The `markdown` of an output, or the output as JSON.
std::string Result(const v1::Run& run) {
  Json output = ToJson(run.output());
  if (output.is_object() && output.contains("markdown") && output["markdown"].is_string()) return output["markdown"];
  if (output.is_string()) return output;
  return DumpJson(output, 2);
}

void PrintRun(const v1::Run& run) {
  std::cout << "run       " << run.run_id() << "\nworkflow  " << run.workflow();
  if (run.workflow_version() > 0) std::cout << " (version " << run.workflow_version() << ")";
  std::cout << "\nstate     " << ShowEnum(v1::RunState_Name(run.state()), "RUN_STATE_") << " ("
            << run.progress_percent() << "%)\ncreated   " << ShowTime(run.create_time()) << "\nended     "
            << ShowTime(run.end_time()) << "\n";
  if (!run.trace_id().empty()) std::cout << "trace     " << run.trace_id() << "\n";
  if (run.has_error()) std::cout << "error     " << run.error().message() << "\n";
  std::vector<Row> rows;
  for (const auto& step : run.steps()) {
    std::string took = step.has_end_time() ? ShowDuration(ToTime(step.end_time()) - ToTime(step.start_time())) : "-";
    rows.push_back({step.path(), step.kind(), step.target(), ShowEnum(v1::StepState_Name(step.state()), "STEP_STATE_"),
                    absl::StrCat(step.attempt()), took});
  }
  std::cout << "\n";
  PrintTable({"STEP", "KIND", "TARGET", "STATE", "ATTEMPT", "TIME"}, rows);
}

int FinishRun(Client& client, const std::string& run_id, const RunOptions& options, Format format) {
  auto run = Fetch(client, run_id);
  if (!run.ok()) return PrintError(run.status());
  if (run->state() == v1::RUN_STATE_SUCCEEDED && !options.save.empty()) {
    std::ofstream out(options.save, std::ios::binary);
    out << Result(*run);
    out.close();
    if (!out) {
      std::cout << Result(*run) << "\n";
      return PrintError(
          absl::InternalError(absl::StrCat("--save: cannot write ", options.save, "; the result is above")));
    }
  }
  if (format != Format::kTable) {
    PrintMessage(*run, format);
    return CodeOf(run->state());
  }
  if (run->state() == v1::RUN_STATE_SUCCEEDED) {
    std::cout << Result(*run) << "\n\n";
  } else {
    std::cerr << "error: " << run->error().message() << "\n";
  }
  std::cout << "run " << run_id << " " << ShowEnum(v1::RunState_Name(run->state()), "RUN_STATE_");
  if (!options.save.empty() && run->state() == v1::RUN_STATE_SUCCEEDED) std::cout << ", saved to " << options.save;
  std::cout << "\n\n";
  PrintStages(*run);
  return CodeOf(run->state());
}

}  // namespace

absl::StatusOr<std::pair<std::string, std::string>> KeyValue(const std::string& text, const char* flag) {
  size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " takes key=value, not \"", text, "\""));
  }
  return std::make_pair(text.substr(0, equals), text.substr(equals + 1));
}

absl::StatusOr<Json> BuildInput(const RunOptions& options) {
  Json input = Json::object();
  if (!options.input_json.empty()) {
    std::string text = options.input_json;
    if (text[0] == '@') {
      TUTTI_ASSIGN_OR_RETURN(text, ReadSpecFile(text.substr(1)));
    }
    auto parsed = ParseJson(text);
    if (!parsed.ok()) return Prefix(parsed.status(), "--input-json: ");
    input = *parsed;
  }
  if (!input.is_object() && (!options.inputs.empty() || !options.documents.empty())) {
    return absl::InvalidArgumentError("--input-json: must be an object when --input or --documents add to it");
  }
  for (const auto& entry : options.inputs) {
    TUTTI_ASSIGN_OR_RETURN(auto pair, KeyValue(entry, "--input"));
    auto json = ParseJson(pair.second);
    input[pair.first] = json.ok() && !json->is_string() ? *json : Json(pair.second);
  }
  if (!options.documents.empty()) {
    std::error_code error;
    auto path = std::filesystem::canonical(options.documents, error);
    if (error || !std::filesystem::is_directory(path)) {
      return absl::InvalidArgumentError(absl::StrCat("--documents: ", options.documents, " is no folder"));
    }
    input["documents"] = path.string();
  }
  return input;
}

absl::StatusOr<std::string> ReadSpecFile(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return absl::InvalidArgumentError(absl::StrCat("cannot read ", file));
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

int RunWorkflow(Client& client, const RunOptions& options, Format format) {
  v1::StartRunRequest request;
  SourceMap lines;
  std::string file;
  if (IsFile(options.what)) {
    file = options.what;
    auto text = ReadSpecFile(file);
    if (!text.ok()) return PrintError(text.status());
    absl::Status parsed = ParseYaml(*text, file, request.mutable_spec(), &lines);
    if (!parsed.ok()) return PrintError(parsed);
  } else if (absl::StrContains(options.what, '.') || absl::StrContains(options.what, '/')) {
    return PrintError(absl::InvalidArgumentError(absl::StrCat("no such file: ", options.what)));
  } else {
    request.set_workflow(options.what);
  }
  auto input = BuildInput(options);
  if (!input.ok()) return PrintError(input.status());
  ToProto(*input, request.mutable_input());
  request.set_request_id(options.request_id);
  request.set_workflow_version(options.version);
  request.set_tenant(options.tenant);
  request.set_priority(options.priority);
  for (const auto& label : options.labels) {
    auto pair = KeyValue(label, "--label");
    if (!pair.ok()) return PrintError(pair.status());
    (*request.mutable_labels())[pair->first] = pair->second;
  }
  auto stub = v1::RunService::NewStub(client.channel());
  v1::StartRunResponse response;
  absl::Status status = client.Call(*stub, &v1::RunService::Stub::StartRun, request, response);
  if (!status.ok()) return PrintError(status, file, &lines);
  if (!options.watch) {
    if (format == Format::kTable) {
      std::cout << response.run().run_id() << "\n";
    } else {
      PrintMessage(response.run(), format);
    }
    return kOk;
  }
  v1::RunState state;
  status = WatchRun(client, response.run().run_id(), format == Format::kTable ? Format::kTable : Format::kYaml,
                    options.texts, &state);
  if (!status.ok()) return PrintError(status);
  return FinishRun(client, response.run().run_id(), options, format);
}

int ListRuns(Client& client, const std::string& filter, int page_size, const std::string& page_token, Format format) {
  auto stub = v1::RunService::NewStub(client.channel());
  v1::ListRunsRequest request;
  request.set_filter(filter);
  request.set_page_size(page_size);
  request.set_page_token(page_token);
  v1::ListRunsResponse response;
  absl::Status status = client.Call(*stub, &v1::RunService::Stub::ListRuns, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& run : response.runs()) {
    std::string took = run.has_end_time() ? ShowDuration(ToTime(run.end_time()) - ToTime(run.create_time())) : "-";
    rows.push_back({run.run_id(), run.workflow(), ShowEnum(v1::RunState_Name(run.state()), "RUN_STATE_"),
                    absl::StrCat(run.progress_percent(), "%"), ShowTime(run.create_time()), took});
  }
  PrintTable({"RUN", "WORKFLOW", "STATE", "PROGRESS", "CREATED", "TIME"}, rows);
  if (!response.next_page_token().empty()) std::cerr << "more: --page-token " << response.next_page_token() << "\n";
  return kOk;
}

int GetRun(Client& client, const std::string& run_id, Format format) {
  auto run = Fetch(client, run_id);
  if (!run.ok()) return PrintError(run.status());
  if (format == Format::kTable) {
    PrintRun(*run);
  } else {
    PrintMessage(*run, format);
  }
  return kOk;
}

int ShowHistory(Client& client, const std::string& run_id, Format format) {
  auto run = Fetch(client, run_id, /*outputs=*/true);
  if (!run.ok()) return PrintError(run.status());
  if (format != Format::kTable) {
    PrintMessage(*run, format);
    return kOk;
  }
  for (const auto& step : run->steps()) {
    std::cout << step.path() << " (" << step.kind() << (step.target().empty() ? "" : " ") << step.target() << ") "
              << ShowEnum(v1::StepState_Name(step.state()), "STEP_STATE_");
    if (step.attempt() > 1) std::cout << ", attempt " << step.attempt();
    std::cout << "\n";
    if (step.has_error()) std::cout << "    error: " << step.error().message() << "\n";
    if (!step.has_output()) continue;
    const std::string text = DumpJson(ToJson(step.output()), 2);
    for (absl::string_view line : absl::StrSplit(text, '\n')) std::cout << "    " << line << "\n";
  }
  return kOk;
}

int WatchRunCommand(Client& client, const std::string& run_id, std::optional<bool> texts, Format format) {
  v1::RunState state;
  absl::Status status = WatchRun(client, run_id, format, texts, &state);
  return status.ok() ? CodeOf(state) : PrintError(status);
}

int CancelRun(Client& client, const std::string& run_id, const std::string& reason, Format format) {
  auto stub = v1::RunService::NewStub(client.channel());
  v1::CancelRunRequest request;
  request.set_run_id(run_id);
  request.set_reason(reason);
  v1::CancelRunResponse response;
  absl::Status status = client.Call(*stub, &v1::RunService::Stub::CancelRun, request, response);
  if (!status.ok()) return PrintError(status);
  if (format == Format::kTable) {
    std::cout << "asked run " << run_id << " to stop\n";
  } else {
    PrintMessage(response.run(), format);
  }
  return kOk;
}

int ApplyWorkflow(Client& client, const std::string& file, bool validate_only, Format format) {
  auto text = ReadSpecFile(file);
  if (!text.ok()) return PrintError(text.status());
  v1::CreateWorkflowRequest request;
  request.set_validate_only(validate_only);
  SourceMap lines;
  absl::Status parsed = ParseYaml(*text, file, request.mutable_spec(), &lines);
  if (!parsed.ok()) return PrintError(parsed);
  auto stub = v1::WorkflowService::NewStub(client.channel());
  v1::CreateWorkflowResponse response;
  absl::Status status = client.Call(*stub, &v1::WorkflowService::Stub::CreateWorkflow, request, response);
  if (!status.ok()) return PrintError(status, file, &lines);
  if (format != Format::kTable) {
    PrintMessage(response.workflow(), format);
  } else if (validate_only) {
    std::cout << file << ": workflow " << response.workflow().name() << " is valid\n";
  } else {
    std::cout << "workflow " << response.workflow().name() << " version " << response.workflow().version() << "\n";
  }
  return kOk;
}

int ListWorkflows(Client& client, Format format) {
  auto stub = v1::WorkflowService::NewStub(client.channel());
  v1::ListWorkflowsRequest request;
  request.set_page_size(1000);
  v1::ListWorkflowsResponse response;
  absl::Status status = client.Call(*stub, &v1::WorkflowService::Stub::ListWorkflows, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& workflow : response.workflows()) {
    rows.push_back(
        {workflow.name(), absl::StrCat(workflow.version()), ShowTime(workflow.create_time()), workflow.description()});
  }
  PrintTable({"WORKFLOW", "VERSION", "CREATED", "DESCRIPTION"}, rows);
  return kOk;
}

int GetWorkflow(Client& client, const std::string& name, int64_t version, Format format) {
  auto stub = v1::WorkflowService::NewStub(client.channel());
  v1::GetWorkflowRequest request;
  request.set_name(name);
  request.set_version(version);
  v1::GetWorkflowResponse response;
  absl::Status status = client.Call(*stub, &v1::WorkflowService::Stub::GetWorkflow, request, response);
  if (!status.ok()) return PrintError(status);
  PrintMessage(response.workflow(), format == Format::kTable ? Format::kYaml : format);
  return kOk;
}

}  // namespace tutti::cli
