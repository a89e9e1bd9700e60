// Expressions in specs: jq between `${` and `}`. Plain paths such as `.research.passages[0].text` never enter libjq.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/json/json.h"
#include "services/workflow-engine/domain/jq.h"

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
  // As one object; only names that `program` mentions, all when it may mean the whole.
  Json ToObject(const std::string& program) const;

 private:
  const Variables* parent_;
  std::map<std::string, JsonRef> own_;
};

// The text of `${ … }` when the whole string is one expression, or a bare expression as `when` allows.
std::string ExpressionBody(absl::string_view text);

class Evaluator {
 public:
  // INVALID_ARGUMENT: what Run would refuse whatever the data.
  absl::Status CheckExpression(const std::string& expression);
  // Every expression in a template.
  absl::Status CheckTemplate(const Json& value);

  absl::StatusOr<Json> Evaluate(const std::string& expression, const Variables& variables);
  // Truth as in jq: everything but false and null.
  absl::StatusOr<bool> EvaluateCondition(absl::string_view expression, const Variables& variables);
  // Replaces the expressions in every string of `value`.
  absl::StatusOr<Json> Expand(const Json& value, const Variables& variables);

 private:
  absl::StatusOr<Json> ExpandString(const std::string& text, const Variables& variables);
  Jq jq_;
};

}  // namespace tutti::engine
