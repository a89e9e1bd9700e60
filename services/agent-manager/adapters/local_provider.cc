// The `local` provider plays a model's part in the same loop: it asks for tools, reads their answers, and answers in
// JSON.
#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/status/error.h"
#include "services/agent-manager/adapters/providers.h"
#include "services/agent-manager/domain/text_analysis.h"

namespace tutti::agent_manager {
namespace {

constexpr char kModel[] = "text-algorithms-1";
constexpr size_t kMaxQuestions = 6;
constexpr size_t kMaxPassages = 40;

// There is no tokeniser here; four bytes a token is what the usual ones come to in English.
int64_t EstimateTokens(size_t bytes) { return static_cast<int64_t>((bytes + 3) / 4); }

std::string StringField(const Json& input, const char* key) {
  return input.is_object() && input.contains(key) && input[key].is_string() ? input[key].get<std::string>() : "";
}

// First turn: one search a question.
void AskForSearches(const ChatRequest& request, ChatResponse& out) {
  std::string topic = StringField(request.input, "topic");
  // Feedback of a gate means that too little was found: look further.
  bool again = request.input.is_object() && request.input.contains("feedback") && request.input["feedback"].is_string();
  int number = 0;
  for (const auto& question : Decompose(topic, kMaxQuestions)) {
    out.tool_calls.push_back(
        {absl::StrCat("search-", ++number),
         "documents_search",
         {{"folder", StringField(request.input, "documents")}, {"query", question}, {"limit", again ? 20 : 10}}});
  }
}

// Second turn: the best passages of all answers, each once.
Json CollectPassages(const ChatRequest& request) {
  Json passages = Json::array(), questions = Json::array(), skipped = Json::array();
  std::set<std::string> seen;
  std::vector<std::string> asked = Decompose(StringField(request.input, "topic"), kMaxQuestions);
  size_t answer = 0, documents = 0;
  for (const auto& message : request.messages) {
    if (message.role != ChatMessage::Role::kTool) continue;
    std::string question = answer < asked.size() ? asked[answer] : "";
    ++answer;
    questions.push_back(question);
    Json found = Json::parse(message.text, nullptr, false);
    if (!found.is_object() || !found.contains("passages")) continue;
    if (found.contains("skipped")) skipped = found["skipped"];
    documents = found.value("documents", documents);
    for (auto& passage : found["passages"]) {
      if (passages.size() >= kMaxPassages || !seen.insert(passage.value("text", "")).second) continue;
      passage["question"] = question;
      passages.push_back(passage);
    }
  }
  return {{"topic", StringField(request.input, "topic")},
          {"questions", questions},
          {"passages", passages},
          {"documents", documents},
          {"skipped", skipped}};
}

// The sentences and list items of a text, each a task of its own.
std::vector<std::string> PartsOf(const std::string& text) {
  std::vector<std::string> parts;
  for (absl::string_view line : absl::StrSplit(text, absl::ByAnyChar("\n;"))) {
    line = absl::StripAsciiWhitespace(line);
    while (!line.empty() && (absl::ascii_isdigit(line[0]) || absl::StrContains("-*.) ", line.substr(0, 1)))) {
      line.remove_prefix(1);
    }
    for (absl::string_view sentence : absl::StrSplit(line, ". ")) {
      sentence = absl::StripAsciiWhitespace(absl::StripSuffix(sentence, "."));
      if (!sentence.empty()) parts.emplace_back(sentence);
    }
  }
  return parts;
}

// A subtask for each part of the task, for the specialist whose words it has most of; with one part, one for each
// specialist.
Json Decompose(const Json& input) {
  Json task = input.value("task", Json());
  std::string text = task.is_string() ? task.get<std::string>() : StringField(task, "topic");
  if (text.empty()) text = DumpJson(task);
  Json specialists = input.value("specialists", Json::array());
  std::vector<std::string> parts = PartsOf(text);
  Json subtasks = Json::array();
  auto capability_of = [](const Json& specialist) {
    const Json& list = specialist.value("capabilities", Json::array());
    return list.empty() ? std::string() : list[0].get<std::string>();
  };
  if (parts.size() <= 1) {
    for (const Json& specialist : specialists) {
      subtasks.push_back({{"id", absl::StrCat("part_", subtasks.size() + 1)},
                          {"task", text},
                          {"capability", capability_of(specialist)},
                          {"depends_on", Json::array()}});
    }
  }
  for (size_t i = 0; parts.size() > 1 && i < parts.size(); ++i) {
    std::string capability;
    size_t most = 0;
    std::string lower = absl::AsciiStrToLower(parts[i]);
    for (const Json& specialist : specialists) {
      size_t shared = 0;
      for (const char* list : {"expertise", "capabilities"}) {
        for (const Json& word : specialist.value(list, Json::array())) {
          shared += absl::StrContains(lower, absl::AsciiStrToLower(word.get<std::string>())) ? 1 : 0;
        }
      }
      if (shared > most) {
        most = shared;
        capability = capability_of(specialist);
      }
    }
    subtasks.push_back({{"id", absl::StrCat("part_", i + 1)},
                        {"task", parts[i]},
                        {"capability", capability},
                        {"depends_on", Json::array()}});
  }
  return {{"subtasks", std::move(subtasks)}};
}

// Results under headings, in their order.
Json Integrate(const Json& input) {
  std::string text;
  for (const Json& result : input.value("results", Json::array())) {
    const Json& said = result.contains("result") ? result["result"] : result;
    absl::StrAppend(&text, text.empty() ? "" : "\n\n", "## ", StringField(result, "task"), "\n\n",
                    said.is_string() ? said.get<std::string>() : DumpJson(said));
  }
  return text;
}

class LocalProvider final : public ModelProvider {
 public:
  std::string name() const override { return "local"; }
  std::string default_model() const override { return kModel; }

  Task<absl::StatusOr<ChatResponse>> Chat(CallContext&, const ChatRequest& request) override {
    ChatResponse out;
    out.model = kModel;
    size_t bytes = request.instructions.size();
    for (const auto& message : request.messages) bytes += message.text.size();
    out.input_tokens = EstimateTokens(bytes);
    bool answered = std::any_of(request.messages.begin(), request.messages.end(),
                                [](const ChatMessage& m) { return m.role == ChatMessage::Role::kTool; });
    switch (request.local_task) {
      case tutti::agent::v1::LOCAL_TASK_ECHO:
        out.text = DumpJson(request.input);
        break;
      case tutti::agent::v1::LOCAL_TASK_RESEARCH:
        if (StringField(request.input, "topic").empty() || StringField(request.input, "documents").empty()) {
          co_return Error(absl::StatusCode::kInvalidArgument, "MISSING_INPUT",
                          "research needs an input with \"topic\" and \"documents\" (a folder)");
        }
        if (!answered) {
          AskForSearches(request, out);
        } else {
          out.text = DumpJson(CollectPassages(request));
        }
        break;
      case tutti::agent::v1::LOCAL_TASK_ANALYSE:
        out.text = DumpJson(AnalyseTask(request.input));
        break;
      case tutti::agent::v1::LOCAL_TASK_WRITE:
        out.text = DumpJson(WriteTask(request.input));
        break;
      case tutti::agent::v1::LOCAL_TASK_CRITIQUE:
        out.text = DumpJson(CritiqueTask(request.input));
        break;
      case tutti::agent::v1::LOCAL_TASK_DECOMPOSE:
        out.text = DumpJson(Decompose(request.input));
        break;
      case tutti::agent::v1::LOCAL_TASK_INTEGRATE:
        out.text = Integrate(request.input).get<std::string>();
        break;
      default: {
        Json summary = SummariseTask(request.input);
        out.text = summary.is_string() ? summary.get<std::string>() : DumpJson(summary);
      }
    }
    size_t out_bytes = out.text.size();
    for (const auto& tool_call : out.tool_calls) out_bytes += DumpJson(tool_call.arguments).size();
    out.output_tokens = EstimateTokens(out_bytes);
    co_return out;
  }
};

}  // namespace

std::unique_ptr<ModelProvider> NewLocalProvider() { return std::make_unique<LocalProvider>(); }

}  // namespace tutti::agent_manager
