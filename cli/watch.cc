#include "cli/watch.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/json/proto_json.h"
#include "runtime/usage/usage_totals.h"
#include "tutti/workflow/v1/run_service.grpc.pb.h"

namespace tutti::cli {
namespace {

using tutti::workflow::v1::RunEvent;
using tutti::workflow::v1::StepRecord;

constexpr int kReconnects = 30;

// What agents say, one after the other: while one has the floor, what others say is kept until it has ended.
class Speeches {
 public:
  // What is to be shown now.
  std::string Hear(const tutti::workflow::v1::AgentText& text) {
    Key key = {text.path(), text.attempt(), text.turn()};
    std::string piece = Printable(text.text());
    int64_t& expected = expected_[key];
    const bool anew = text.offset() < expected;  // another engine has taken the run over, and asks again
    if (text.offset() > expected && expected > 0) piece = absl::StrCat("…", piece);
    expected = text.offset() + static_cast<int64_t>(text.text().size());
    if (floor_ == key && !anew) return piece;
    if (floor_ && std::get<0>(*floor_) == text.path()) {  // the same step's next answer
      floor_ = key;
      return absl::StrCat("\n", text.path(), ": ", piece);
    }
    std::string& kept = kept_[key];
    if (kept.size() + piece.size() <= kMostKept) kept += piece;
    return NextSpeech();
  }
  // The step has been shown as begun: who speaks in it may be heard.
  std::string Begin(const std::string& path) {
    begun_.insert(path);
    return NextSpeech();
  }
  // A step's attempt has ended: its result says it all. What another has said meanwhile.
  std::string End(const std::string& path) {
    begun_.erase(path);  // what may still come of it is late
    std::erase_if(kept_, [&](const auto& entry) { return std::get<0>(entry.first) == path; });
    std::erase_if(expected_, [&](const auto& entry) { return std::get<0>(entry.first) == path; });
    if (floor_ && std::get<0>(*floor_) == path) floor_.reset();
    return NextSpeech();
  }

 private:
  using Key = std::tuple<std::string, std::string, int>;
  static constexpr size_t kMostKept = 65536;

  std::string NextSpeech() {
    auto first = std::find_if(kept_.begin(), kept_.end(),
                              [&](const auto& entry) { return begun_.count(std::get<0>(entry.first)) > 0; });
    if (floor_ || first == kept_.end()) return "";
    auto next = kept_.extract(first);
    floor_ = next.key();
    return absl::StrCat("\n", std::get<0>(*floor_), ": ", next.mapped());
  }
  // Models may say anything; a terminal must not obey it.
  static std::string Printable(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      auto c = static_cast<unsigned char>(text[i]);
      auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : ' ');
      if (c == 0xC2 && next >= 0x80 && next < 0xA0) {  // U+0080 to U+009F
        ++i;
      } else if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7F)) {
        out.push_back(text[i]);
      }
    }
    return out;
  }
  std::optional<Key> floor_;
  std::map<Key, std::string> kept_;
  std::map<Key, int64_t> expected_;  // offset of the next piece
  std::set<std::string> begun_;
};

// What was consumed, in words.
class Bill {
 public:
  template <class Usage>
  void Add(const Usage& usage) {
    AddUsage(usage, &sum_);
  }
  // Empty when there is nothing; else with `end` behind it.
  std::string ToString(const char* end) const {
    const int64_t tokens = sum_.input_tokens() + sum_.output_tokens(), cost = sum_.cost_nano_units();
    if (tokens == 0 && cost == 0) return "";
    return absl::StrCat(tokens, tokens == 1 ? " token" : " tokens",
                        cost == 0 ? "" : absl::StrCat(", ", ShowCost(cost, sum_.currency_code())), end);
  }

 private:
  tutti::type::v1::UsageTotals sum_;
};

// As `, 340 tokens, 0.002 USD`.
std::string CostOf(const StepRecord& step) {
  Bill bill;
  for (const auto& usage : step.usage()) bill.Add(usage);
  bill.Add(step.child_usage());
  std::string text = bill.ToString("");
  return text.empty() ? "" : absl::StrCat(", ", text);
}

class Printer {
 public:
  explicit Printer(Format format) : format_(format), terminal_(isatty(STDERR_FILENO) != 0) {}

  bool terminal() const { return terminal_; }

  void Print(const RunEvent& event) {
    if (event.event_case() == RunEvent::kText && format_ != Format::kJson) return Say(speeches_.Hear(event.text()));
    if (format_ == Format::kJson) {
      std::cout << ProtoToJson(event) << std::endl;
      return;
    }
    for (const auto& usage : event.step().usage()) bill_.Add(usage);
    for (const auto& usage : event.gate().usage()) bill_.Add(usage);
    bill_.Add(event.step().child_usage());
    std::string text = Describe(event);
    if (std::exchange(speaking_, false)) std::cerr << "\n";
    if (terminal_) std::cerr << "\r\033[K";
    if (!text.empty()) std::cerr << absl::StrFormat("%3d%%  %s\n", event.progress_percent(), text);
    if (terminal_) {
      int filled = event.progress_percent() * 30 / 100;
      std::string bar;
      for (int i = 0; i < 30; ++i) bar += i < filled ? "█" : "░";
      std::cerr << bar << absl::StrFormat(" %3d%% ", event.progress_percent()) << bill_.ToString(" · ") << current_
                << std::flush;
    }
    if (event.event_case() == RunEvent::kStep) {
      bool begins = event.step().state() == tutti::workflow::v1::STEP_STATE_RUNNING;
      Say(begins ? speeches_.Begin(event.step().path()) : speeches_.End(event.step().path()));
    }
  }
  void End() {
    if (speaking_) std::cerr << "\n";
    if (terminal_ && format_ != Format::kJson) std::cerr << "\r\033[K";
  }

 private:
  void Say(absl::string_view text) {
    if (text.empty()) return;
    if (!speaking_) {
      if (terminal_) std::cerr << "\r\033[K";
      absl::ConsumePrefix(&text, "\n");
    }
    speaking_ = true;
    std::cerr << text << std::flush;
  }

  std::string Describe(const RunEvent& event) {
    if (event.event_case() == RunEvent::kState) {
      return absl::StrCat(
          "run ", event.run_id(), " ",
          absl::AsciiStrToLower(ShowEnum(tutti::workflow::v1::RunState_Name(event.state()), "RUN_STATE_")));
    }
    if (event.event_case() == RunEvent::kGate) {
      const auto& gate = event.gate();
      return absl::StrFormat("%s: %s (score %.2f)%s", gate.path(), gate.passed() ? "passed" : "NOT passed",
                             gate.score(),
                             gate.passed() || gate.feedback().empty() ? "" : absl::StrCat(": ", gate.feedback()));
    }
    if (event.event_case() == RunEvent::kSignal) {
      return absl::StrCat("signal ", event.signal().name(),
                          event.signal().sender().empty() ? "" : absl::StrCat(" from ", event.signal().sender()));
    }
    if (event.event_case() == RunEvent::kEmitted) {
      return absl::StrCat(event.emitted().path(), " emitted ", event.emitted().type());
    }
    if (event.event_case() != RunEvent::kStep) return "";
    const StepRecord& step = event.step();
    std::string who = step.target().empty() ? "" : absl::StrCat(" (", step.kind(), " ", step.target(), ")");
    switch (step.state()) {
      case tutti::workflow::v1::STEP_STATE_RUNNING:
        current_ = step.path();
        started_[step.path()] = ToTime(event.time());
        return absl::StrCat(step.path(), who, " …");
      case tutti::workflow::v1::STEP_STATE_SUCCEEDED: {
        std::string took;
        if (auto it = started_.find(step.path()); it != started_.end()) {
          took = absl::StrCat(" in ", ShowDuration(ToTime(event.time()) - it->second));
        }
        return absl::StrCat(step.path(), who, step.cached() ? " answered from before" : " done", took, CostOf(step));
      }
      case tutti::workflow::v1::STEP_STATE_FAILED:
        return absl::StrCat(step.path(), who, " FAILED", CostOf(step), ": ", step.error().message());
      case tutti::workflow::v1::STEP_STATE_RETRYING:
        return absl::StrCat(step.path(), who, " attempt ", step.attempt(), " failed", CostOf(step),
                            ", will be tried again: ", step.error().message());
      case tutti::workflow::v1::STEP_STATE_WAITING: {
        const auto& wait = step.wait();
        std::string until = wait.has_wake_time() ? absl::StrCat(" until ", ShowTime(wait.wake_time())) : "";
        if (!wait.child_run_id().empty()) return absl::StrCat(step.path(), " waits for run ", wait.child_run_id());
        if (wait.signal().empty()) return absl::StrCat(step.path(), " sleeps", until);
        return absl::StrCat(step.path(), " waits for signal ", wait.signal(), until,
                            wait.title().empty() ? "" : absl::StrCat(": ", wait.title()));
      }
      case tutti::workflow::v1::STEP_STATE_SKIPPED:
        return absl::StrCat(step.path(), " skipped");
      default:
        return "";
    }
  }

  const Format format_;
  const bool terminal_;
  std::string current_;
  Bill bill_;
  Speeches speeches_;
  bool speaking_ = false;  // in the middle of a line
  std::map<std::string, absl::Time> started_;
};

}  // namespace

absl::Status WatchRun(Client& client, const std::string& run_id, Format format, std::optional<bool> texts,
                      tutti::workflow::v1::RunState* state) {
  auto stub = tutti::workflow::v1::RunService::NewStub(client.channel());
  Printer printer(format);
  tutti::workflow::v1::WatchRunRequest request;
  request.set_run_id(run_id);
  request.set_texts(texts.value_or(printer.terminal() && format != Format::kJson));
  *state = tutti::workflow::v1::RUN_STATE_UNSPECIFIED;
  int failures = 0;
  for (;;) {
    grpc::ClientContext context;
    auto stream = stub->WatchRun(&context, request);
    tutti::workflow::v1::WatchRunResponse response;
    while (stream->Read(&response)) {
      failures = 0;
      request.set_after_offset(response.event().offset());
      if (response.event().event_case() == RunEvent::kState) *state = response.event().state();
      printer.Print(response.event());
    }
    absl::Status status = FromGrpc(stream->Finish());
    bool ended = *state == tutti::workflow::v1::RUN_STATE_SUCCEEDED ||
                 *state == tutti::workflow::v1::RUN_STATE_FAILED || *state == tutti::workflow::v1::RUN_STATE_CANCELLED;
    if (ended || (status.ok() && request.after_offset() > 0)) {
      printer.End();
      return absl::OkStatus();
    }
    bool passing = status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kCancelled;
    if (!passing || ++failures > kReconnects) {
      printer.End();
      return client.Explain(status);
    }
    std::this_thread::sleep_for(
        std::chrono::seconds(1));  // the server is away: look again, resuming after the last event
  }
}

void PrintStages(const tutti::workflow::v1::Run& run) {
  struct Stage {
    absl::Time start = absl::InfiniteFuture(), end = absl::InfinitePast();
    tutti::type::v1::UsageTotals used;
  };
  // By the first two parts of their paths, unless that would be more than a screen.
  constexpr size_t kMostRows = 60;
  auto name_at = [](const tutti::workflow::v1::StepRecord& step, size_t depth) {
    std::vector<std::string> parts = absl::StrSplit(step.path(), '/');
    parts.resize(std::min(parts.size(), depth));
    return absl::StrJoin(parts, "/");
  };
  std::set<std::string> names;
  for (const auto& step : run.steps()) names.insert(name_at(step, 2));
  const size_t depth = names.size() > kMostRows ? 1 : 2;
  std::vector<std::string> order;
  std::map<std::string, Stage> stages;
  tutti::type::v1::UsageTotals sum = run.usage();  // and what was consumed by the runs that steps have started
  for (const auto& step : run.steps()) {
    if (depth == 2 && step.kind() == "pipeline" && !absl::StrContains(step.path(), '/')) continue;
    const std::string name = name_at(step, depth);
    if (stages.count(name) == 0) order.push_back(name);
    Stage& stage = stages[name];
    stage.start = std::min(stage.start, ToTime(step.start_time()));
    if (step.has_end_time()) stage.end = std::max(stage.end, ToTime(step.end_time()));
    for (const auto& usage : step.usage()) AddUsage(usage, &stage.used);
    AddUsage(step.child_usage(), &stage.used);
    AddUsage(step.child_usage(), &sum);
  }
  std::vector<Row> rows;
  for (const auto& name : order) {
    const Stage& stage = stages[name];
    rows.push_back({name, stage.end > stage.start ? ShowDuration(stage.end - stage.start) : "-",
                    absl::StrCat(stage.used.calls()), absl::StrCat(stage.used.input_tokens()),
                    absl::StrCat(stage.used.output_tokens()),
                    ShowCost(stage.used.cost_nano_units(), stage.used.currency_code())});
  }
  rows.push_back({"total", run.has_end_time() ? ShowDuration(ToTime(run.end_time()) - ToTime(run.create_time())) : "-",
                  absl::StrCat(sum.calls()), absl::StrCat(sum.input_tokens()), absl::StrCat(sum.output_tokens()),
                  ShowCost(sum.cost_nano_units(), sum.currency_code())});
  PrintTable({"STAGE", "TIME", "CALLS", "TOKENS IN", "TOKENS OUT", "COST"}, rows);
  if (run.omitted_steps() > 0) {
    std::cout << "and " << run.omitted_steps() << " more steps: tutti runs watch " << run.run_id() << "\n";
  }
}

}  // namespace tutti::cli
