// What the CLI prints: tables for people, JSON and YAML for programs.
#pragma once

#include <google/protobuf/message.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "runtime/config/yaml_proto.h"
#include "tutti/type/v1/usage.pb.h"

namespace tutti::cli {

enum class Format { kTable, kJson, kYaml };

// Exit codes that scripts can use; README.md lists them.
enum ExitCode { kOk = 0, kFailed = 1, kUsage = 2, kRunFailed = 3, kRunCancelled = 4, kUnavailable = 5 };

using Row = std::vector<std::string>;
void PrintTable(const Row& header, const std::vector<Row>& rows);
// JSON or YAML.
void PrintMessage(const google::protobuf::Message& message, Format format);
// To standard error; with `lines` the places in `file`. The exit code for it.
int PrintError(const absl::Status& status, const std::string& file = "", const SourceMap* lines = nullptr);

std::string ShowTime(const google::protobuf::Timestamp& time);
std::string ShowDuration(absl::Duration duration);
// "0", "0.0012 USD".
std::string ShowCost(int64_t nano_units, const std::string& currency);
absl::Time ToTime(const google::protobuf::Timestamp& time);
// `RUN_STATE_RUNNING` as `RUNNING`.
std::string ShowEnum(const std::string& name, const std::string& prefix);

}  // namespace tutti::cli
