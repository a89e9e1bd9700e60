#include <iostream>
#include <map>

#include "absl/strings/str_join.h"
#include "cli/commands.h"
#include "runtime/json/json.h"
#include "tutti/agent/v1/agent_service.grpc.pb.h"
#include "tutti/monitoring/v1/monitoring_service.grpc.pb.h"
#include "tutti/tool/v1/tool_service.grpc.pb.h"

namespace tutti::cli {
namespace {

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace

int ListAgents(Client& client, Format format) {
  auto stub = tutti::agent::v1::AgentService::NewStub(client.channel());
  tutti::agent::v1::ListAgentsRequest request;
  request.set_page_size(1000);
  tutti::agent::v1::ListAgentsResponse response;
  absl::Status status = client.Call(*stub, &tutti::agent::v1::AgentService::Stub::ListAgents, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& agent : response.agents()) {
    std::string provider = agent.model().provider().empty() ? "auto" : agent.model().provider();
    rows.push_back({agent.name(), provider, absl::StrJoin(agent.tools(), ","), agent.role()});
  }
  PrintTable({"AGENT", "PROVIDER", "TOOLS", "ROLE"}, rows);
  return kOk;
}

int InvokeAgent(Client& client, const std::string& agent, const std::string& input, Format format) {
  auto stub = tutti::agent::v1::AgentService::NewStub(client.channel());
  tutti::agent::v1::InvokeAgentRequest request;
  request.set_agent(agent);
  auto json = ParseJson(input);
  ToProto(json.ok() ? *json : Json(input), request.mutable_input());
  tutti::agent::v1::InvokeAgentResponse response;
  absl::Status status = client.Call(*stub, &tutti::agent::v1::AgentService::Stub::InvokeAgent, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  Json output = ToJson(response.output());
  std::cout << (output.is_string() ? output.get<std::string>() : DumpJson(output, 2)) << "\n";
  return kOk;
}

int ListTools(Client& client, Format format) {
  auto stub = tutti::tool::v1::ToolService::NewStub(client.channel());
  tutti::tool::v1::ListToolsRequest request;
  request.set_page_size(1000);
  tutti::tool::v1::ListToolsResponse response;
  absl::Status status = client.Call(*stub, &tutti::tool::v1::ToolService::Stub::ListTools, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& tool : response.tools()) rows.push_back({tool.name(), tool.description()});
  PrintTable({"TOOL", "DESCRIPTION"}, rows);
  return kOk;
}

int CallTool(Client& client, const std::string& tool, const std::string& parameters, Format format) {
  auto json = ParseJson(parameters);
  if (!json.ok()) return PrintError(Prefix(json.status(), "--params: "));
  if (!json->is_object()) return PrintError(absl::InvalidArgumentError("--params: must be a JSON object"));
  auto stub = tutti::tool::v1::ToolService::NewStub(client.channel());
  tutti::tool::v1::CallToolRequest request;
  request.set_tool(tool);
  ToProto(*json, request.mutable_parameters());
  tutti::tool::v1::CallToolResponse response;
  absl::Status status = client.Call(*stub, &tutti::tool::v1::ToolService::Stub::CallTool, request, response);
  if (!status.ok()) return PrintError(status);
  if (format == Format::kYaml) {
    PrintMessage(response, format);
  } else {
    std::cout << DumpJson(ToJson(response.result()), 2) << "\n";
  }
  return kOk;
}

int Health(Client& client, Format format) {
  auto stub = tutti::monitoring::v1::MonitoringService::NewStub(client.channel());
  tutti::monitoring::v1::GetHealthResponse response;
  absl::Status status = client.Call(*stub, &tutti::monitoring::v1::MonitoringService::Stub::GetHealth,
                                    tutti::monitoring::v1::GetHealthRequest(), response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
  } else {
    std::vector<Row> rows;
    for (const auto& service : response.services()) {
      rows.push_back(
          {service.name(), service.status(), ShowDuration(ToDuration(service.latency())), service.message()});
    }
    PrintTable({"SERVICE", "STATUS", "LATENCY", "MESSAGE"}, rows);
  }
  return response.status() == "SERVING" ? kOk : kFailed;
}

int Usage(Client& client, const std::string& run_id, const std::string& group_by, Format format) {
  auto stub = tutti::monitoring::v1::MonitoringService::NewStub(client.channel());
  tutti::monitoring::v1::ListUsageRequest request;
  request.set_run_id(run_id);
  request.set_group_by(group_by);
  request.set_page_size(1000);
  tutti::monitoring::v1::ListUsageResponse response;
  absl::Status status =
      client.Call(*stub, &tutti::monitoring::v1::MonitoringService::Stub::ListUsage, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::vector<Row> rows;
  for (const auto& row : response.rows()) {
    rows.push_back({row.key(), absl::StrCat(row.totals().calls()), absl::StrCat(row.totals().input_tokens()),
                    absl::StrCat(row.totals().output_tokens()),
                    ShowCost(row.totals().cost_nano_units(), row.totals().currency_code())});
  }
  PrintTable({"KEY", "CALLS", "TOKENS IN", "TOKENS OUT", "COST"}, rows);
  return kOk;
}

int Trace(Client& client, const std::string& trace_id, Format format) {
  auto stub = tutti::monitoring::v1::MonitoringService::NewStub(client.channel());
  tutti::monitoring::v1::GetTraceRequest request;
  request.set_trace_id(trace_id);
  tutti::monitoring::v1::GetTraceResponse response;
  absl::Status status =
      client.Call(*stub, &tutti::monitoring::v1::MonitoringService::Stub::GetTrace, request, response);
  if (!status.ok()) return PrintError(status);
  if (format != Format::kTable) {
    PrintMessage(response, format);
    return kOk;
  }
  std::map<std::string, int> depth;
  std::vector<Row> rows;
  for (const auto& span : response.spans()) {
    auto parent = depth.find(span.parent_span_id());
    int level = depth[span.span_id()] = parent == depth.end() ? 0 : parent->second + 1;
    rows.push_back({std::string(static_cast<size_t>(2 * level), ' ') + span.name(), span.service(),
                    ShowDuration(ToDuration(span.duration())), span.error()});
  }
  PrintTable({"SPAN", "SERVICE", "TIME", "ERROR"}, rows);
  return kOk;
}

int Completion(const std::string& shell) {
  static constexpr char kCommands[] = "up run runs workflows agents tools health usage trace completion version";
  static constexpr char kBash[] = R"(_tutti() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  case "$prev" in
    tutti) COMPREPLY=($(compgen -W "%s" -- "$cur")) ;;
    runs) COMPREPLY=($(compgen -W "list get watch cancel" -- "$cur")) ;;
    workflows) COMPREPLY=($(compgen -W "apply list get" -- "$cur")) ;;
    agents) COMPREPLY=($(compgen -W "list invoke" -- "$cur")) ;;
    tools) COMPREPLY=($(compgen -W "list call" -- "$cur")) ;;
    -o|--output) COMPREPLY=($(compgen -W "table json yaml" -- "$cur")) ;;
    --documents) COMPREPLY=($(compgen -d -- "$cur")) ;;
    completion) COMPREPLY=($(compgen -W "bash zsh" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}
complete -o filenames -F _tutti tutti
)";
  std::string script = kBash;
  script.replace(script.find("%s"), 2, kCommands);
  if (shell == "bash") {
    std::cout << script;
  } else if (shell == "zsh") {
    std::cout << "autoload -U +X bashcompinit && bashcompinit\n" << script;
  } else {
    return PrintError(absl::InvalidArgumentError("completion knows bash and zsh"));
  }
  return kOk;
}

}  // namespace tutti::cli
