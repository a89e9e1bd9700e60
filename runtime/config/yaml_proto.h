// Reads YAML (and JSON, which is YAML) into a protobuf message by reflection. Errors name file, line, column and field
// path. Field names are the proto's or their lowerCamelCase form; enums by name, with or without the type's prefix;
// Duration as `1.5s`, `200ms`, `5m`, `1h`; Struct and Value take any YAML.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace google::protobuf {
class Message;
}

namespace tutti {

// Where fields stand in a file: path to line (from 1).
class SourceMap {
 public:
  void Add(const std::string& path, int line) { lines_[path] = line; }
  // The line of the path, or of its nearest ancestor; 0 when nothing is known.
  int LineOf(std::string path) const;

 private:
  std::map<std::string, int> lines_;
};

// INVALID_ARGUMENT with one BadRequest violation for each wrong field (at most 20). `file` appears in messages.
absl::Status ParseYaml(absl::string_view text, absl::string_view file, google::protobuf::Message* out,
                       SourceMap* lines = nullptr);

// Sets one field, named by a dotted path of field names (either spelling), from text as a flag, an environment variable
// or a query parameter gives it. Scalars are taken as they are, messages as YAML; several values only for repeated
// fields.
absl::Status SetFieldFromTexts(google::protobuf::Message* message, const std::string& path,
                               const std::vector<std::string>& values, absl::string_view source);

// The message as YAML; fields marked `secret` as `***`.
std::string ToYaml(const google::protobuf::Message& message);

}  // namespace tutti
