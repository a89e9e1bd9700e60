// jq programs (libjq 1.6), compiled once and kept. One object serves one thread.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "runtime/json/json.h"

namespace tutti::engine {

class Jq {
 public:
  Jq();
  ~Jq();

  // OK, or INVALID_ARGUMENT with jq's own words. Programs that could run without end or look at the process are
  // refused: def, while, until, repeat, recurse, env, $ENV, input, inputs, debug, import, include, halt; range() counts
  // to a million at most.
  absl::Status Check(const std::string& program);
  // The first output; null when there is none. INVALID_ARGUMENT: the program failed on this input.
  absl::StatusOr<Json> Run(const std::string& program, const Json& input);

 private:
  static constexpr size_t kMaxPrograms = 256;
  struct Program;
  absl::StatusOr<Program*> Compile(const std::string& program);
  std::list<std::string> recent_;  // front: used last
  std::unordered_map<std::string, std::unique_ptr<Program>> programs_;
};

}  // namespace tutti::engine
