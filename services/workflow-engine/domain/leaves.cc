// The steps that call the world, and those that only say something.
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"
#include "runtime/status/mapping.h"
#include "services/workflow-engine/domain/interpreter.h"

namespace tutti::engine {
namespace {

constexpr char kHttpTool[] = "http_request";
constexpr int kMostStarts = 3;
constexpr absl::Duration kKnockAgain = absl::Milliseconds(50);  // at least, where a service has no room

std::string ToText(const Json& value) { return value.is_string() ? value.get<std::string>() : DumpJson(value); }

}  // namespace

const tutti::agent::v1::Agent* Interpreter::DefinitionOf(const std::string& agent) const {
  for (const auto& definition : spec_.agents()) {
    if (definition.name() == agent) return &definition;
  }
  return nullptr;
}

CallContext Interpreter::NewCall(const Bounds& bounds) {
  CallContext call(deps_.executor, deps_.tracer);
  call.deadline = bounds.deadline;
  call.stop = bounds.stop;
  call.trace = bounds.trace;
  return call;
}

Task<absl::StatusOr<Admission::Permit>> Interpreter::Enter(std::string target, const Bounds& bounds) {
  TUTTI_CO_RETURN_IF_ERROR(co_await deps_.effects.journal.Barrier());
  if (bounds.budget) TUTTI_CO_RETURN_IF_ERROR(bounds.budget->Check());
  Admission::Caller caller;
  caller.run_id = subject_.run_id;
  caller.workflow = spec_.name();
  caller.tenant = subject_.tenant;
  caller.target = std::move(target);
  caller.priority = bounds.priority;
  caller.run_limit = spec_.max_concurrent_steps();
  Admission::Patience patience{bounds.stop, bounds.deadline - deps_.clock.Now()};
  auto permit = co_await deps_.admission.Enter(std::move(caller), patience);
  if (permit.ok() && bounds.budget) {
    // Again: while it waited, others may have spent what was left.
    TUTTI_CO_RETURN_IF_ERROR(bounds.budget->Check());
    bounds.budget->Call();
  }
  // An engine that was frozen may wake up when its runs are another's, with this call next in its queue.
  if (permit.ok()) TUTTI_CO_RETURN_IF_ERROR(CheckOwned());
  co_return permit;
}

absl::Status Interpreter::CheckOwned() const {
  if (!deps_.owned_until || deps_.clock.Now() <= deps_.owned_until()) return absl::OkStatus();
  return WalkEnd(Error(absl::StatusCode::kAborted, "LEASE_LOST",
                       "the lease has ended by this engine's clock; the run goes on elsewhere"));
}

Task<Interpreter::Result> Interpreter::RunAgent(const tutti::workflow::v1::AgentStep& step, std::string path,
                                                std::string key, const Variables& variables, Bounds bounds,
                                                Usage& usage) {
  Json input;
  if (step.has_input()) {
    TUTTI_CO_ASSIGN_OR_RETURN(input, co_await Expand(ToJson(step.input()), variables));
  } else {
    input = *variables.Find("input");
  }
  const tutti::agent::v1::Agent* definition = DefinitionOf(step.agent());
  TUTTI_CO_ASSIGN_OR_RETURN(Admission::Permit permit, co_await Enter(step.agent(), bounds));
  bounds.deadline = std::min(bounds.deadline, deps_.clock.Now() + bounds.call_timeout);
  for (;;) {
    CallContext call = NewCall(bounds);
    Attempt attempt{subject_.run_id, path, key};
    auto answer = co_await deps_.effects.agents.Execute(call, std::move(attempt), step.agent(), definition, input);
    if (answer.ok()) {
      usage = std::move(answer->usage);
      if (bounds.budget) bounds.budget->Use(usage);
      co_return Ref(std::move(answer->output));
    }
    // Turned away at the door, before anything was asked: the same attempt comes again when it was told to.
    const absl::Duration later = RetryDelayOf(answer.status());
    if (ReasonOf(answer.status()) != "MODEL_CALLS_BUSY" || deps_.clock.Now() + later >= bounds.deadline) {
      co_return answer.status();
    }
    TUTTI_CO_RETURN_IF_ERROR(
        co_await Wait(deps_.clock.Now() + std::max(later, kKnockAgain), /*for_news=*/false, bounds));
  }
}

Task<Interpreter::Result> Interpreter::CallTool(std::string tool, Json parameters, std::string path, std::string key,
                                                Bounds bounds) {
  TUTTI_CO_ASSIGN_OR_RETURN(Admission::Permit permit, co_await Enter(tool, bounds));
  bounds.deadline = std::min(bounds.deadline, deps_.clock.Now() + bounds.call_timeout);
  for (int tries = 1;; ++tries) {
    CallContext call = NewCall(bounds);
    // The last try may begin at any time: a connection that takes longer than a lease would never be made otherwise.
    if (deps_.owned_until && tries < kMostStarts) call.start_by = deps_.owned_until();
    Attempt attempt{subject_.run_id, path, key};
    auto result = co_await deps_.effects.tools.Execute(call, std::move(attempt), tool, parameters);
    if (result.ok()) co_return Ref(*std::move(result));
    // It waited for a socket over the end of the lease, and nothing left: once more under the next lease, if there is
    // one.
    if (ReasonOf(result.status()) != "START_TOO_LATE" || tries == kMostStarts) co_return result.status();
    TUTTI_CO_RETURN_IF_ERROR(CheckOwned());
  }
}

Task<Interpreter::Result> Interpreter::RunTool(const tutti::workflow::v1::ToolStep& step, std::string path,
                                               std::string key, const Variables& variables, Bounds bounds) {
  TUTTI_CO_ASSIGN_OR_RETURN(Json parameters, co_await Expand(ToJson(step.parameters()), variables));
  auto result = co_await CallTool(step.tool(), std::move(parameters), std::move(path), std::move(key), bounds);
  co_return result;
}

Task<Interpreter::Result> Interpreter::RunHttp(const tutti::workflow::v1::HttpStep& step, std::string path,
                                               std::string key, const Variables& variables, Bounds bounds) {
  Json parameters = {{"method", step.method().empty() ? "GET" : step.method()}};
  TUTTI_CO_ASSIGN_OR_RETURN(Json url, co_await Expand(Json(step.url()), variables));
  parameters["url"] = ToText(url);
  Json headers = Json::object();
  for (const auto& [name, value] : step.headers()) {
    TUTTI_CO_ASSIGN_OR_RETURN(Json expanded, co_await Expand(Json(value), variables));
    headers[name] = ToText(expanded);
  }
  parameters["headers"] = std::move(headers);
  if (step.has_body()) {
    TUTTI_CO_ASSIGN_OR_RETURN(parameters["body"], co_await Expand(ToJson(step.body()), variables));
  }
  if (!step.auth_secret().empty())
    parameters["auth"] = {{"secret", step.auth_secret()}, {"header", step.auth_header()}};
  if (!step.expected_status().empty()) {
    parameters["expected_status"] = std::vector<int>(step.expected_status().begin(), step.expected_status().end());
  }
  TUTTI_CO_ASSIGN_OR_RETURN(
      JsonRef output, co_await CallTool(kHttpTool, std::move(parameters), std::move(path), std::move(key), bounds));
  if (step.response().empty()) co_return output;
  Variables mapped(&variables);
  mapped.Set("output", output);
  TUTTI_CO_ASSIGN_OR_RETURN(Json value, co_await Evaluate(ExpressionBody(step.response()), mapped));
  co_return Ref(std::move(value));
}

Task<Interpreter::Result> Interpreter::RunEmit(const tutti::workflow::v1::EmitStep& step, std::string path,
                                               const Variables& variables) {
  TUTTI_CO_ASSIGN_OR_RETURN(Json data, co_await Expand(ToJson(step.data()), variables));
  TUTTI_CO_ASSIGN_OR_RETURN(Json subject, co_await Expand(Json(step.subject()), variables));
  auto entry = NewEntry();
  auto* emitted = entry.mutable_event_emitted();
  emitted->set_path(path);
  emitted->set_type(step.type());
  emitted->set_subject(ToText(subject));
  TUTTI_CO_RETURN_IF_ERROR(CheckResult(data, emitted->mutable_data()));
  deps_.effects.journal.Post(std::move(entry));  // committed with the step's end: once
  co_return Ref(std::move(data));
}

Task<Interpreter::Result> Interpreter::RunFail(const tutti::workflow::v1::FailStep& step, const Variables& variables) {
  TUTTI_CO_ASSIGN_OR_RETURN(Json message, co_await Expand(Json(step.message()), variables));
  absl::StatusCode code = step.code().empty() ? absl::StatusCode::kFailedPrecondition : CodeFromName(step.code());
  co_return absl::Status(Error(code, step.reason().empty() ? "WORKFLOW_FAILED" : step.reason(), ToText(message)));
}

}  // namespace tutti::engine
