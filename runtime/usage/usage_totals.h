// Sums of what calls of models have consumed.
#pragma once

#include "tutti/type/v1/usage.pb.h"

namespace tutti {

// `Usage` is a ModelUsage or other UsageTotals. A sum has the currency of what was added last.
template <class Usage>
void AddUsage(const Usage& usage, tutti::type::v1::UsageTotals* sum) {
  sum->set_calls(sum->calls() + usage.calls());
  sum->set_input_tokens(sum->input_tokens() + usage.input_tokens());
  sum->set_output_tokens(sum->output_tokens() + usage.output_tokens());
  sum->set_cost_nano_units(sum->cost_nano_units() + usage.cost_nano_units());
  if (!usage.currency_code().empty()) sum->set_currency_code(usage.currency_code());
}

}  // namespace tutti
