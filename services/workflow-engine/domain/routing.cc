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

std::vector<RouteScore> Route(const tutti::workflow::v1::SupervisorStep& step, const std::string& text,
                              const std::string& capability, const std::map<std::string, SpecialistRecord>& records,
                              const std::set<std::string>& excluded) {
  auto weights = step.weights();
  if (!step.has_weights()) {
    weights.set_capability(0.3);
    weights.set_success(0.3);
    weights.set_load(0.2);
    weights.set_specialisation(0.2);
  }
  const auto words = Words(text);
  std::vector<RouteScore> out;
  for (const auto& specialist : step.specialists()) {
    const auto& has = specialist.capabilities();
    auto known = records.find(specialist.agent());
    const SpecialistRecord record = known == records.end() ? SpecialistRecord() : known->second;
    RouteScore score;
    score.agent = specialist.agent();
    score.capability = capability.empty() || std::find(has.begin(), has.end(), capability) != has.end() ? 1 : 0;
    score.success = record.calls == 0 ? 1 : static_cast<double>(record.good) / record.calls;
    score.load = 1.0 / (1 + record.under_way);
    score.specialisation = Overlap(words, specialist);
    score.score = weights.capability() * score.capability + weights.success() * score.success +
                  weights.load() * score.load + weights.specialisation() * score.specialisation;
    out.push_back(std::move(score));
  }
  std::stable_sort(out.begin(), out.end(), [&](const RouteScore& a, const RouteScore& b) {
    bool a_failed = excluded.count(a.agent) > 0, b_failed = excluded.count(b.agent) > 0;
    return a_failed != b_failed ? b_failed : a.score > b.score;
  });
  return out;
}

}  // namespace tutti::engine
