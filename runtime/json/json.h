// JSON values inside the process, and their way from and to protobuf's Struct and Value. Numbers that are whole and
// below 2^53 stay whole on the way.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace google::protobuf {
class Message;
class Struct;
class Value;
}  // namespace google::protobuf
namespace tutti::type::v1 {
class Payload;
}

namespace tutti {

using Json = nlohmann::json;

// An object's level costs three messages in google.protobuf.Value, and protobuf reads at most 100.
inline constexpr int kMaxJsonDepth = 30;
// The deepest nesting in a JSON text, valid or not.
int JsonDepth(absl::string_view text);

// INVALID_ARGUMENT with line and column; also for nesting over kMaxJsonDepth and for invalid UTF-8.
absl::StatusOr<Json> ParseJson(absl::string_view text);
// Compact; invalid UTF-8 becomes U+FFFD.
std::string DumpJson(const Json& value, int indent = -1);

Json ToJson(const google::protobuf::Value& value);
Json ToJson(const google::protobuf::Struct& value);
void ToProto(const Json& json, google::protobuf::Value* out);
// `json` must be an object.
void ToProto(const Json& json, google::protobuf::Struct* out);

// `application/json` payloads. An empty payload is null.
absl::StatusOr<Json> FromPayload(const tutti::type::v1::Payload& payload);
void ToPayload(const Json& json, tutti::type::v1::Payload* out);

// The message in proto3's JSON mapping, by original field names; for people and for YAML.
Json MessageToJson(const google::protobuf::Message& message, bool with_defaults = false);

// OK, or INVALID_ARGUMENT naming each place of `value` that does not fit `schema` (BadRequest, fields below `where`),
// or that the schema itself is wrong.
absl::Status ValidateJson(const Json& schema, const Json& value, absl::string_view where);

}  // namespace tutti
