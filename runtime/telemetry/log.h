// Structured logs: one JSON object a line on standard error.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "runtime/time/clock.h"

namespace spdlog {
class logger;
}

namespace tutti {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Thread safe. Fields that are always there: time, severity, service, message.
class Logger {
 public:
  using Field = std::pair<absl::string_view, absl::string_view>;
  using Fields = std::initializer_list<Field>;

  Logger(std::string service, LogLevel least, const Clock& clock);
  ~Logger();
  void Debug(absl::string_view message, Fields fields = {}) { Write(LogLevel::kDebug, message, fields); }
  void Info(absl::string_view message, Fields fields = {}) { Write(LogLevel::kInfo, message, fields); }
  void Warning(absl::string_view message, Fields fields = {}) { Write(LogLevel::kWarning, message, fields); }
  void Error(absl::string_view message, Fields fields = {}) { Write(LogLevel::kError, message, fields); }

 private:
  void Write(LogLevel level, absl::string_view message, Fields fields);
  const std::string service_;
  const LogLevel least_;
  const Clock& clock_;
  std::shared_ptr<spdlog::logger> out_;
};

// Names as in the configuration; kInfo for others.
LogLevel LogLevelFromName(absl::string_view name);

}  // namespace tutti
