// What is done to runs that there are, and what is shown of runs and definitions beside tables.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "cli/commands.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/json/json.h"
#include "tutti/workflow/v1/run_service.grpc.pb.h"
#include "tutti/workflow/v1/workflow_service.grpc.pb.h"

namespace tutti::cli {
namespace {

namespace v1 = tutti::workflow::v1;

template <class Request, class Response, class Method>
int Ask(Client& client, Method method, const Request& request, const std::string& said, Format format) {
  auto stub = v1::RunService::NewStub(client.channel());
  Response response;
  absl::Status status = client.Call(*stub, method, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response.run(), format);
  } else {
    std::cout << "run " << response.run().run_id() << " " << said << "\n";
  }
  return kOk;
}

// JSON when it is JSON, else text.
Json Value(const std::string& text) {
  auto json = ParseJson(text);
  return json.ok() ? *json : Json(text);
}

// One node of the graph of a run: a step, or a place in a path that has steps below it.
struct Node {
  const v1::StepRecord* record = nullptr;
  std::map<std::string, Node> children;
  absl::Time start = absl::InfiniteFuture(), end = absl::InfinitePast();
};

class Mermaid {
 public:
  std::string Draw(const v1::Run& run) {
    Node root;
    for (const auto& step : run.steps()) {
      Node* node = &root;
      std::vector<std::string> parts;
      for (size_t at = 0; at <= step.path().size();) {
        size_t slash = std::min(step.path().find('/', at), step.path().size());
        node = &node->children[step.path().substr(at, slash - at)];
        at = slash + 1;
      }
      node->record = &step;
    }
    Measure(root);
    out_ << "flowchart TD\n";
    Children(root, "n", "  ");
    out_ << "  classDef succeeded fill:#d5f5e3,stroke:#1e8449\n  classDef failed fill:#fadbd8,stroke:#b03a2e\n"
            "  classDef running fill:#d6eaf8,stroke:#21618c\n  classDef waiting fill:#fcf3cf,stroke:#b7950b\n"
            "  classDef skipped fill:#eaeded,stroke:#909497,stroke-dasharray:3\n";
    return out_.str();
  }

 private:
  static void Measure(Node& node) {
    if (node.record) {
      node.start = ToTime(node.record->start_time());
      node.end = node.record->has_end_time() ? ToTime(node.record->end_time()) : absl::InfiniteFuture();
    }
    for (auto& [name, child] : node.children) {
      Measure(child);
      if (!node.record) {
        node.start = std::min(node.start, child.start);
        node.end = std::max(node.end, child.end);
      }
    }
  }

  static const char* ClassOf(v1::StepState state) {
    switch (state) {
      case v1::STEP_STATE_SUCCEEDED:
        return "succeeded";
      case v1::STEP_STATE_FAILED:
        return "failed";
      case v1::STEP_STATE_WAITING:
        return "waiting";
      case v1::STEP_STATE_SKIPPED:
        return "skipped";
      default:
        return "running";
    }
  }

  static std::string Quoted(const std::string& text) { return absl::StrReplaceAll(text, {{"\"", "#quot;"}}); }

  static std::string Label(const std::string& name, const v1::StepRecord& record) {
    std::string out = Quoted(name);
    if (!record.target().empty()) absl::StrAppend(&out, "<br/>", record.kind(), " ", Quoted(record.target()));
    absl::StrAppend(&out, "<br/>", ShowEnum(v1::StepState_Name(record.state()), "STEP_STATE_"));
    if (record.attempt() > 1) absl::StrAppend(&out, ", attempt ", record.attempt());
    if (record.has_end_time()) {
      absl::StrAppend(&out, ", ", ShowDuration(ToTime(record.end_time()) - ToTime(record.start_time())));
    }
    return out;
  }

  void Children(const Node& node, const std::string& id, const std::string& indent) {
    std::vector<std::pair<std::string, const Node*>> order;
    for (const auto& [name, child] : node.children) order.emplace_back(name, &child);
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.second->start < b.second->start; });
    std::vector<std::string> ids;
    for (const auto& [name, child] : order) {
      ids.push_back(absl::StrCat("n", ++count_));
      if (child->children.empty()) {
        out_ << indent << ids.back() << "[\"" << Label(name, *child->record)
             << "\"]:::" << ClassOf(child->record->state()) << "\n";
        continue;
      }
      out_ << indent << "subgraph " << ids.back() << " [\"" << Quoted(name)
           << (child->record ? absl::StrCat(" (", child->record->kind(), ")") : "") << "\"]\n";
      Children(*child, ids.back(), indent + "  ");
      out_ << indent << "end\n";
    }
    // An arrow from each to what began after it had ended, unless something lies between them.
    for (size_t b = 0; b < order.size(); ++b) {
      for (size_t a = 0; a < b; ++a) {
        if (order[a].second->end > order[b].second->start) continue;
        bool between = false;
        for (size_t c = a + 1; c < b; ++c) {
          between |= order[a].second->end <= order[c].second->start && order[c].second->end <= order[b].second->start;
        }
        if (!between) out_ << indent << ids[a] << " --> " << ids[b] << "\n";
      }
    }
  }

  std::ostringstream out_;
  int count_ = 0;
};

}  // namespace

int TerminateRun(Client& client, const std::string& run_id, const std::string& reason, Format format) {
  v1::TerminateRunRequest request;
  request.set_run_id(run_id);
  request.set_reason(reason);
  return Ask<v1::TerminateRunRequest, v1::TerminateRunResponse>(client, &v1::RunService::Stub::TerminateRun, request,
                                                                "terminated", format);
}

int PauseRun(Client& client, const std::string& run_id, const std::string& reason, Format format) {
  v1::PauseRunRequest request;
  request.set_run_id(run_id);
  request.set_reason(reason);
  return Ask<v1::PauseRunRequest, v1::PauseRunResponse>(client, &v1::RunService::Stub::PauseRun, request, "paused",
                                                        format);
}

int ResumeRun(Client& client, const std::string& run_id, Format format) {
  v1::ResumeRunRequest request;
  request.set_run_id(run_id);
  return Ask<v1::ResumeRunRequest, v1::ResumeRunResponse>(client, &v1::RunService::Stub::ResumeRun, request, "goes on",
                                                          format);
}

int RetryRun(Client& client, const std::string& run_id, Format format) {
  v1::RetryRunRequest request;
  request.set_run_id(run_id);
  return Ask<v1::RetryRunRequest, v1::RetryRunResponse>(client, &v1::RunService::Stub::RetryRun, request,
                                                        "goes on from its failed step", format);
}

int ForkRun(Client& client, const ForkOptions& options, Format format) {
  v1::ForkRunRequest request;
  request.set_run_id(options.run_id);
  request.set_from_step(options.from_step);
  request.set_request_id(options.request_id);
  if (!options.spec.empty()) {
    auto text = ReadSpecFile(options.spec);
    if (!text.ok()) return PrintError(text.status());
    absl::Status parsed = ParseYaml(*text, options.spec, request.mutable_spec());
    if (!parsed.ok()) return PrintError(parsed);
  }
  if (!options.input.empty()) {
    auto json = ParseJson(options.input);
    if (!json.ok()) return PrintError(Prefix(json.status(), "--input-json: "));
    ToProto(*json, request.mutable_input());
  }
  return Ask<v1::ForkRunRequest, v1::ForkRunResponse>(client, &v1::RunService::Stub::ForkRun, request,
                                                      absl::StrCat("forked from ", options.run_id), format);
}

int SignalRun(Client& client, const SignalOptions& options, Format format) {
  v1::SignalRunRequest request;
  request.set_run_id(options.run_id);
  request.set_signal(options.signal);
  // A channel repeats calls whose answers are lost: one signal all the same.
  std::string own = absl::StrCat("cli-", absl::ToUnixNanos(absl::Now()), "-", getpid());
  request.set_request_id(options.request_id.empty() ? own.substr(0, 36) : options.request_id);
  request.set_sender(options.sender);
  if (!options.payload.empty()) ToProto(Value(options.payload), request.mutable_payload());
  auto stub = v1::RunService::NewStub(client.channel());
  v1::SignalRunResponse response;
  absl::Status status = client.Call(*stub, &v1::RunService::Stub::SignalRun, request, response);
  if (!status.ok()) return PrintError(status);
  if (format == Format::kTable) {
    std::cout << "signal " << options.signal << " given to run " << options.run_id << "\n";
  } else {
    PrintMessage(response, format);
  }
  return kOk;
}

int GraphRun(Client& client, const std::string& run_id) {
  auto stub = v1::RunService::NewStub(client.channel());
  v1::GetRunRequest request;
  request.set_run_id(run_id);
  v1::GetRunResponse response;
  absl::Status status = client.Call(*stub, &v1::RunService::Stub::GetRun, request, response);
  if (!status.ok()) return PrintError(status);
  std::cout << Mermaid().Draw(response.run());
  return kOk;
}

int PlanWorkflow(Client& client, const std::string& what, Format format) {
  v1::PlanWorkflowRequest request;
  SourceMap lines;
  std::string file;
  if (absl::StatusOr<std::string> text = ReadSpecFile(what); text.ok()) {
    file = what;
    absl::Status parsed = ParseYaml(*text, what, request.mutable_spec(), &lines);
    if (!parsed.ok()) return PrintError(parsed);
  } else if (absl::StrContains(what, '.') || absl::StrContains(what, '/')) {
    return PrintError(text.status());
  } else {
    request.set_workflow(what);
  }
  auto stub = v1::WorkflowService::NewStub(client.channel());
  v1::PlanWorkflowResponse plan;
  absl::Status status = client.Call(*stub, &v1::WorkflowService::Stub::PlanWorkflow, request, plan);
  if (!status.ok()) return PrintError(status, file, &lines);
  if (format != Format::kTable) {
    PrintMessage(plan, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (int i = 0; i < plan.stages_size(); ++i) {
    for (const auto& step : plan.stages(i).steps()) {
      rows.push_back({absl::StrCat(i + 1), step.id(), step.kind(), step.target(),
                      step.depends_on().empty() ? "-" : absl::StrJoin(step.depends_on(), ", "),
                      absl::StrCat(step.weight()), absl::StrCat(step.parallelism()), step.critical() ? "*" : ""});
    }
  }
  PrintTable({"STAGE", "STEP", "KIND", "TARGET", "AFTER", "WEIGHT", "AT ONCE", "CRITICAL"}, rows);
  std::cout << "\ncritical path  " << absl::StrJoin(plan.critical_path(), " -> ") << " (" << plan.critical_path_weight()
            << " leaf steps)\nat most        " << plan.max_parallelism() << " leaf steps at once\n";
  return kOk;
}

int DiffWorkflow(Client& client, const std::string& name, int64_t from, int64_t to, Format format) {
  v1::DiffWorkflowRequest request;
  request.set_name(name);
  request.set_from_version(from);
  request.set_to_version(to);
  auto stub = v1::WorkflowService::NewStub(client.channel());
  v1::DiffWorkflowResponse diff;
  absl::Status status = client.Call(*stub, &v1::WorkflowService::Stub::DiffWorkflow, request, diff);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(diff, format);
    return kOk;
  }
  std::cout << name << " version " << diff.from_version() << " -> " << diff.to_version() << "\n";
  for (const auto& change : diff.changes()) {
    std::cout << "  " << change.path() << "\n";
    if (change.has_before()) std::cout << "    - " << DumpJson(ToJson(change.before())) << "\n";
    if (change.has_after()) std::cout << "    + " << DumpJson(ToJson(change.after())) << "\n";
  }
  return kOk;
}

}  // namespace tutti::cli
