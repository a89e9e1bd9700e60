#include "services/workflow-engine/domain/fusion.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"
#include "runtime/status/macros.h"

namespace tutti::engine {
namespace {

using tutti::workflow::v1::Fusion;

absl::StatusOr<Json> Evaluate(const std::string& expression, const JsonRef& output, const Variables& variables,
                              Evaluator& evaluator) {
  Variables inner(&variables);
  inner.Set("output", output);
  return evaluator.Evaluate(ExpressionBody(expression), inner);
}

absl::StatusOr<Json> ValueOf(const Fusion& fusion, const FusionInput& input, const Variables& variables,
                             Evaluator& evaluator) {
  if (fusion.value().empty()) return *input.output;
  return Evaluate(fusion.value(), input.output, variables, evaluator);
}

// Without a number: the lowest there is.
double ScoreOfInput(const Fusion& fusion, const FusionInput& input, const Variables& variables, Evaluator& evaluator) {
  auto score = Evaluate(fusion.score().empty() ? ".output.score" : fusion.score(), input.output, variables, evaluator);
  if (!score.ok() || !score->is_number() || !std::isfinite(score->get<double>())) return -INFINITY;
  return score->get<double>();
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
absl::StatusOr<std::vector<Candidate>> CountVotes(const Fusion& fusion, const std::vector<FusionInput>& inputs,
                                                  bool weighted, const Variables& variables, Evaluator& evaluator) {
  std::vector<Candidate> out;
  std::map<std::string, size_t> known;
  for (size_t i = 0; i < inputs.size(); ++i) {
    TUTTI_ASSIGN_OR_RETURN(Json value, ValueOf(fusion, inputs[i], variables, evaluator));
    auto [it, fresh] = known.try_emplace(value.dump(), out.size());
    if (fresh) out.push_back({value, 0, -INFINITY, i});
    Candidate& candidate = out[it->second];
    auto weight = fusion.weights().find(inputs[i].branch);
    candidate.votes += weighted && weight != fusion.weights().end() ? weight->second : 1;
    candidate.best_score = std::max(candidate.best_score, ScoreOfInput(fusion, inputs[i], variables, evaluator));
  }
  // Most votes; then the best score; then who was named first.
  std::stable_sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) {
    if (a.votes != b.votes) return a.votes > b.votes;
    if (a.best_score != b.best_score) return a.best_score > b.best_score;
    return a.first < b.first;
  });
  return out;
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

absl::StatusOr<bool> IsDecided(const Fusion& fusion, const std::vector<FusionInput>& inputs, size_t branches,
                               const Variables& variables, Evaluator& evaluator) {
  if (inputs.empty()) return false;
  if (fusion.method() == "first_success") return true;
  if (fusion.method() != "quorum") return inputs.size() == branches;
  TUTTI_ASSIGN_OR_RETURN(auto votes, CountVotes(fusion, inputs, /*weighted=*/false, variables, evaluator));
  return votes[0].votes >= QuorumOf(fusion, branches);
}

absl::StatusOr<Json> Fuse(const Fusion& fusion, const std::vector<FusionInput>& inputs, size_t branches,
                          const Variables& variables, Evaluator& evaluator) {
  if (inputs.empty()) {
    return Error(absl::StatusCode::kFailedPrecondition, "NOTHING_TO_FUSE", "no branch has ended well");
  }
  const std::string& method = fusion.method();
  if (method == "concat") return Concat(inputs);
  if (method == "first_success") return *inputs[0].output;
  if (method == "deep_merge") {
    Json out = Json::object();
    for (const auto& input : inputs) {
      if (!input.output->is_object()) {
        return Error(
            absl::StatusCode::kFailedPrecondition, "CANNOT_MERGE",
            absl::StrCat("deep_merge needs objects, branch ", input.branch, " gave ", input.output->type_name()));
      }
      DeepMerge(out, *input.output);
    }
    return out;
  }
  if (method == "best_by_score") {
    auto best = std::max_element(inputs.begin(), inputs.end(), [&](const auto& a, const auto& b) {
      return ScoreOfInput(fusion, a, variables, evaluator) < ScoreOfInput(fusion, b, variables, evaluator);
    });
    return *best->output;
  }
  TUTTI_ASSIGN_OR_RETURN(auto votes, CountVotes(fusion, inputs, method == "weighted_vote", variables, evaluator));
  if (method == "quorum" && votes[0].votes < QuorumOf(fusion, branches)) {
    return Error(absl::StatusCode::kAborted, "NO_QUORUM",
                 absl::StrCat("no value has the ", QuorumOf(fusion, branches), " votes it needs; the most is ",
                              votes[0].votes, " of ", branches, " branches"));
  }
  return votes[0].value;
}

}  // namespace tutti::engine
