// Which specialist a subtask goes to.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "tutti/workflow/v1/workflow_spec.pb.h"

namespace tutti::engine {

struct SpecialistRecord {
  int calls = 0, good = 0, under_way = 0;
};

struct RouteScore {
  std::string agent;
  double score = 0;
  double capability = 0, success = 0, load = 0, specialisation = 0;  // 0 to 1
};

// The specialists, best first; among equals the one that stands first. `excluded` come last: they have failed at it.
std::vector<RouteScore> Route(const tutti::workflow::v1::SupervisorStep& step, const std::string& text,
                              const std::string& capability, const std::map<std::string, SpecialistRecord>& records,
                              const std::set<std::string>& excluded);

}  // namespace tutti::engine
