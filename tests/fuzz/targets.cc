#include "tests/fuzz/targets.h"

#include <cstdlib>

#include "runtime/config/yaml_proto.h"
#include "runtime/json/json.h"
#include "runtime/json/proto_json.h"
#include "services/workflow-engine/domain/cron.h"
#include "services/workflow-engine/domain/expressions/builtins.h"
#include "services/workflow-engine/domain/expressions/machine.h"
#include "services/workflow-engine/domain/run_view.h"
#include "tests/fuzz/http_target.h"
#include "tutti/workflow/v1/run_service.pb.h"
#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::fuzz {
namespace {

// Ends the process unless `holds`, also where assertions are off.
void Must(bool holds) {
  if (!holds) abort();
}

// Checks that what was read can be written, and reads as the same again.
void FuzzJson(const std::string& input) {
  if (auto json = ParseJson(input); json.ok()) {
    auto again = ParseJson(DumpJson(*json));
    Must(again.ok() && SameJson(*json, *again));
  }
  workflow::v1::StartRunRequest request;
  if (JsonToProto(input, &request).ok()) {
    workflow::v1::StartRunRequest again;
    Must(JsonToProto(ProtoToJson(request), &again).ok());
    Must(request.SerializeAsString() == again.SerializeAsString() || request.labels_size() > 1 ||
         request.ByteSizeLong() == again.ByteSizeLong());
  }
}

void FuzzYaml(const std::string& input) {
  workflow::v1::WorkflowSpec spec;
  SourceMap lines;
  (void)ParseYaml(input, "fuzz.yaml", &spec, &lines);
}

// The program up to the first NUL, then its input.
void FuzzExpressions(const std::string& input) {
  namespace x = engine::expressions;
  const size_t cut = std::min(input.find('\0'), input.size());
  auto program = x::Compile(input.substr(0, cut));
  if (!program.ok()) return;
  x::Limits limits;
  limits.time = absl::Milliseconds(20);
  limits.memory = size_t{8} << 20;
  x::Machine machine(*program, limits, absl::UnixEpoch());
  std::string error;
  x::Value value = x::Value::Null();
  if (cut < input.size()) value = x::ParseJsonText(&machine.heap(), input.substr(cut + 1), &error);
  machine.SetInput(value.absent() ? x::Value::Null() : std::move(value));
  int results = 0;
  for (bool first = true;; first = false) {
    const auto state = machine.Run(1'000, !first);
    if (state == x::Machine::State::kYield) continue;
    if (state != x::Machine::State::kResult || ++results > 100) break;
    (void)x::ToJsonText(machine, machine.result());
  }
}

void FuzzCron(const std::string& input) {
  auto cron = engine::CronLine::Parse(input);
  if (cron.ok()) (void)cron->Next(absl::FromUnixSeconds(1'700'000'000), absl::UTCTimeZone());
}

void FuzzFilter(const std::string& input) {
  tutti::state::v1::ListRunsRequest list;
  (void)engine::ParseRunFilter(input, &list);
}

}  // namespace

const std::map<std::string, Target>& Targets() {
  static const auto* const kTargets =
      new std::map<std::string, Target>{{"json", FuzzJson}, {"yaml", FuzzYaml},     {"expressions", FuzzExpressions},
                                        {"cron", FuzzCron}, {"filter", FuzzFilter}, {"http", FuzzHttp}};
  return *kTargets;
}

}  // namespace tutti::fuzz
