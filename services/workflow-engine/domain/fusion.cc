#include "services/workflow-engine/domain/fusion.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::engine {
namespace {

using tutti::workflow::v1::Fusion;

Task<absl::StatusOr<Json>> EvaluateFor(std::string expression, JsonRef output, const Variables& variables,
                                       Evaluator& evaluator, const Evaluator::Context& context) {
  Variables inner(&variables);
  inner.Set("output", std::move(output));
  auto value = co_await evaluator.Evaluate(ExpressionBody(expression), inner, context);
  co_return value;
}

// Without a number: the lowest there is.
Task<double> ScoreOfInput(const Fusion& fusion, const FusionInput& input, const Variables& variables,
                          Evaluator& evaluator, const Evaluator::Context& context) {
  std::string expression = fusion.score();
  if (expression.empty()) expression = ".output.score";
  auto score = co_await EvaluateFor(std::move(expression), input.output, variables, evaluator, context);
  std::optional<double> number = score.ok() ? ToDouble(*score) : std::nullopt;
  co_return number&& std::isfinite(*number) ? *number : -INFINITY;
}

void DeepMerge(Json& into, const Json& from) {
  if (!into.is_object() || !from.is_object()) {
    into = from;
    return;
  }
  for (const auto& [key, value] : from.items()) {
    if (into.contains(key)) {
      DeepMerge(into[key], value);
    } else {
      into[key] = value;
    }
  }
}

Json Concat(const std::vector<FusionInput>& inputs) {
  bool texts = std::all_of(inputs.begin(), inputs.end(), [](const auto& input) { return input.output->is_string(); });
  if (texts) {
    std::string out;
    for (const auto& input : inputs) absl::StrAppend(&out, out.empty() ? "" : "\n\n", input.output->get<std::string>());
    return out;
  }
  Json out = Json::array();
  for (const auto& input : inputs) {
    if (input.output->is_array()) {
      for (const auto& item : *input.output) out.push_back(item);
    } else {
      out.push_back(*input.output);
    }
  }
  return out;
}

struct Candidate {
  Json value;
  double votes = 0, best_score = -INFINITY;
  size_t first = 0;  // who named it first
};

// By value; the order of JSON objects' keys does not matter.
Task<absl::StatusOr<std::vector<Candidate>>> CountVotes(const Fusion& fusion, const std::vector<FusionInput>& inputs,
                                                        bool weighted, const Variables& variables, Evaluator& evaluator,
                                                        const Evaluator::Context& context) {
  std::vector<Candidate> out;
  std::map<std::string, size_t> known;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Json value = *inputs[i].output;
    if (!fusion.value().empty()) {
      TUTTI_CO_ASSIGN_OR_RETURN(value,
                                co_await EvaluateFor(fusion.value(), inputs[i].output, variables, evaluator, context));
    }
    auto [it, fresh] = known.try_emplace(DumpJson(value), out.size());
    if (fresh) out.push_back({value, 0, -INFINITY, i});
    Candidate& candidate = out[it->second];
    auto weight = fusion.weights().find(inputs[i].branch);
    candidate.votes += weighted && weight != fusion.weights().end() ? weight->second : 1;
    double score = co_await ScoreOfInput(fusion, inputs[i], variables, evaluator, context);
    candidate.best_score = std::max(candidate.best_score, score);
  }
  // Most votes; then the best score; then who was named first.
  std::stable_sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) {
    if (a.votes != b.votes) return a.votes > b.votes;
    if (a.best_score != b.best_score) return a.best_score > b.best_score;
    return a.first < b.first;
  });
  co_return std::move(out);
}

double QuorumOf(const Fusion& fusion, size_t branches) {
  return fusion.quorum() > 0 ? fusion.quorum() : static_cast<double>(branches / 2 + 1);
}

}  // namespace

bool IsFusionMethod(const std::string& method) {
  static const std::set<std::string> kMethods = {"concat",        "deep_merge",    "majority_vote", "weighted_vote",
                                                 "best_by_score", "first_success", "quorum",        "agent"};
  return kMethods.count(method) > 0;
}

Task<absl::StatusOr<bool>> IsDecided(const Fusion& fusion, const std::vector<FusionInput>& inputs, size_t branches,
                                     const Variables& variables, Evaluator& evaluator,
                                     const Evaluator::Context& context) {
  if (inputs.empty()) co_return false;
  if (fusion.method() == "first_success") co_return true;
  if (fusion.method() != "quorum") co_return inputs.size() == branches;
  TUTTI_CO_ASSIGN_OR_RETURN(auto votes,
                            co_await CountVotes(fusion, inputs, /*weighted=*/false, variables, evaluator, context));
  co_return votes[0].votes >= QuorumOf(fusion, branches);
}

Task<absl::StatusOr<Json>> Fuse(const Fusion& fusion, const std::vector<FusionInput>& inputs, size_t branches,
                                const Variables& variables, Evaluator& evaluator, const Evaluator::Context& context) {
  if (inputs.empty()) {
    co_return Error(absl::StatusCode::kFailedPrecondition, "NOTHING_TO_FUSE", "no branch has ended well");
  }
  const std::string& method = fusion.method();
  if (method == "concat") co_return Concat(inputs);
  if (method == "first_success") co_return *inputs[0].output;
  if (method == "deep_merge") {
    Json out = Json::object();
    for (const auto& input : inputs) {
      if (!input.output->is_object()) {
        co_return Error(
            absl::StatusCode::kFailedPrecondition, "CANNOT_MERGE",
            absl::StrCat("deep_merge needs objects, branch ", input.branch, " gave ", input.output->type_name()));
      }
      DeepMerge(out, *input.output);
    }
    co_return out;
  }
  if (method == "best_by_score") {
    size_t best = 0;
    double highest = -INFINITY;
    for (size_t i = 0; i < inputs.size(); ++i) {
      double score = co_await ScoreOfInput(fusion, inputs[i], variables, evaluator, context);
      if (score > highest) {
        highest = score;
        best = i;
      }
    }
    co_return *inputs[best].output;
  }
  TUTTI_CO_ASSIGN_OR_RETURN(
      auto votes, co_await CountVotes(fusion, inputs, method == "weighted_vote", variables, evaluator, context));
  if (method == "quorum" && votes[0].votes < QuorumOf(fusion, branches)) {
    co_return Error(absl::StatusCode::kAborted, "NO_QUORUM",
                    absl::StrCat("no value has the ", QuorumOf(fusion, branches), " votes it needs; the most is ",
                                 votes[0].votes, " of ", branches, " branches"));
  }
  co_return votes[0].value;
}

}  // namespace tutti::engine
