// What is wrong with a JSON body, in words that help to mend it.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tutti::gateway {

// INVALID_ARGUMENT with the field. `message` is what protobuf's parser said of a body for `into`; names of fields and
// of enumerations' values that are known where it failed are added.
absl::Status ExplainJsonError(const google::protobuf::Message& into, absl::string_view message);

}  // namespace tutti::gateway
