#include "runtime/config/load_config.h"

#include <google/protobuf/descriptor.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "runtime/config/yaml_proto.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/text/nearest_name.h"

namespace tutti {
namespace {

using google::protobuf::FieldDescriptor;
using tutti::config::v1::Config;

// Every settable path: `gateway.http_port`, `agent_manager.openai.api_key`, …
void CollectPaths(const google::protobuf::Descriptor& type, const std::string& prefix, std::vector<std::string>* out) {
  for (int i = 0; i < type.field_count(); ++i) {
    const auto* field = type.field(i);
    std::string path = prefix.empty() ? field->name() : absl::StrCat(prefix, ".", field->name());
    bool nested = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated() &&
                  field->message_type()->file()->package() == "tutti.config.v1";
    if (nested) {
      CollectPaths(*field->message_type(), path, out);
    } else {
      out->push_back(path);
    }
  }
}

std::vector<std::string> AllPaths() {
  std::vector<std::string> paths;
  CollectPaths(*Config::descriptor(), "", &paths);
  return paths;
}

std::string FlagOf(const std::string& path) { return absl::StrReplaceAll(path, {{"_", "-"}}); }
std::string VariableOf(const std::string& path) {
  return absl::StrCat("TUTTI_", absl::AsciiStrToUpper(absl::StrReplaceAll(path, {{".", "_"}})));
}

// Fields named *_port. Of metrics_port -1 is none.
absl::Status CheckPorts(const google::protobuf::Message& message, const std::string& prefix) {
  const auto& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const auto* field = type.field(i);
    if (field->is_repeated()) continue;
    const std::string path = prefix.empty() ? field->name() : absl::StrCat(prefix, ".", field->name());
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (field->message_type()->file()->package() != "tutti.config.v1") continue;
      TUTTI_RETURN_IF_ERROR(CheckPorts(message.GetReflection()->GetMessage(message, field), path));
    } else if (absl::EndsWith(field->name(), "_port")) {
      const int port = message.GetReflection()->GetInt32(message, field);
      const int least = field->name() == "metrics_port" ? -1 : 0;
      if (port >= least && port <= 65535) continue;
      return Error(absl::StatusCode::kInvalidArgument, "CONFIG",
                   absl::StrCat("--", FlagOf(path), " is ", port, "; a port is ", least, " to 65535"));
    }
  }
  return absl::OkStatus();
}

std::string FromEnv(const Environment& env, const char* name, const char* otherwise) {
  const char* value = env(name);
  return value && *value ? value : otherwise;
}

// Values of lists are joined by commas; a list of messages is YAML.
absl::Status Apply(const std::string& path, const std::string& value, absl::string_view source, Config* config) {
  static const std::vector<std::string> kTextLists = {"tool_service.document_roots"};
  bool list = std::find(kTextLists.begin(), kTextLists.end(), path) != kTextLists.end();
  std::vector<std::string> values = {value};
  if (list) values = absl::StrSplit(value, ',', absl::SkipEmpty());
  return SetFieldFromTexts(config, path, values, source);
}

absl::Status ApplyFile(const std::string& file, Config* config) {
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    return Error(absl::StatusCode::kNotFound, "NO_CONFIG_FILE", absl::StrCat("--config: cannot read ", file));
  }
  std::stringstream text;
  text << in.rdbuf();
  return ParseYaml(text.str(), file, config);  // onto the defaults: an explicit 0 is a 0
}

absl::Status ApplyEnvironment(const Environment& env, const std::vector<std::string>& env_names, Config* config) {
  std::vector<std::string> known;
  for (const auto& path : AllPaths()) {
    std::string name = VariableOf(path);
    known.push_back(name);
    if (const char* value = env(name.c_str())) TUTTI_RETURN_IF_ERROR(Apply(path, value, name, config));
  }
  // Variables of the suite's own tools and tests.
  for (const char* name : {"TUTTI_CONFIG", "TUTTI_SERVER", "TUTTI_BIN", "TUTTI_SOURCE", "TUTTI_DEMO_HTTP_PORT",
                           "TUTTI_DEMO_GRPC_PORT", "TUTTI_WITH_TESTS", "TUTTI_TEST_SEED"})
    known.push_back(name);
  for (const auto& name : env_names) {
    if (!absl::StartsWith(name, "TUTTI_")) continue;
    // Kubernetes puts these in for every Service, whatever its name.
    if (absl::StrContains(name, "_SERVICE_HOST") || absl::StrContains(name, "_SERVICE_PORT") ||
        absl::StrContains(name, "_TCP_") || absl::StartsWith(env(name.c_str()) ? env(name.c_str()) : "", "tcp://")) {
      continue;
    }
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_SETTING",
                 absl::StrCat("environment variable ", name, " is no setting", DidYouMean(name, known)));
  }
  return absl::OkStatus();
}

}  // namespace

Config DefaultConfig(const Environment& env) {
  Config config;
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  auto* process = config.mutable_process();
  process->set_bind_address("127.0.0.1");
  process->mutable_shutdown_grace()->set_seconds(10);
  process->set_instance(host);
  process->set_max_message_bytes((4 << 20) + (64 << 10));
  config.mutable_telemetry()->set_log_level("info");
  config.mutable_telemetry()->set_sample_ratio(1);
  config.mutable_telemetry()->set_max_traces_per_second(100);
  auto* peers = config.mutable_peers();
  peers->set_gateway("127.0.0.1:9090");
  peers->set_workflow_engine("127.0.0.1:9091");
  peers->set_agent_manager("127.0.0.1:9092");
  peers->set_tool_service("127.0.0.1:9093");
  peers->set_state_manager("127.0.0.1:9094");
  peers->set_monitoring("127.0.0.1:9095");
  auto* gateway = config.mutable_gateway();
  gateway->set_http_port(8080);
  gateway->set_grpc_port(9090);
  gateway->set_max_body_bytes(4 << 20);
  gateway->set_max_connections(4096);
  gateway->set_max_connections_per_address(512);
  gateway->mutable_request_timeout()->set_seconds(60);
  auto* engine = config.mutable_workflow_engine();
  engine->set_grpc_port(9091);
  engine->set_max_active_runs(1024);
  engine->set_max_waiting_runs(100000);
  engine->set_max_concurrent_steps(4096);
  config.mutable_tool_service()->mutable_http()->set_max_response_bytes(4 << 20);
  engine->mutable_park_after()->set_seconds(10);
  engine->mutable_expression_time()->set_nanos(100'000'000);
  engine->set_expression_memory_bytes(int64_t{64} << 20);
  engine->set_max_strikes(3);
  engine->mutable_lease_duration()->set_seconds(3);
  engine->set_max_input_bytes(4 << 20);
  auto* agents = config.mutable_agent_manager();
  agents->set_grpc_port(9092);
  agents->set_max_concurrent_calls(64);
  agents->mutable_openai()->set_base_url(FromEnv(env, "OPENAI_BASE_URL", "https://api.openai.com/v1"));
  agents->mutable_openai()->set_api_key(FromEnv(env, "OPENAI_API_KEY", ""));
  agents->mutable_openai()->set_model(FromEnv(env, "OPENAI_MODEL", "gpt-4o-mini"));
  agents->mutable_anthropic()->set_base_url(FromEnv(env, "ANTHROPIC_BASE_URL", "https://api.anthropic.com"));
  agents->mutable_anthropic()->set_api_key(FromEnv(env, "ANTHROPIC_API_KEY", ""));
  agents->mutable_anthropic()->set_model(FromEnv(env, "ANTHROPIC_MODEL", "claude-3-5-haiku-latest"));
  auto* tools = config.mutable_tool_service();
  tools->set_grpc_port(9093);
  tools->set_max_document_bytes(256 << 20);
  tools->set_max_documents(10000);
  tools->set_worker_threads(2);
  auto* state = config.mutable_state_manager();
  state->set_grpc_port(9094);
  std::string home = FromEnv(env, "HOME", "/var/lib");
  state->set_data_dir(
      absl::StrCat(FromEnv(env, "XDG_DATA_HOME", absl::StrCat(home, "/.local/share").c_str()), "/tutti"));
  state->set_max_batch(4096);
  state->set_max_queue(65536);
  state->set_snapshot_every(1000);
  state->mutable_slowest_reader()->set_seconds(30);
  state->mutable_postgres()->set_pool_size(10);
  state->mutable_postgres()->set_write_lanes(2);
  state->mutable_postgres()->set_prepared_statements(true);
  state->mutable_postgres()->mutable_statement_timeout()->set_seconds(15);
  state->mutable_postgres()->mutable_pool_wait()->set_seconds(5);
  state->mutable_memory()->set_max_per_tenant(1000000);
  state->mutable_memory()->set_at_limit("evict");
  auto* monitoring = config.mutable_monitoring();
  monitoring->set_grpc_port(9095);
  monitoring->set_max_traces(1000);
  monitoring->set_max_spans_per_trace(2000);
  return config;
}

absl::StatusOr<LoadedConfig> LoadConfig(const std::vector<std::string>& args, const Environment& env,
                                        const std::vector<std::string>& env_names) {
  LoadedConfig out;
  out.config = DefaultConfig(env);
  std::vector<std::string> flags;
  for (const auto& path : AllPaths()) flags.push_back(FlagOf(path));
  std::vector<std::pair<std::string, std::string>> settings;  // path, value
  std::string file = FromEnv(env, "TUTTI_CONFIG", "");
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--print-config") {
      out.print = true;
      continue;
    }
    if (args[i] == "--help" || args[i] == "-h") {
      out.help = true;
      continue;
    }
    if (args[i] == "--version") {
      out.version = true;
      continue;
    }
    if (!absl::StartsWith(args[i], "--")) {
      return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_ARGUMENT",
                   absl::StrCat("unexpected argument ", args[i]));
    }
    size_t equals = args[i].find('=');
    std::string name = args[i].substr(2, equals == std::string::npos ? std::string::npos : equals - 2);
    auto known = std::find(flags.begin(), flags.end(), name);
    if (name != "config" && known == flags.end()) {
      return Error(absl::StatusCode::kInvalidArgument, "UNKNOWN_SETTING",
                   absl::StrCat("unknown flag --", name, DidYouMean(name, flags)));
    }
    std::string value;
    if (equals != std::string::npos) {
      value = args[i].substr(equals + 1);
    } else if (i + 1 < args.size()) {
      value = args[++i];
    } else {
      return Error(absl::StatusCode::kInvalidArgument, "MISSING_VALUE",
                   absl::StrCat("flag --", name, " needs a value"));
    }
    if (name == "config") {
      file = value;
    } else {
      settings.emplace_back(absl::StrReplaceAll(name, {{"-", "_"}}), value);
    }
  }
  if (!file.empty()) TUTTI_RETURN_IF_ERROR(ApplyFile(file, &out.config));
  TUTTI_RETURN_IF_ERROR(ApplyEnvironment(env, env_names, &out.config));
  for (const auto& [path, value] : settings) {
    TUTTI_RETURN_IF_ERROR(Apply(path, value, absl::StrCat("--", FlagOf(path)), &out.config));
  }
  TUTTI_RETURN_IF_ERROR(CheckPorts(out.config, ""));
  return out;
}

std::string FlagList() {
  std::string out = "  --config FILE\n  --print-config\n  --version\n";
  for (const auto& path : AllPaths()) absl::StrAppend(&out, "  --", FlagOf(path), "    (", VariableOf(path), ")\n");
  return out;
}

std::vector<std::string> EnvironmentNames() {
  std::vector<std::string> names;
  for (char** entry = environ; *entry; ++entry) {
    std::string text = *entry;
    names.push_back(text.substr(0, text.find('=')));
  }
  return names;
}

}  // namespace tutti
