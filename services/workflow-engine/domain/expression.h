// Expressions in specs: jq 1.8 between `${` and `}` (docs/expressions.md). Plain paths such as
// `.research.passages[0].text` are walked without the machine.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/async/task.h"
#include "runtime/json/json.h"
#include "services/workflow-engine/domain/expressions/evaluation_queue.h"
#include "services/workflow-engine/domain/expressions/machine.h"

namespace tutti::engine {

using JsonRef = std::shared_ptr<const Json>;

// What expressions see: names of this block over those of the enclosing ones. The parent must outlive it.
class Variables {
 public:
  explicit Variables(const Variables* parent = nullptr) : parent_(parent) {}
  void Set(const std::string& name, JsonRef value) { own_[name] = std::move(value); }
  // Everything that is seen from here, without a parent: for what outlives the enclosing blocks.
  Variables Flatten() const;
  // Null when there is none.
  const Json* Find(const std::string& name) const;
  // All of them as one object.
  Json ToObject() const;
  // All of them, inner names before outer ones of the same name.
  std::map<std::string, JsonRef> Seen() const;

 private:
  const Variables* parent_;
  std::map<std::string, JsonRef> own_;
};

// The text of `${ … }` when the whole string is one expression, or a bare expression as `when` allows.
std::string ExpressionBody(absl::string_view text);

// The version of the expression language that runs are started with. 0: that of version 0.1, jq 1.6.
inline constexpr int kExpressionVersion = 1;

// Compiles programs, keeps them, and runs them within limits. One object serves one thread.
class Evaluator {
 public:
  struct Options {
    expressions::Limits limits;
    // Runs evaluations that are not done after their first slice. Null: they go on where they began, without a pause.
    expressions::EvaluationQueue* queue = nullptr;
  };
  // Describes the caller of an evaluation.
  struct Context {
    std::string tenant;
    absl::Time now = absl::UnixEpoch();  // what `now` returns
    Executor* executor = nullptr;        // where the caller goes on; needed with a queue
    std::function<bool()> stopped;       // looked at between slices, on any thread; may be null
    // Counts the evaluations that go on after their first slice; may be null. Changed where the caller is.
    int* long_ones = nullptr;
  };

  Evaluator() : Evaluator(Options()) {}
  explicit Evaluator(Options options) : options_(std::move(options)) {}

  // INVALID_ARGUMENT: what Evaluate would refuse whatever the data.
  absl::Status CheckExpression(const std::string& expression);
  // Every expression in a template.
  absl::Status CheckTemplate(const Json& value);

  // The first result; null when there is none. `variables` and `context` outlive the task. INVALID_ARGUMENT: the
  // expression failed on this data, with the place (BAD_EXPRESSION), took too long (EXPRESSION_TOO_LONG) or too much
  // memory (EXPRESSION_TOO_LARGE). CANCELLED: stopped.
  Task<absl::StatusOr<Json>> Evaluate(std::string expression, const Variables& variables, const Context& context);
  // Truth as in jq: everything but false and null.
  Task<absl::StatusOr<bool>> EvaluateCondition(std::string expression, const Variables& variables,
                                               const Context& context);
  // Replaces the expressions in every string of `value`.
  Task<absl::StatusOr<Json>> Expand(Json value, const Variables& variables, const Context& context);

 private:
  static constexpr size_t kMaxPrograms = 256;
  using ProgramRef = std::shared_ptr<const expressions::Program>;
  struct Kept {
    ProgramRef program;
    std::list<std::string>::iterator recent;
  };
  absl::StatusOr<ProgramRef> Compile(const std::string& text);
  // Returns what the machine came to.
  absl::StatusOr<Json> Outcome(expressions::Machine& machine, expressions::Machine::State state,
                               const std::string& text) const;
  Task<absl::StatusOr<Json>> Run(std::string text, const Variables& variables, const Context& context);
  Task<absl::StatusOr<Json>> ExpandString(std::string text, const Variables& variables, const Context& context);

  const Options options_;
  std::list<std::string> recent_;  // front: used last
  std::unordered_map<std::string, Kept> programs_;
};

}  // namespace tutti::engine
