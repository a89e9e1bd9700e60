// JSON values inside the process, and their way from and to protobuf's Struct and Value.
//
// Numbers keep what they say. One that neither a 64-bit integer nor a double writes in the same way (`1.10`, `1e2`,
// `12345678901234567890123`) is an exact number: a value that holds its text. In google.protobuf.Value it stands as the
// nearest double, with the text beside it in an unknown field that this program's other processes read.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
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
// Members and items of one text.
inline constexpr int64_t kMaxJsonValues = 2'000'000;

// INVALID_ARGUMENT with line and column; also for nesting over `max_depth`, for more than kMaxJsonValues values and for
// invalid UTF-8. Of members of one name the last counts.
absl::StatusOr<Json> ParseJson(absl::string_view text, int max_depth = kMaxJsonDepth);
// The same; also INVALID_ARGUMENT for an object with two members of one name.
absl::StatusOr<Json> ParseUniqueJson(absl::string_view text, int max_depth = kMaxJsonDepth);
// The same, with all numbers as 64-bit integers and doubles: how journals of version 0.1 were read.
absl::StatusOr<Json> ParseJsonWithDoubles(absl::string_view text);
// Compact, or with that many spaces a level; invalid UTF-8 becomes U+FFFD.
std::string DumpJson(const Json& value, int indent = -1);
// Appends a string in quotation marks, escaped.
void AppendJsonString(absl::string_view text, std::string* out);

// A number from its text, which is in JSON's grammar: exact when nothing else carries it.
Json JsonNumber(absl::string_view text);
inline bool IsExactNumber(const Json& value) { return value.is_binary(); }
// The text of an exact number.
absl::string_view ExactNumberText(const Json& value);
inline bool IsNumber(const Json& value) { return value.is_number() || IsExactNumber(value); }
// The nearest double of any number; nullopt for other values.
std::optional<double> ToDouble(const Json& value);
// Returns true when an exact number stands anywhere in the value.
bool HasExactNumber(const Json& value);
// The same with doubles in place of exact numbers, for libraries that know no others.
Json WithDoubles(Json value);
// Equal, also where one says `1.0` and the other `1`.
bool SameJson(const Json& a, const Json& b);

Json ToJson(const google::protobuf::Value& value);
Json ToJson(const google::protobuf::Struct& value);
void ToProto(const Json& json, google::protobuf::Value* out);
// `json` must be an object.
void ToProto(const Json& json, google::protobuf::Struct* out);

// `application/json` payloads. An empty payload is null. A space in front of the JSON says that its numbers keep their
// text; without that mark, as in journals of version 0.1, all numbers are read as 64-bit integers and doubles.
absl::StatusOr<Json> FromPayload(const tutti::type::v1::Payload& payload);
void ToPayload(const Json& json, tutti::type::v1::Payload* out);

// The message in proto3's JSON mapping, by original field names; for people and for YAML.
Json MessageToJson(const google::protobuf::Message& message, bool with_defaults = false);

// OK, or INVALID_ARGUMENT naming each place of `value` that does not fit `schema` (BadRequest, fields below `where`),
// or that the schema itself is wrong.
absl::Status ValidateJson(const Json& schema, const Json& value, absl::string_view where);

}  // namespace tutti
