// gMock matchers for absl::Status: the packaged Abseil and gMock have none.
#pragma once

#include <gmock/gmock.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tutti::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <class T>
const absl::Status& StatusOf(const absl::StatusOr<T>& value) {
  return value.status();
}

MATCHER(IsOk, "is OK") {
  if (!StatusOf(arg).ok()) *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}
MATCHER_P(HasCode, code, "has the code") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code;
}
MATCHER_P2(HasCodeAndText, code, text, "has the code and says the text") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code && std::string(StatusOf(arg).message()).find(text) != std::string::npos;
}

}  // namespace tutti::testing
