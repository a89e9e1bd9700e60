// Which specialist a subtask goes to.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

// What is known of specialists, from all runs. On one executor.
class SpecialistRecords {
 public:
  // `name` tells agents apart that are called the same in different workflows.
  void Begin(const std::string& name);
  // How the call went that Begin announced; nothing: it says nothing about the specialist.
  void End(const std::string& name, std::optional<bool> good);
  // The share of its calls that went well, 0 to 1; 1 for who is not known. Each call counts 0.95 times as much as the
  // next one.
  double success(const std::string& name) const;
  int under_way(const std::string& name) const;

 private:
  static constexpr size_t kMostKept = 10000;
  struct Record {
    double calls = 0, good = 0;
    int under_way = 0;
  };
  std::map<std::string, Record> records_;
};

struct RouteScore {
  std::string agent;
  double score = 0;
  double capability = 0, success = 0, load = 0, specialisation = 0;  // 0 to 1
};

// What is to be done, and by whom it may be done.
struct RouteQuestion {
  std::string text;
  std::vector<std::string> capabilities;
  std::set<std::string> failed;                            // agents that have failed at it come last
  std::function<std::string(const std::string&)> name_of;  // the agent's name in `records`
};

// The specialists, best first; among equals the one that stands first.
std::vector<RouteScore> Route(const tutti::workflow::v1::SupervisorStep& step, const RouteQuestion& question,
                              const SpecialistRecords& records);

}  // namespace tutti::engine
