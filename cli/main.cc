// tutti: the suite in one process (`up`), and a client of it.
#include <CLI/CLI.hpp>

#include <cstdlib>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "runtime/process/service_main.h"
#include "services/standalone/standalone.h"
#include "services/state-manager/admin.h"

namespace {

using namespace tutti::cli;  // NOLINT: this file is the program

struct Options {
  std::string server = "127.0.0.1:9090";
  std::string output = "table";
  double timeout_seconds = 120;
  RunOptions run;
  std::string id, filter, page_token, reason, name, input, params = "{}", group_by, shell;
  int page_size = 0;
  int64_t version = 0, from_version = 0;
  bool validate_only = false;
  BudgetOptions budget;
  SignalOptions signal;
  ForkOptions fork;
  TestOptions test;
  ScheduleOptions schedule;
  std::string known, label;
  int level = 1;
};

int Main(int argc, char** argv) {
  // `up` has the services' own flags: one for each field of the configuration.
  if (argc >= 2 && std::string(argv[1]) == "up") return tutti::RunStandalone({argv + 2, argv + argc});
  // So have the commands that work on the store itself.
  if (argc >= 2 && tutti::state_manager::IsAdminCommand(argv[1])) {
    return tutti::state_manager::AdminMain(argv[1], {argv + 2, argv + argc});
  }

  Options o;
  if (const char* server = getenv("TUTTI_SERVER"); server && *server) o.server = server;
  CLI::App app{"Tutti runs workflows of agents and tools. `tutti up` starts a suite; the other commands talk to one.",
               "tutti"};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", o.server, "gRPC address of the gateway (TUTTI_SERVER)")->capture_default_str();
  app.add_option("-o,--output", o.output, "table, json or yaml")->check(CLI::IsMember({"table", "json", "yaml"}));
  app.add_option("--timeout", o.timeout_seconds, "seconds for one call")->capture_default_str();

  int code = kOk;
  auto with = [&](auto command) {
    return [&o, &code, command] {
      Client client(o.server, o.timeout_seconds > 0 ? absl::Seconds(o.timeout_seconds) : absl::InfiniteDuration());
      Format format = o.output == "json" ? Format::kJson : o.output == "yaml" ? Format::kYaml : Format::kTable;
      code = command(client, format);
    };
  };

  app.add_subcommand("up", "start all services in one process (tutti up --help)")->callback([&code] {
    std::cerr << "error: `up` comes first and has flags of its own: tutti up --help\n";
    code = kUsage;
  });
  auto* run = app.add_subcommand("run", "start a run of a file's or a stored workflow");
  run->add_option("workflow", o.run.what, "a YAML or JSON file, or a stored workflow's name")->required();
  run->add_option("--input", o.run.inputs, "key=value; the value may be JSON");
  run->add_option("--input-json", o.run.input_json, "the whole input as JSON, or @FILE");
  run->add_option("--documents", o.run.documents, "a folder; becomes the input's \"documents\"");
  run->add_option("--label", o.run.labels, "key=value");
  run->add_option("--request-id", o.run.request_id, "the same id starts nothing twice");
  run->add_option("--version", o.run.version, "of a stored workflow; the latest unless said");
  run->add_option("--tenant", o.run.tenant, "whose run it is");
  run->add_option("--priority", o.run.priority, "-100 to 100; more goes first");
  run->add_option("--save", o.run.save, "with --watch: write the result to this file");
  run->add_flag("--watch", o.run.watch, "follow the run and print its result");
  auto with_texts = [&o](CLI::App* command) {
    command->add_flag_callback(
        "--texts", [&o] { o.run.texts = true; }, "show what agents say, as they say it");
    command->add_flag_callback(
        "--no-texts", [&o] { o.run.texts = false; }, "do not, even in a terminal");
  };
  with_texts(run);
  run->callback(with([&o](Client& c, Format f) { return RunWorkflow(c, o.run, f); }));

  auto* runs = app.add_subcommand(
      "runs", "list, get, history, watch, graph, signal, pause, resume, cancel, terminate, retry, fork");
  runs->require_subcommand(1);
  auto* runs_list = runs->add_subcommand("list", "newest first");
  runs_list->add_option("--filter", o.filter, "for example: state = \"RUNNING\" AND workflow = \"x\"");
  runs_list->add_option("--page-size", o.page_size, "at most 1000");
  runs_list->add_option("--page-token", o.page_token, "of the page before");
  runs_list->callback(with([&o](Client& c, Format f) { return ListRuns(c, o.filter, o.page_size, o.page_token, f); }));
  auto* runs_get = runs->add_subcommand("get", "a run with its steps");
  runs_get->add_option("run", o.id)->required();
  runs_get->callback(with([&o](Client& c, Format f) { return GetRun(c, o.id, f); }));
  auto* runs_history = runs->add_subcommand("history", "what each step put out, scores and verdicts");
  runs_history->add_option("run", o.id)->required();
  runs_history->callback(with([&o](Client& c, Format f) { return ShowHistory(c, o.id, f); }));
  auto* runs_watch = runs->add_subcommand("watch", "follow a run to its end");
  runs_watch->add_option("run", o.id)->required();
  with_texts(runs_watch);
  runs_watch->callback(with([&o](Client& c, Format f) { return WatchRunCommand(c, o.id, o.run.texts, f); }));
  auto* runs_cancel = runs->add_subcommand("cancel", "ask a run to stop");
  runs_cancel->add_option("run", o.id)->required();
  runs_cancel->add_option("--reason", o.reason);
  runs_cancel->callback(with([&o](Client& c, Format f) { return CancelRun(c, o.id, o.reason, f); }));

  auto* runs_graph = runs->add_subcommand("graph", "a Mermaid flowchart of a run, with states");
  runs_graph->add_option("run", o.id)->required();
  runs_graph->callback(with([&o](Client& c, Format) { return GraphRun(c, o.id); }));
  auto* runs_signal = runs->add_subcommand("signal", "give a run a signal, for example an approval");
  runs_signal->add_option("run", o.signal.run_id)->required();
  runs_signal->add_option("signal", o.signal.signal)->required();
  runs_signal->add_option("payload", o.signal.payload, "JSON, or text");
  runs_signal->add_option("--sender", o.signal.sender, "who says it");
  runs_signal->add_option("--request-id", o.signal.request_id, "the same id is one signal");
  runs_signal->callback(with([&o](Client& c, Format f) { return SignalRun(c, o.signal, f); }));
  auto* runs_pause = runs->add_subcommand("pause", "hold a run: what is under way ends, nothing begins");
  runs_pause->add_option("run", o.id)->required();
  runs_pause->add_option("--reason", o.reason);
  runs_pause->callback(with([&o](Client& c, Format f) { return PauseRun(c, o.id, o.reason, f); }));
  auto* runs_resume = runs->add_subcommand("resume", "let a paused run go on");
  runs_resume->add_option("run", o.id)->required();
  runs_resume->callback(with([&o](Client& c, Format f) { return ResumeRun(c, o.id, f); }));
  auto* runs_terminate = runs->add_subcommand("terminate", "end a run at once, without compensation");
  runs_terminate->add_option("run", o.id)->required();
  runs_terminate->add_option("--reason", o.reason);
  runs_terminate->callback(with([&o](Client& c, Format f) { return TerminateRun(c, o.id, o.reason, f); }));
  auto* runs_retry = runs->add_subcommand("retry", "let a failed run go on from its failed step");
  runs_retry->add_option("run", o.id)->required();
  runs_retry->callback(with([&o](Client& c, Format f) { return RetryRun(c, o.id, f); }));
  auto* runs_fork = runs->add_subcommand("fork", "start a new run from the middle of another");
  runs_fork->add_option("run", o.fork.run_id)->required();
  runs_fork->add_option("--from-step", o.fork.from_step, "the step to do again; the beginning unless said");
  runs_fork->add_option("--input-json", o.fork.input, "another input");
  runs_fork->add_option("--spec", o.fork.spec, "another spec, a YAML or JSON file");
  runs_fork->add_option("--request-id", o.fork.request_id, "the same id forks nothing twice");
  runs_fork->callback(with([&o](Client& c, Format f) { return ForkRun(c, o.fork, f); }));

  auto* workflows = app.add_subcommand("workflows", "apply, list, get, plan, diff");
  workflows->require_subcommand(1);
  auto* apply = workflows->add_subcommand("apply", "store a definition as the next version of its name");
  apply->add_option("file", o.name, "YAML or JSON")->required();
  apply->add_flag("--validate-only", o.validate_only, "only look whether it is valid");
  apply->callback(with([&o](Client& c, Format f) { return ApplyWorkflow(c, o.name, o.validate_only, f); }));
  workflows->add_subcommand("list", "the stored definitions")->callback(with([](Client& c, Format f) {
    return ListWorkflows(c, f);
  }));
  auto* workflow_get = workflows->add_subcommand("get", "a definition");
  workflow_get->add_option("name", o.name)->required();
  workflow_get->add_option("--version", o.version, "the latest unless said");
  workflow_get->callback(with([&o](Client& c, Format f) { return GetWorkflow(c, o.name, o.version, f); }));

  auto* workflow_plan = workflows->add_subcommand("plan", "what runs after what, what at once, the longest way");
  workflow_plan->add_option("workflow", o.name, "a file, or a stored workflow's name")->required();
  workflow_plan->callback(with([&o](Client& c, Format f) { return PlanWorkflow(c, o.name, f); }));
  auto* workflow_diff = workflows->add_subcommand("diff", "what changed between two versions");
  workflow_diff->add_option("name", o.name)->required();
  workflow_diff->add_option("--from", o.from_version, "the one before --to unless said");
  workflow_diff->add_option("--to", o.version, "the latest unless said");
  workflow_diff->callback(
      with([&o](Client& c, Format f) { return DiffWorkflow(c, o.name, o.from_version, o.version, f); }));

  auto* test =
      app.add_subcommand("test", "rehearse workflows with scripted agents, tools and signals; needs no server");
  test->add_option("files", o.test.files, "files of tests (examples/approval.test.yaml)")->required();
  test->add_option("--junit", o.test.junit, "write a JUnit report to this file");
  test->add_option("--seed", o.test.seed, "of what is random, for example waits between retries")
      ->capture_default_str();
  test->callback([&o, &code] { code = TestWorkflows(o.test); });

  auto* schedules = app.add_subcommand(
      "schedules", "runs by the calendar: create, update, list, get, times, pause, resume, trigger, delete");
  schedules->require_subcommand(1);
  auto calendar = [&o](CLI::App* command) {
    command
        ->add_option("--cron", o.schedule.cron, "a crontab line, for example \"0 9 * * MON-FRI\"; may be given again")
        ->allow_extra_args(false);
    command->add_option("--every", o.schedule.every, "an interval, for example 15m");
    command->add_option("--offset", o.schedule.offset, "of the interval");
    command->add_option("--time-zone", o.schedule.time_zone, "of the crontab lines, for example Europe/Berlin");
    command->add_option("--jitter", o.schedule.jitter, "each time later by up to this");
    command->add_option("--start", o.schedule.start, "no time before, as 2026-12-24T18:00:00Z");
    command->add_option("--end", o.schedule.end, "no time from here on");
  };
  auto definition = [&](CLI::App* command) {
    command->add_option("name", o.schedule.name)->required();
    command->add_option("--workflow", o.schedule.workflow, "a stored workflow's name")->required();
    command->add_option("--version", o.schedule.version, "the workflow's; the latest at each time unless given");
    calendar(command);
    command->add_option("--overlap", o.schedule.overlap,
                        "skip (default), buffer-one, buffer-all, cancel-other, terminate-other, allow-all");
    command->add_option("--catchup", o.schedule.catchup, "how long a time that could not be kept is made up for (1h)");
    command->add_option("--input", o.schedule.run.inputs, "key=value; the value may be JSON")->allow_extra_args(false);
    command->add_option("--input-json", o.schedule.run.input_json, "the whole input as JSON, or @FILE");
    command->add_option("--label", o.schedule.run.labels, "key=value, of the runs")->allow_extra_args(false);
    command->add_option("--tenant", o.schedule.run.tenant, "whose the runs are");
    command->add_option("--priority", o.schedule.run.priority, "the runs', -100 to 100");
    command->add_option("--description", o.schedule.description);
    command->add_option("--note", o.schedule.note);
    command->add_flag("--pause-on-failure", o.schedule.pause_on_failure, "when a run of it fails");
    command->add_flag("--paused", o.schedule.paused);
  };
  auto* schedules_create = schedules->add_subcommand("create", "store a schedule");
  definition(schedules_create);
  schedules_create->callback(with([&o](Client& c, Format f) { return CreateSchedule(c, o.schedule, f); }));
  auto* schedules_update = schedules->add_subcommand("update", "replace a schedule; what it has done stays");
  definition(schedules_update);
  schedules_update->add_option("--etag", o.schedule.etag, "refuse when it has changed since");
  schedules_update->callback(with([&o](Client& c, Format f) { return UpdateSchedule(c, o.schedule, f); }));
  schedules->add_subcommand("list", "by name")->callback(with([](Client& c, Format f) { return ListSchedules(c, f); }));
  auto* schedules_times = schedules->add_subcommand("times", "when a schedule, or a calendar given here, comes next");
  schedules_times->add_option("name", o.schedule.name, "a stored schedule; without: the calendar of the options");
  calendar(schedules_times);
  schedules_times->add_option("--count", o.schedule.count)->capture_default_str();
  schedules_times->add_option("--from", o.schedule.from, "instead of now");
  schedules_times->callback(with([&o](Client& c, Format f) { return ScheduleTimes(c, o.schedule, f); }));
  auto named = [&](const char* verb, const char* what, auto command) {
    auto* sub = schedules->add_subcommand(verb, what);
    sub->add_option("name", o.id)->required();
    sub->callback(with([&o, command](Client& c, Format f) { return command(c, o, f); }));
    return sub;
  };
  named("get", "a schedule with its next times and latest runs",
        [](Client& c, const Options& at, Format f) { return GetSchedule(c, at.id, f); });
  named("delete", "remove a schedule; its runs go on",
        [](Client& c, const Options& at, Format f) { return DeleteSchedule(c, at.id, f); });
  named("pause", "let its times pass", [](Client& c, const Options& at, Format f) {
    return PauseSchedule(c, at.id, at.schedule.note, f);
  })->add_option("--note", o.schedule.note);
  named("resume", "go on with the times to come", [](Client& c, const Options& at, Format f) {
    return ResumeSchedule(c, at.id, at.schedule.note, f);
  })->add_option("--note", o.schedule.note);
  named("trigger", "start a run now", [](Client& c, const Options& at, Format f) {
    return TriggerSchedule(c, at.id, at.schedule.request_id, f);
  })->add_option("--request-id", o.schedule.request_id, "the same id starts nothing twice");

  auto* agents = app.add_subcommand("agents", "list, invoke");
  agents->require_subcommand(1);
  agents->add_subcommand("list", "the configured agents")->callback(with([](Client& c, Format f) {
    return ListAgents(c, f);
  }));
  auto* invoke = agents->add_subcommand("invoke", "ask an agent once");
  invoke->add_option("agent", o.name)->required();
  invoke->add_option("input", o.input, "text or JSON")->required();
  invoke->callback(with([&o](Client& c, Format f) { return InvokeAgent(c, o.name, o.input, f); }));

  auto* tools = app.add_subcommand("tools", "list, call");
  tools->require_subcommand(1);
  tools->add_subcommand("list", "the tools")->callback(with([](Client& c, Format f) { return ListTools(c, f); }));
  auto* call = tools->add_subcommand("call", "call a tool");
  call->add_option("tool", o.name)->required();
  call->add_option("--params", o.params, "a JSON object");
  call->callback(with([&o](Client& c, Format f) { return CallTool(c, o.name, o.params, f); }));

  app.add_subcommand("health", "whether every service serves")->callback(with([](Client& c, Format f) {
    return Health(c, f);
  }));
  auto* usage = app.add_subcommand("usage", "tokens and cost");
  usage->add_option("run", o.id, "only this run");
  usage->add_option("--by", o.group_by, "run, step, agent or model");
  usage->callback(with([&o](Client& c, Format f) { return Usage(c, o.id, o.group_by, f); }));
  auto* trace = app.add_subcommand("trace", "the spans of a recent trace");
  trace->add_option("trace", o.id)->required();
  trace->callback(with([&o](Client& c, Format f) { return Trace(c, o.id, f); }));
  auto* audit = app.add_subcommand("audit", "verify, export");
  audit->require_subcommand(1);
  auto* verify = audit->add_subcommand("verify", "find records that were altered, removed or reordered");
  verify->add_option("--known", o.known, "SEQ:HASH of a record that was noted earlier");
  verify->callback(with([&o](Client& c, Format f) { return VerifyAudit(c, o.known, f); }));
  audit->add_subcommand("export", "every record as a line of JSON")->callback(with([](Client& c, Format) {
    return ExportAudit(c);
  }));
  auto* messages =
      app.add_subcommand("messages", "of the store to itself, set aside after too many refusals: list, retry");
  messages->require_subcommand(1);
  messages->add_subcommand("list", "what was refused, and why")->callback(with([](Client& c, Format f) {
    return ListMessages(c, f);
  }));
  auto* messages_retry = messages->add_subcommand("retry", "have one delivered again");
  messages_retry->add_option("message", o.id)->required();
  messages_retry->callback(with([&o](Client& c, Format f) { return RetryMessage(c, o.id, f); }));
  auto* budgets = app.add_subcommand("budgets", "list, set");
  budgets->require_subcommand(1);
  auto* budgets_list = budgets->add_subcommand("list", "limits, what is spent and what is reserved");
  budgets_list->add_option("scope", o.budget.scope, "only this scope and below");
  budgets_list->callback(with([&o](Client& c, Format f) { return ListBudgets(c, o.budget.scope, f); }));
  auto* budgets_set = budgets->add_subcommand("set", "limit what a scope may spend");
  budgets_set->add_option("scope", o.budget.scope, "for example tenants/acme/projects/web")->required();
  budgets_set->add_option("--limit", o.budget.money, "money, for example 12.50");
  budgets_set->add_option("--currency", o.budget.currency)->capture_default_str();
  budgets_set->add_option("--tokens", o.budget.tokens, "most tokens");
  budgets_set->add_option("--calls", o.budget.calls, "most calls");
  budgets_set->add_option("--window", o.budget.window_seconds, "seconds after which the limits begin anew");
  budgets_set->callback(with([&o](Client& c, Format f) { return SetBudget(c, o.budget, f); }));
  auto* spending = app.add_subcommand("spending", "what was spent, by scope or label");
  spending->add_option("scope", o.budget.scope, "only this scope and below");
  spending->add_option("--level", o.level, "pairs of the scope that make a group")->capture_default_str();
  spending->add_option("--label", o.label, "group by this label instead");
  spending->callback(with([&o](Client& c, Format f) { return Spending(c, o.budget.scope, o.level, o.label, f); }));
  for (const char* name : {"backup", "restore", "migrate"}) {
    app.add_subcommand(name, absl::StrCat("of the store itself (tutti ", name, " --help)"))->callback([&code] {
      std::cerr << "error: backup, restore and migrate come first and have flags of their own\n";
      code = kUsage;
    });
  }
  auto* completion = app.add_subcommand("completion", "a script for your shell: source <(tutti completion bash)");
  completion->add_option("shell", o.shell, "bash or zsh")->required();
  completion->callback([&] { code = Completion(o.shell); });
  app.add_subcommand("version", "the version of this program")->callback([] {
    std::cout << "tutti " << tutti::kVersion << "\n";
  });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    int parsed = app.exit(error);
    return parsed == 0 ? kOk : kUsage;
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) { return Main(argc, argv); }
