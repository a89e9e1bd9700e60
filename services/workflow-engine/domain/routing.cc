#include "services/workflow-engine/domain/routing.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

namespace tutti::engine {
namespace {

std::set<std::string> Words(const std::string& text) {
  std::set<std::string> out;
  std::string word;
  for (char c : absl::AsciiStrToLower(text) + " ") {
    bool letter = isalnum(static_cast<unsigned char>(c)) || static_cast<unsigned char>(c) >= 0x80;
    if (letter) {
      word += c;
    } else if (!word.empty()) {
      out.insert(std::exchange(word, ""));
    }
  }
  return out;
}

// The share of an expertise's words that the text has.
double Overlap(const std::set<std::string>& text, const tutti::workflow::v1::SupervisorStep::Specialist& specialist) {
  std::set<std::string> expertise;
  for (const auto& phrase : specialist.expertise()) {
    for (const auto& word : Words(phrase)) expertise.insert(word);
  }
  if (expertise.empty()) return 0;
  auto shared =
      std::count_if(expertise.begin(), expertise.end(), [&](const auto& word) { return text.count(word) > 0; });
  return static_cast<double>(shared) / static_cast<double>(expertise.size());
}

}  // namespace

void SpecialistRecords::Begin(const std::string& name) {
  if (records_.size() >= kMostKept && records_.count(name) == 0) {
    std::erase_if(records_, [](const auto& record) { return record.second.under_way == 0; });
  }
  ++records_[name].under_way;
}

void SpecialistRecords::End(const std::string& name, std::optional<bool> good) {
  constexpr double kFade = 0.95;
  Record& record = records_[name];
  --record.under_way;
  if (!good) return;
  record.calls = kFade * record.calls + 1;
  record.good = kFade * record.good + (*good ? 1 : 0);
}

double SpecialistRecords::success(const std::string& name) const {
  auto record = records_.find(name);
  return record == records_.end() || record->second.calls == 0 ? 1 : record->second.good / record->second.calls;
}

int SpecialistRecords::under_way(const std::string& name) const {
  auto record = records_.find(name);
  return record == records_.end() ? 0 : record->second.under_way;
}

std::vector<RouteScore> Route(const tutti::workflow::v1::SupervisorStep& step, const RouteQuestion& question,
                              const SpecialistRecords& records) {
  auto weights = step.weights();
  if (!step.has_weights()) {
    weights.set_capability(0.3);
    weights.set_success(0.3);
    weights.set_load(0.2);
    weights.set_specialisation(0.2);
  }
  const auto words = Words(question.text);
  std::vector<RouteScore> out;
  for (const auto& specialist : step.specialists()) {
    const auto& has = specialist.capabilities();
    const auto& needed = question.capabilities;
    const auto fitting = std::count_if(needed.begin(), needed.end(), [&](const auto& capability) {
      return std::find(has.begin(), has.end(), capability) != has.end();
    });
    const std::string name = question.name_of(specialist.agent());
    RouteScore score;
    score.agent = specialist.agent();
    score.capability = needed.empty() ? 1 : static_cast<double>(fitting) / static_cast<double>(needed.size());
    score.success = records.success(name);
    score.load = 1.0 / (1 + records.under_way(name));
    score.specialisation = Overlap(words, specialist);
    score.score = weights.capability() * score.capability + weights.success() * score.success +
                  weights.load() * score.load + weights.specialisation() * score.specialisation;
    out.push_back(std::move(score));
  }
  std::stable_sort(out.begin(), out.end(), [&](const RouteScore& a, const RouteScore& b) {
    bool a_failed = question.failed.count(a.agent) > 0, b_failed = question.failed.count(b.agent) > 0;
    return a_failed != b_failed ? b_failed : a.score > b.score;
  });
  return out;
}

}  // namespace tutti::engine
