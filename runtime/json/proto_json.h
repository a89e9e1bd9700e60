// Protobuf's JSON mapping (proto3), read and written by reflection: bounded while it reads, in time linear in the text.
// Numbers inside google.protobuf.Value keep their text (runtime/json/json.h).
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "runtime/json/json.h"

namespace tutti {

// JSON's nesting in a request; values that users own may nest kMaxJsonDepth levels of it.
inline constexpr int kMaxMessageJsonDepth = 100;

// Fields by their lowerCamelCase or their original name. INVALID_ARGUMENT with the field's place (BadRequest):
// no JSON, an unknown field, a value of the wrong type or out of range.
absl::Status JsonToProto(absl::string_view text, google::protobuf::Message* out);
absl::Status JsonValueToProto(const Json& json, google::protobuf::Message* out);

struct ProtoJsonOptions {
  bool original_names = false;  // instead of lowerCamelCase
  bool defaults = false;        // also fields without a value
  bool empty_lists = false;     // also empty lists of the outermost message
};
// Writes fields in the order of their numbers.
std::string ProtoToJson(const google::protobuf::Message& message, const ProtoJsonOptions& options = {});

// Valid JSON in one line, with a line for each member and item: nothing else changes, also not the order.
std::string IndentJson(absl::string_view json);

}  // namespace tutti
