#include "cli/output.h"

#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/json/proto_json.h"
#include "runtime/status/error.h"

namespace tutti::cli {
namespace {

// Characters, not bytes: names may be in any script.
size_t Width(const std::string& text) {
  size_t width = 0;
  for (unsigned char c : text) width += (c & 0xC0) != 0x80;
  return width;
}

}  // namespace

void PrintTable(const Row& header, const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const auto& cell : header) widths.push_back(Width(cell));
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  auto print = [&](const Row& row) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - Width(row[i]) + 2, ' ');
    }
    std::cout << line << "\n";
  };
  print(header);
  for (const auto& row : rows) print(row);
}

void PrintMessage(const google::protobuf::Message& message, Format format) {
  if (format == Format::kYaml) {
    std::cout << ToYaml(message);
    return;
  }
  std::cout << IndentJson(ProtoToJson(message, {.empty_lists = true})) << "\n";
}

int PrintError(const absl::Status& status, const std::string& file, const SourceMap* lines) {
  std::vector<FieldViolation> violations = ViolationsOf(status);
  if (!file.empty() && lines && !violations.empty() && ReasonOf(status) != "INVALID_FILE") {
    for (const auto& violation : violations) {
      // The server names fields of the request; the file holds what is below `spec`.
      std::string path = absl::StartsWith(violation.field, "spec.") ? violation.field.substr(5) : violation.field;
      std::cerr << "error: " << file << ":" << lines->LineOf(path) << ": " << path << ": " << violation.description
                << "\n";
    }
  } else {
    std::cerr << "error: " << status.message() << "\n";
    // The message has the first.
    for (size_t i = 1; i < violations.size(); ++i) {
      std::cerr << "error: " << violations[i].field << ": " << violations[i].description << "\n";
    }
  }
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return kUsage;
    case absl::StatusCode::kUnavailable:
      return kUnavailable;
    default:
      return kFailed;
  }
}

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

std::string ShowTime(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", ToTime(time), absl::UTCTimeZone());
}

std::string ShowDuration(absl::Duration duration) {
  if (duration < absl::Seconds(1)) return absl::StrFormat("%d ms", absl::ToInt64Milliseconds(duration));
  if (duration < absl::Minutes(2)) return absl::StrFormat("%.1f s", absl::ToDoubleSeconds(duration));
  return absl::StrFormat("%d min %d s", absl::ToInt64Minutes(duration),
                         absl::ToInt64Seconds(duration % absl::Minutes(1)));
}

std::string ShowCost(int64_t nano_units, const std::string& currency) {
  if (nano_units == 0) return "0";
  std::string text = absl::StrFormat("%d.%09d", nano_units / 1000000000, nano_units % 1000000000);
  text.erase(std::max(text.find_last_not_of('0') + 1, text.find('.') + 3));
  return absl::StrCat(text, " ", currency);
}

std::string ShowEnum(const std::string& name, const std::string& prefix) {
  return absl::StartsWith(name, prefix) ? name.substr(prefix.size()) : name;
}

}  // namespace tutti::cli
