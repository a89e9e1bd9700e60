#include "services/workflow-engine/domain/result_meter.h"

#include "absl/strings/str_cat.h"
#include "runtime/status/error.h"

namespace tutti::engine {

absl::Status ResultMeter::Take(size_t bytes) {
  for (const ResultMeter* meter = this; meter; meter = meter->outer_.get()) {
    if (meter->limit_ == kNoLimit || meter->bytes_ + bytes <= meter->limit_) continue;
    return Error(absl::StatusCode::kFailedPrecondition, "RESULTS_TOO_LARGE",
                 absl::StrCat("the results that ", meter->whose_, " holds would have ", meter->bytes_ + bytes,
                              " bytes, the limit is ", meter->limit_, "; pass large things by reference"));
  }
  Add(bytes);
  return absl::OkStatus();
}

}  // namespace tutti::engine
